"""Weights under the names of transformers, both ways, the JSON files next to them, and the checks of stored tensors."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from ..config.published import FAMILIES
from ..data.sources import SpecialTokens
from ..formats.checkpoint import Checkpoint, required_shapes
from ..formats.contract import Fields, mismatch
from ..model.architecture import Architecture

__all__ = [
    "ARCHITECTURES",
    "HEAD",
    "cast",
    "check_finite",
    "dtype_of_most",
    "from_published",
    "generation_json",
    "model_json",
    "needed_weights",
    "published_shapes",
    "stored_weights",
    "to_published",
    "tokenizer_json",
    "unties",
]

log = logging.getLogger(__name__)


ARCHITECTURES = {family: name for name, family in FAMILIES.items()}

_NORMS = {
    "olmo": {},
    "olmo2": {"attention_norm": "post_attention_layernorm", "mlp_norm": "post_feedforward_layernorm"},
    "olmo3": {"attention_norm": "post_attention_layernorm", "mlp_norm": "post_feedforward_layernorm"},
}
_NORMS_BEFORE = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
_EXPERTS = {
    "olmoe": ("mlp.gate", "mlp.experts", {"up": "up_proj", "gate": "gate_proj", "down": "down_proj"}),
    "mixtral": ("block_sparse_moe.gate", "block_sparse_moe.experts", {"up": "w3", "gate": "w1", "down": "w2"}),
}
"""(router, experts, matrices) under the names that transformers writes to disk, one expert a tensor."""

_Entry = tuple[str, list[tuple[str, int]]]


def _table(shape: Architecture) -> list[_Entry]:
    """(our name, [(published name, rows), …]): a fused weight is several published ones, one below the other.

    Of a weight of three dimensions the first two count as rows.
    """
    table: list[_Entry] = [("embedding", [("model.embed_tokens.weight", shape.embedding_rows)])]
    for layer in range(shape.layers):
        ours, published = f"blocks.{layer}.", f"model.layers.{layer}."
        entries = [*_attention(shape), *(_experts(shape) if shape.routing else _mlp(shape))]
        norms = _NORMS.get(shape.family, _NORMS_BEFORE)
        entries += [(f"{x}.weight", [(f"{y}.weight", shape.width)]) for x, y in norms.items()]
        table += [(f"{ours}{name}", [(f"{published}{part}", rows) for part, rows in parts]) for name, parts in entries]
    if shape.norm == "rms_norm":
        table.append(("norm.weight", [("model.norm.weight", shape.width)]))
    if not shape.tied:
        table.append(("head.weight", [("lm_head.weight", shape.embedding_rows)]))
    return table


def _attention(shape: Architecture) -> list[_Entry]:
    queries, keys = shape.heads * shape.head_width, shape.key_value_heads * shape.head_width
    heads, entries = [("q", queries), ("k", keys), ("v", keys)], list[_Entry]()
    for kind in ("weight", "bias") if shape.attention_bias else ("weight",):
        entries.append((f"attention.qkv.{kind}", [(f"self_attn.{x}_proj.{kind}", rows) for x, rows in heads]))
        entries.append((f"attention.out.{kind}", [(f"self_attn.o_proj.{kind}", shape.width)]))
    if shape.qk_norm:
        entries.append(("attention.query_norm.weight", [("self_attn.q_norm.weight", queries)]))
        entries.append(("attention.key_norm.weight", [("self_attn.k_norm.weight", keys)]))
    return entries


def _mlp(shape: Architecture) -> list[_Entry]:
    entries = list[_Entry]()
    for kind in ("weight", "bias") if shape.mlp_bias else ("weight",):
        parts = [(f"mlp.{x}_proj.{kind}", shape.inner_width) for x in ("up", "gate")]
        entries += [(f"mlp.up_gate.{kind}", parts), (f"mlp.down.{kind}", [(f"mlp.down_proj.{kind}", shape.width)])]
    return entries


def _experts(shape: Architecture) -> list[_Entry]:
    assert shape.routing is not None
    router, experts, names = _EXPERTS[shape.family]
    each = [f"{experts}.{index}." for index in range(shape.routing.experts)]
    up_gate = [(f"{expert}{names[x]}.weight", shape.inner_width) for expert in each for x in ("up", "gate")]
    down = [(f"{expert}{names['down']}.weight", shape.width) for expert in each]
    return [
        ("mlp.router.weight", [(f"{router}.weight", shape.routing.experts)]),
        ("mlp.up_gate", up_gate),
        ("mlp.down", down),
    ]


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flatten(0, 1) if tensor.ndim == 3 else tensor


def published_shapes(shape: Architecture) -> dict[str, tuple[int, ...]]:
    """The shape of every published tensor of a model."""
    config = model_json(shape, SpecialTokens(eos=0, bos=None, pad=None), 1, "float32")
    return required_shapes(Fields(config, "config.json"))


def to_published(state: dict[str, torch.Tensor], shape: Architecture) -> dict[str, torch.Tensor]:
    """Our weights as transformers stores them, without a tied output matrix."""
    published = {}
    for ours, parts in _table(shape):
        pieces = torch.split(_rows(state[ours]), [rows for _, rows in parts])
        published.update({name: piece.contiguous() for (name, _), piece in zip(parts, pieces, strict=True)})
    return published


def from_published(published: dict[str, torch.Tensor], shape: Architecture) -> dict[str, torch.Tensor]:
    """Weights as transformers stores them under our names, float32."""
    state = {ours: torch.cat([published[name].float() for name, _ in parts]) for ours, parts in _table(shape)}
    if shape.routing:
        stacked = [name for name in state if name.endswith(("mlp.up_gate", "mlp.down"))]
        for name in stacked:
            state[name] = state[name].view(shape.routing.experts, -1, state[name].shape[1])
    return state


def model_json(shape: Architecture, special: SpecialTokens, max_positions: int, dtype: str) -> dict[str, Any]:
    """config.json as transformers 5 writes it; `rope_theta` and `rope_scaling` are also where version 4 reads them."""
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES[shape.family]],
        "attention_dropout": 0.0,
        "bos_token_id": special.bos,
        "dtype": dtype,
        "eos_token_id": special.eos,
        "hidden_act": "silu",
        "hidden_size": shape.width,
        "initializer_range": 0.02,
        "intermediate_size": shape.inner_width,
        "max_position_embeddings": max_positions,
        "model_type": shape.family,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.key_value_heads,
        "pad_token_id": special.pad,
        **_rope_json(shape),
        "tie_word_embeddings": shape.tied,
        "use_cache": True,
        "vocab_size": shape.embedding_rows,
    }
    if shape.family not in ("mistral", "mixtral"):
        config["attention_bias"] = shape.attention_bias
    if shape.family in ("olmo", "olmoe"):
        config["clip_qkv"] = shape.clip_qkv
    if shape.family != "olmo":
        config["rms_norm_eps"] = shape.norm_eps
    if shape.family in ("llama", "mistral", "mixtral") or shape.head_width * shape.heads != shape.width:
        config["head_dim"] = shape.head_width
    if shape.family == "llama":
        config.update(mlp_bias=shape.mlp_bias, pretraining_tp=1)
    if shape.family in ("olmo3", "mistral", "mixtral"):
        config["sliding_window"] = next((window for window in shape.windows if window), None)
    if shape.family == "olmo3":
        config["sliding_window"] = config["sliding_window"] or 4096  # transformers wants one even where none is used
        kinds = {True: "sliding_attention", False: "full_attention"}
        config["layer_types"] = [kinds[window is not None] for window in shape.windows]
    return config | _routing_json(shape)


def _rope_json(shape: Architecture) -> dict[str, Any]:
    plain: dict[str, Any] = {"rope_theta": shape.rope_theta, "rope_type": "default"}
    if (scaling := shape.rope_scaling) is None:
        nested = {"full_attention": plain, "sliding_attention": plain}
        return {"rope_parameters": nested if shape.family == "olmo3" else plain, "rope_theta": shape.rope_theta}
    wanted = {
        "linear": (),
        "yarn": ("original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor"),
        "llama3": ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
    }[scaling.rope_type]
    values = {name: getattr(scaling, name) for name in ("rope_type", "factor", *wanted)}
    values = {name: value for name, value in values.items() if value is not None}
    full = {**values, "rope_theta": shape.rope_theta}
    return {
        "rope_parameters": ({"full_attention": full, "sliding_attention": plain} if shape.family == "olmo3" else full),
        "rope_scaling": values,
        "rope_theta": shape.rope_theta,
    }


def _routing_json(shape: Architecture) -> dict[str, Any]:
    if (routing := shape.routing) is None:
        return {}
    values = {
        "num_experts_per_tok": routing.chosen,
        "output_router_logits": False,
        "router_aux_loss_coef": routing.balance_weight,
        # transformers keeps these two without using them
        "router_balance": "window" if routing.per_window else "micro_batch",
        "router_z_loss_coef": routing.z_weight,
    }
    if shape.family == "mixtral":
        return {**values, "num_local_experts": routing.experts, "router_jitter_noise": 0.0}
    return {**values, "num_experts": routing.experts, "norm_topk_prob": routing.renormalise}


def generation_json(special: SpecialTokens) -> dict[str, Any]:
    """generation_config.json: the special tokens of generation."""
    ids = {"bos_token_id": special.bos, "eos_token_id": special.eos, "pad_token_id": special.pad}
    return {"_from_model_config": True, **{name: value for name, value in ids.items() if value is not None}}


def tokenizer_json(tokenizer: Tokenizer, special: SpecialTokens, max_positions: int) -> dict[str, Any]:
    """tokenizer_config.json, such that AutoTokenizer has the model's special ids.

    If the training documents start with BOS, so do those that the model is evaluated on.
    """
    tokens = {"bos_token": special.bos, "eos_token": special.eos, "pad_token": special.pad}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_positions,
        **({} if special.bos is None else {"add_bos_token": True}),
        **{name: tokenizer.id_to_token(token) for name, token in tokens.items() if token is not None},
    }


# ---- stored tensors

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_CASTS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_COMPUTED = "rotary_emb.inv_freq"  # a buffer that old versions of transformers stored; it follows from the settings


def stored_weights(opened: Checkpoint) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, in their stored dtypes.

    Raises: FormatError: `invalid_value`: one contains NaN or infinity; `wrong_dtype`: one contains integers.
    """
    weights: dict[str, torch.Tensor] = {}
    for path in sorted({tensor.path for tensor in opened.tensors.values()}):
        weights.update(load_file(path))
    check_finite(weights, {name: tensor.path for name, tensor in opened.tensors.items()})
    return weights


def check_finite(weights: Mapping[str, torch.Tensor], paths: Mapping[str, Path] | Path) -> None:
    """Refuse weights that are not finite, since nothing computed from them is meaningful.

    Raises: FormatError: `invalid_value`, `wrong_dtype`, with the tensor's name.
    """
    for name, tensor in weights.items():
        path = paths if isinstance(paths, Path) else paths[name]
        if tensor.dtype not in _FLOATS:
            got = str(tensor.dtype).removeprefix("torch.")
            raise mismatch("wrong_dtype", path, f"of {got}", "float32, bfloat16 or float16", field=name)
        if tensor.sum().isfinite():  # NaN and infinity survive a sum, which costs a tenth of looking at each weight
            continue
        bad = tensor.numel() - int(tensor.isfinite().sum())
        if bad:
            kind = "NaN" if tensor.isnan().any() else "infinity"
            hint = "use a checkpoint from before the weights overflowed"
            got = f"{kind} in {bad} of {tensor.numel()} values"
            raise mismatch("invalid_value", path, got, "finite numbers", field=name, hint=hint)


def needed_weights(
    stored: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]], where: Path
) -> dict[str, torch.Tensor]:
    """The stored tensors that a model needs; warns about the others.

    Raises: FormatError: `missing_tensor`, `wrong_shape`.
    """
    needed = {}
    for name, shape in shapes.items():
        if name not in stored:
            raise mismatch("missing_tensor", where, "missing", f"shape {shape}", field=name)
        if stored[name].shape != shape:
            got = f"of shape {list(stored[name].shape)}"
            raise mismatch("wrong_shape", where, got, f"{list(shape)}, as the configuration implies", field=name)
        needed[name] = stored[name]
    others = [name for name in stored if name not in shapes and not name.endswith(_COMPUTED) and name != HEAD]
    if others:
        shown = ", ".join(others[:3]) + ("…" if len(others) > 3 else "")
        log.warning("%s: skipping %d tensors that the model does not have (%s)", where, len(others), shown)
    return needed


def cast(weights: dict[str, torch.Tensor], dtype: str | None, where: Path) -> dict[str, torch.Tensor]:
    """The weights in another dtype; unchanged if it is None.

    Raises: FormatError: `invalid_value`: one overflows.
    """
    if dtype is None:
        return weights
    weights = {name: tensor.to(_CASTS[dtype]) for name, tensor in weights.items()}
    check_finite(weights, where)
    return weights


def unties(stored: Mapping[str, torch.Tensor]) -> bool:
    """Whether the stored output matrix differs from the embedding, whatever `tie_word_embeddings` says."""
    return HEAD in stored and EMBEDDING in stored and not torch.equal(stored[HEAD], stored[EMBEDDING])


def dtype_of_most(weights: Mapping[str, torch.Tensor]) -> str:
    """The dtype of most parameters, which config.json and the manifest state."""
    counts: dict[str, int] = {}
    for tensor in weights.values():
        name = str(tensor.dtype).removeprefix("torch.")
        counts[name] = counts.get(name, 0) + tensor.numel()
    return min(counts, key=lambda name: (-counts[name], name))

"""What OLMo's and OLMo-core's own configuration files say of the model, in the words of the group `model`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import ConfigError, Problem

__all__ = ["core_model", "olmo_eos", "olmo_model"]


def _refuse_others(where: Path, wanted: list[tuple[str, Any, tuple[Any, ...]]]) -> None:
    problems = [
        Problem(f'{where}: "{name}" is {value}; expected {" or ".join(map(str, allowed))}')
        for name, value, allowed in wanted
        if value not in allowed
    ]
    if problems:
        raise ConfigError(*problems)


def _need(mapping: dict[str, Any], names: str, where: Path) -> None:
    missing = [Problem(f'{where}: "model.{name}" is missing') for name in names.split() if mapping.get(name) is None]
    if missing:
        raise ConfigError(*missing)


def olmo_eos(model: dict[str, Any]) -> int | None:
    """The id that ends a document.

    Configs of OLMo-1's vocabulary that say 0 are mistaken, as OLMo's own converter knows: its end-of-text token is the
    last.
    """
    eos: int | None = model.get("eos_token_id")
    return 50279 if eos == 0 and model.get("vocab_size") == 50280 else eos


def olmo_model(model: dict[str, Any], where: Path) -> dict[str, Any]:
    """The group `model` of a config.yaml of allenai/OLMo (OLMo-1, OLMo-2 and its ladder, OLMoE).

    Raises: ConfigError: an option that this trainer does not have.
    """
    _need(model, "d_model n_heads n_layers vocab_size", where)
    norm, affine = model.get("layer_norm_type", "default"), bool(model.get("layer_norm_with_affine", True))
    block = model.get("block_type", "sequential")
    kind = (
        block,
        "rms_norm" if norm == "rms" else "layer_norm",
        affine,
        bool(model.get("norm_after", False)),
        bool(model.get("attention_layer_norm", False)),
    )
    families = {
        ("sequential", "layer_norm", False, False, False): "olmo",
        ("sequential", "rms_norm", True, True, True): "olmo2",
        ("sequential", "rms_norm", True, False, False): "llama",
        ("moe", "rms_norm", True, False, True): "olmoe",
    }
    no = (False, None)
    _refuse_others(
        where,
        [
            ("model.layer_norm_type", norm, ("default", "low_precision", "rms")),
            ("model.activation_type", model.get("activation_type", "swiglu"), ("swiglu",)),
            ("model.block_type", block, ("sequential", "moe")),
            ("model.moe_dropless", block == "moe" and not model.get("moe_dropless", True), (False,)),
            ("model.rope", model.get("rope", False), (True,)),
            *((f"model.{name}", model.get(name), no) for name in ("alibi", "include_bias", "bias_for_layer_norm")),
            *((f"model.{name}", model.get(name), no) for name in ("embedding_layer_norm", "scale_logits")),
            *((f"model.{name}_dropout", model.get(f"{name}_dropout") or 0, (0,)) for name in _DROPOUTS),
            ("(block, layer norm, affine, norm_after, attention_layer_norm)", kind, tuple(families)),
        ],
    )
    width, heads = model["d_model"], model["n_heads"]
    # what OLMo calls the hidden size counts both halves of the SwiGLU product (arXiv 2402.00838, footnote 2)
    hidden = model.get("mlp_hidden_size") or model.get("mlp_ratio", 4) * width
    settings = {
        "family": families[kind],
        "hidden_size": width,
        "intermediate_size": int(hidden) // 2,
        "num_hidden_layers": model["n_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": model.get("n_kv_heads") or (1 if model.get("multi_query_attention") else heads),
        "rope_theta": float(model.get("rope_theta") or 10000),
        "norm_eps": float(model.get("layer_norm_eps") or 1e-5),
        "tie_word_embeddings": bool(model.get("weight_tying", True)),
        "clip_qkv": model.get("clip_qkv"),
        "embedding_size": model.get("embedding_size") or model["vocab_size"],
    }
    if block == "moe":
        settings |= {name: model[theirs] for name, theirs in _MOE.items() if model.get(theirs) is not None}
    return settings


_MOE = {
    "num_experts": "moe_num_experts",
    "num_experts_per_tok": "moe_top_k",
    "router_aux_loss_coef": "moe_loss_weight",
    "router_z_loss_coef": "moe_zloss_weight",
}
_DROPOUTS = ("attention", "residual", "embedding")


def core_model(model: dict[str, Any], where: Path) -> dict[str, Any]:
    """The group `model` of the `model` in a config.json of OLMo-core (OLMo-2, OLMo-3, and Llama's order of norms).

    Raises: ConfigError: an option that this trainer does not have.
    """
    _need(model, "d_model n_layers vocab_size block", where)
    block = model["block"]
    attention = block.get("attention") or block.get("sequence_mixer") or {}
    norm, hidden = block.get("layer_norm") or {}, (block.get("feed_forward") or {}).get("hidden_size")
    _need({**attention, "hidden_size": hidden}, "n_heads hidden_size", where)
    reordered, rope = block.get("name", "default") == "reordered_norm", attention.get("rope") or {}
    heads, layers = attention["n_heads"], model["n_layers"]
    window, types = _core_windows(attention.get("sliding_window"), layers, where)
    no = (False, None)
    _refuse_others(
        where,
        [
            ("model.block.name", block.get("name", "default"), ("default", "reordered_norm")),
            ("model.block.layer_norm.name", norm.get("name", "rms"), ("rms", "fused_rms")),
            ("model.block.attention.qk_norm", attention.get("qk_norm") is not None, (reordered,)),
            ("model.block.attention.use_head_qk_norm", attention.get("use_head_qk_norm"), no),
            ("model.block.attention.bias", attention.get("bias"), no),
            ("model.block.attention.clip_qkv", attention.get("clip_qkv"), (None,)),
            ("model.block.attention.rope.scaling", rope.get("scaling"), (None,)),
            ("model.block.attention.sliding_window", window is not None and not reordered, (False,)),
            ("model.block_overrides", model.get("block_overrides") or None, (None,)),
        ],
    )
    settings = {
        "family": ("olmo3" if window else "olmo2") if reordered else "llama",
        "hidden_size": model["d_model"],
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": attention.get("n_kv_heads") or heads,
        "rope_theta": float(rope.get("theta") or 500_000),
        "norm_eps": float(norm.get("eps") or 1e-5),
        "embedding_size": model["vocab_size"],
    }
    if window:
        settings |= {"sliding_window": window, "layer_types": types}
    return settings


def _core_windows(sliding: dict[str, Any] | None, layers: int, where: Path) -> tuple[int | None, list[str]]:
    """The one window and each layer's type; None where there is no window."""
    if not sliding or not sliding.get("enabled", True):
        return None, []
    pattern, first = sliding.get("pattern") or [-1], bool(sliding.get("force_full_attention_on_first_layer", True))
    windows = [pattern[(layer - first) % len(pattern)] for layer in range(layers)]
    if first:
        windows[0] = -1
    if sliding.get("force_full_attention_on_last_layer", True):
        windows[-1] = -1
    sizes = {window for window in windows if window != -1}
    if len(sizes) > 1:
        raise ConfigError(Problem(f"{where}: sliding windows are of {sorted(sizes)} tokens; expected one size"))
    return next(iter(sizes), None), ["full_attention" if window == -1 else "sliding_attention" for window in windows]

"""This trainer's weights under the names of transformers, both ways, and the JSON files beside them."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer

from ..data.sources import SpecialTokens
from ..model.architecture import Architecture

__all__ = ["ARCHITECTURES", "from_published", "generation_json", "model_json", "to_published", "tokenizer_json"]

ARCHITECTURES = {"olmo": "OlmoForCausalLM", "olmo2": "Olmo2ForCausalLM", "llama": "LlamaForCausalLM"}

_NORMS = {
    "olmo": {},
    "olmo2": {"attention_norm": "post_attention_layernorm", "mlp_norm": "post_feedforward_layernorm"},
    "llama": {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"},
}


def _table(shape: Architecture) -> list[tuple[str, list[tuple[str, int]]]]:
    """(our name, [(published name, rows), …]): a fused weight is several published ones, one below the other."""
    queries, keys = shape.heads * shape.head_width, shape.key_value_heads * shape.head_width
    table: list[tuple[str, list[tuple[str, int]]]] = [
        ("embedding", [("model.embed_tokens.weight", shape.embedding_rows)])
    ]
    for layer in range(shape.layers):
        ours, published = f"blocks.{layer}.", f"model.layers.{layer}."
        heads = [("q", queries), ("k", keys), ("v", keys)]
        table += [
            (f"{ours}attention.qkv.weight", [(f"{published}self_attn.{x}_proj.weight", rows) for x, rows in heads]),
            (f"{ours}attention.out.weight", [(f"{published}self_attn.o_proj.weight", shape.width)]),
            (
                f"{ours}mlp.up_gate.weight",
                [(f"{published}mlp.{x}_proj.weight", shape.inner_width) for x in ("up", "gate")],
            ),
            (f"{ours}mlp.down.weight", [(f"{published}mlp.down_proj.weight", shape.width)]),
        ]
        table += [
            (f"{ours}{x}.weight", [(f"{published}{y}.weight", shape.width)]) for x, y in _NORMS[shape.family].items()
        ]
        if shape.qk_norm:
            table.append((f"{ours}attention.query_norm.weight", [(f"{published}self_attn.q_norm.weight", queries)]))
            table.append((f"{ours}attention.key_norm.weight", [(f"{published}self_attn.k_norm.weight", keys)]))
    if shape.norm == "rms_norm":
        table.append(("norm.weight", [("model.norm.weight", shape.width)]))
    if not shape.tied:
        table.append(("head.weight", [("lm_head.weight", shape.embedding_rows)]))
    return table


def to_published(state: dict[str, torch.Tensor], shape: Architecture) -> dict[str, torch.Tensor]:
    """Our weights as transformers stores them; a tied output matrix is left out."""
    published = {}
    for ours, parts in _table(shape):
        pieces = torch.split(state[ours], [rows for _, rows in parts])
        published.update({name: piece.contiguous() for (name, _), piece in zip(parts, pieces, strict=True)})
    return published


def from_published(published: dict[str, torch.Tensor], shape: Architecture) -> dict[str, torch.Tensor]:
    """Weights as transformers stores them under our names, float32."""
    return {ours: torch.cat([published[name].float() for name, _ in parts]) for ours, parts in _table(shape)}


def model_json(shape: Architecture, special: SpecialTokens, max_positions: int, dtype: str) -> dict[str, Any]:
    """config.json as transformers 5 writes it. `rope_theta` also stands where transformers 4 looks for it."""
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES[shape.family]],
        "attention_bias": False,
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
        "rope_parameters": {"rope_theta": shape.rope_theta, "rope_type": "default"},
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": shape.tied,
        "use_cache": True,
        "vocab_size": shape.embedding_rows,
    }
    if shape.family == "olmo":
        config["clip_qkv"] = shape.clip_qkv
    else:
        config["rms_norm_eps"] = shape.norm_eps
    if shape.family == "llama":
        config.update(head_dim=shape.head_width, mlp_bias=False, pretraining_tp=1)
    return config


def generation_json(special: SpecialTokens) -> dict[str, Any]:
    """generation_config.json: where generation begins and ends."""
    ids = {"bos_token_id": special.bos, "eos_token_id": special.eos, "pad_token_id": special.pad}
    return {"_from_model_config": True, **{name: value for name, value in ids.items() if value is not None}}


def tokenizer_json(tokenizer: Tokenizer, special: SpecialTokens, max_positions: int) -> dict[str, Any]:
    """tokenizer_config.json, such that AutoTokenizer's special ids are the model's."""
    tokens = {"bos_token": special.bos, "eos_token": special.eos, "pad_token": special.pad}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_positions,
        **{name: tokenizer.id_to_token(token) for name, token in tokens.items() if token is not None},
    }

"""Published shapes by name: `model.preset` fills in what the group `model` leaves out.

Embedding rows come from the tokenizer, so that a shape can be trained with another one.
"""

from __future__ import annotations

import difflib
from typing import Any

from .errors import ConfigError, Problem

__all__ = ["PRESETS", "apply_preset"]


def _shape(family: str, width: int, layers: int, heads: int, inner: int, groups: int | None = None) -> dict[str, Any]:
    return {
        "family": family,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups or heads,
    }


def _ladder(width: int, layers: int, heads: int) -> dict[str, Any]:
    """allenai/OLMo configs/tiny: RMS norm before, no norm of queries and keys, so Llama's family."""
    return {**_shape("llama", width, layers, heads, 4 * width), "norm_eps": 1e-6}


_MITCHELL = {"init": {"scheme": "mitchell"}}
_YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192}

PRESETS: dict[str, dict[str, Any]] = {
    # arXiv 2402.00838, table 1; allenai/OLMo configs/official-*
    "olmo1-1b": {**_shape("olmo", 2048, 16, 16, 8192), "tie_word_embeddings": True, **_MITCHELL},
    "olmo1-7b": {**_shape("olmo", 4096, 32, 32, 11008), **_MITCHELL},
    "olmo1-65b": {**_shape("olmo", 8192, 80, 64, 22016), **_MITCHELL},
    "olmo1-7b-0724": {**_shape("olmo", 4096, 32, 32, 11008), "clip_qkv": 8.0, **_MITCHELL},
    # arXiv 2501.00656
    "olmo2-1b": _shape("olmo2", 2048, 16, 16, 8192),
    "olmo2-7b": _shape("olmo2", 4096, 32, 32, 11008),
    "olmo2-13b": _shape("olmo2", 5120, 40, 40, 13824),
    "olmo2-32b": _shape("olmo2", 5120, 64, 40, 27648, 8),
    # allenai/Olmo-3-1025-7B and Olmo-3-1125-32B; `-long` as after the extension to 65,536 tokens
    "olmo3-7b": _shape("olmo3", 4096, 32, 32, 11008),
    "olmo3-7b-long": {**_shape("olmo3", 4096, 32, 32, 11008), "rope_scaling": _YARN},
    "olmo3-32b": _shape("olmo3", 5120, 64, 40, 27648, 8),
    "olmo3-32b-long": {**_shape("olmo3", 5120, 64, 40, 27648, 8), "rope_scaling": _YARN},
    # arXiv 2409.02060
    "olmoe-1b-7b": _shape("olmoe", 2048, 16, 16, 1024),
    # arXiv 2307.09288
    "llama2-7b": _shape("llama", 4096, 32, 32, 11008),
    "llama2-13b": _shape("llama", 5120, 40, 40, 13824),
    "llama2-70b": _shape("llama", 8192, 80, 64, 28672, 8),
    # arXiv 2310.06825 and 2401.04088
    "mistral-7b": {**_shape("mistral", 4096, 32, 32, 14336, 8), "sliding_window": 4096},
    "mixtral-8x7b": _shape("mixtral", 4096, 32, 32, 14336, 8),
    "ladder-20m": _ladder(256, 8, 8),
    "ladder-60m": _ladder(512, 8, 8),
    "ladder-150m": _ladder(768, 12, 12),
    "ladder-300m": _ladder(1024, 16, 16),
    "ladder-700m": _ladder(1536, 16, 16),
}


def apply_preset(model: dict[str, Any], where: str) -> dict[str, Any]:
    """The group `model` with what its preset says and it does not.

    Raises: ConfigError: there is no such preset.
    """
    name = model.get("preset")
    if not isinstance(name, str):
        return model  # none, or of a wrong type, which is told of with all others
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.0)[0]
        message = f'{where}: "model.preset" is {name}; expected one of {", ".join(PRESETS)}'
        raise ConfigError(Problem(message, f'did you mean "{near}"?'))
    return {**PRESETS[name], **model}

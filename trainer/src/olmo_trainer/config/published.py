"""Published models: shapes by name (`model.preset`), and what a transformers config.json says, as the group `model`."""

import difflib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..formats.contract import ConfigError, Problem
from .schema import RopeScalingConfig

__all__ = ["FAMILIES", "PRESETS", "apply_preset", "model_settings", "unknown_options"]


# ---- presets


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
    """The group `model`, completed by its preset."""
    name = model.get("preset")
    if not isinstance(name, str):
        return model  # null, or of a wrong type, which is reported with all other problems
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.0)[0]
        message = f'{where}: "model.preset" is {name}; expected one of {", ".join(PRESETS)}'
        raise ConfigError(message, hint=f'did you mean "{near}"?')
    return {**PRESETS[name], **model}


# ---- config.json

FAMILIES = {
    "OlmoForCausalLM": "olmo",
    "Olmo2ForCausalLM": "olmo2",
    "Olmo3ForCausalLM": "olmo3",
    "OlmoeForCausalLM": "olmoe",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "MixtralForCausalLM": "mixtral",
}
# what transformers' classes take where config.json says nothing
_EPS = {"olmo": 1e-5, "olmo2": 1e-5, "olmo3": 1e-5, "olmoe": 1e-5, "llama": 1e-6, "mistral": 1e-6, "mixtral": 1e-5}
_THETA = {"olmo3": 5e5, "mixtral": 1e6}
_LIMIT = 2**31
_SCALING = (
    "rope_type factor original_max_position_embeddings beta_fast beta_slow attention_factor "
    "low_freq_factor high_freq_factor"
).split()


def unknown_options(where: Path, wanted: list[tuple[str, Any, Collection[Any]]]) -> list[Problem]:
    """A problem for each (name, value, allowed values) with another value."""

    def written(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value)

    return [
        Problem(f'{where}: "{name}" is {written(value)}; expected {" or ".join(map(written, allowed))}')
        for name, value, allowed in wanted
        if value not in allowed
    ]


def model_settings(config: dict[str, Any], where: Path) -> dict[str, Any]:
    """The `model` group of a transformers config.json."""
    architecture = (config.get("architectures") or ["none"])[0]
    family = FAMILIES.get(architecture, "")
    rope, theta = _rope(config, family, where)
    wanted: list[tuple[str, Any, Collection[Any]]] = [
        ("architectures", architecture, tuple(FAMILIES)),
        ("hidden_act", config.get("hidden_act", "silu"), ("silu",)),
        ("rope_type", rope.get("rope_type", "default"), ("default", "linear", "yarn", "llama3")),
        ("rope_parameters.mscale", rope.get("mscale"), (None,)),
        ("rope_parameters.truncate", rope.get("truncate", True), (True,)),
        ("partial_rotary_factor", rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1)), (1,)),
        ("quantization_config", config.get("quantization_config"), (None,)),
        ("router_jitter_noise", config.get("router_jitter_noise") or 0, (0,)),
    ]
    problems = unknown_options(where, wanted)
    if not family:  # another model's settings have other names
        raise ConfigError(problems[0])
    names = "hidden_size intermediate_size num_hidden_layers num_attention_heads vocab_size".split()
    for name in names:
        if type(config.get(name)) is not int or not 0 < config[name] <= _LIMIT:
            got = config.get(name, "missing")
            problems.append(Problem(f'{where}: "{name}" is {got}; expected an integer from 1 to {_LIMIT}'))
    if problems:
        raise ConfigError(*problems)
    heads, width = config["num_attention_heads"], config["hidden_size"]
    head_dim = config.get("head_dim") or width // heads
    return {
        "family": family,
        **{name: config[name] for name in names[:-1]},
        "num_key_value_heads": config.get("num_key_value_heads") or heads,
        "head_dim": None if head_dim * heads == width else head_dim,
        "attention_bias": bool(config.get("attention_bias")),
        "mlp_bias": bool(config.get("mlp_bias")),
        "rope_theta": float(theta),
        "rope_scaling": _scaling(rope, config),
        "norm_eps": float(config.get("rms_norm_eps", _EPS[family])) if family != "olmo" else 1e-5,
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
        "clip_qkv": config.get("clip_qkv"),
        "embedding_size": config["vocab_size"],
        **_windows(config, family),
        **_routing(config, family),
    }


def _rope(config: dict[str, Any], family: str, where: Path) -> tuple[dict[str, Any], float]:
    """The rotary settings of full-attention layers and their base, from version 4's or 5's keys."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = config.get("rope_theta", _THETA.get(family, 1e4))
    sliding: dict[str, Any] = {}
    if "full_attention" in rope or "sliding_attention" in rope:
        rope, sliding = rope.get("full_attention") or {}, rope.get("sliding_attention") or {}
    rope = {**rope, "rope_type": rope.get("rope_type", rope.get("type", "default"))}
    theta = rope.get("rope_theta", theta)
    for name, value, expected in (
        ("rope_theta", sliding.get("rope_theta", theta), theta),
        ("rope_type", sliding.get("rope_type", "default"), "default"),
    ):
        if value != expected:
            what = f'{where}: "rope_parameters.sliding_attention.{name}" is {value}'
            raise ConfigError(f"{what}; expected {expected}")
    return rope, theta


def _scaling(rope: dict[str, Any], config: dict[str, Any]) -> dict[str, Any] | None:
    if rope["rope_type"] == "default":
        return None
    values: dict[str, Any] = {name: rope[name] for name in _SCALING if rope.get(name) is not None}
    if rope["rope_type"] != "linear":
        values.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
    for name in values:
        if name.endswith(("factor", "fast", "slow")):
            values[name] = float(values[name])
    return dict(vars(RopeScalingConfig(**values)))


def _windows(config: dict[str, Any], family: str) -> dict[str, Any]:
    if family not in ("olmo3", "mistral", "mixtral"):
        return {}
    window = config.get("sliding_window", None if family == "mixtral" else 4096)
    if family != "olmo3":
        return {"sliding_window": window}
    kinds = config.get("layer_types") or [
        "full_attention" if (layer + 1) % 4 == 0 else "sliding_attention"
        for layer in range(config["num_hidden_layers"])
    ]
    return {"sliding_window": window, "layer_types": list(kinds)}


def _routing(config: dict[str, Any], family: str) -> dict[str, Any]:
    if family not in ("olmoe", "mixtral"):
        return {}
    olmoe = family == "olmoe"
    count = config.get("num_experts", config.get("num_local_experts"))
    settings = {
        "num_experts": count or (64 if olmoe else 8),
        "num_experts_per_tok": config.get("num_experts_per_tok", 8 if olmoe else 2),
        "router_aux_loss_coef": float(config.get("router_aux_loss_coef", 0.01 if olmoe else 0.001)),
        "router_z_loss_coef": float(config.get("router_z_loss_coef", 0.001 if olmoe else 0.0)),
        "router_balance": config.get("router_balance", "window"),
    }
    return {**settings, "norm_topk_prob": bool(config.get("norm_topk_prob"))} if olmoe else settings

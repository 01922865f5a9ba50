"""One call from a file name to a checked RunConfig."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .check import check
from .errors import ConfigError, Problem
from .parse import build, read_mapping
from .schema import RunConfig

__all__ = ["FAMILIES", "load_config", "model_settings"]

FAMILIES = {"OlmoForCausalLM": "olmo", "Olmo2ForCausalLM": "olmo2", "LlamaForCausalLM": "llama"}


def load_config(path: Path, overrides: list[str]) -> RunConfig:
    """Read, complete from `init_from` and check a config.

    Raises: ConfigError: with every problem.
    """
    mapping = read_mapping(path, overrides)
    if isinstance(mapping.get("init_from"), str):
        _take_model_from(Path(mapping["init_from"]), mapping, str(path))
    config = build(RunConfig, mapping, str(path))
    check(config, str(path))
    return config


def model_settings(config: dict[str, Any], where: Path) -> dict[str, Any]:
    """The `model` group that a transformers config.json stands for.

    Raises: ConfigError: an architecture or option that this trainer does not have.
    """
    architecture = (config.get("architectures") or ["none"])[0]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    wanted: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("architectures", architecture, tuple(FAMILIES)),
        ("hidden_act", config.get("hidden_act", "silu"), ("silu",)),
        ("rope_type", rope.get("rope_type", rope.get("type", "default")), ("default",)),
        ("attention_bias", bool(config.get("attention_bias")), (False,)),
        ("mlp_bias", bool(config.get("mlp_bias")), (False,)),
    ]
    problems = [
        Problem(f'{where}: "{name}" is {value}; expected {" or ".join(map(str, allowed))}')
        for name, value, allowed in wanted
        if value not in allowed
    ]
    if problems:
        raise ConfigError(*problems)
    heads = config["num_attention_heads"]
    if (config.get("head_dim") or config["hidden_size"] // heads) * heads != config["hidden_size"]:
        raise ConfigError(Problem(f'{where}: "head_dim" is {config["head_dim"]}; expected hidden_size / heads'))
    theta = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    family = FAMILIES[architecture]
    return {
        "family": family,
        **{name: config[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")},
        "num_attention_heads": heads,
        "num_key_value_heads": config.get("num_key_value_heads") or heads,
        "rope_theta": float(theta),
        "norm_eps": 1e-5 if family == "olmo" else float(config.get("rms_norm_eps", 1e-6)),
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
        "clip_qkv": config.get("clip_qkv"),
        "embedding_size": config["vocab_size"],
    }


def _take_model_from(directory: Path, mapping: dict[str, Any], where: str) -> None:
    """Fill `model` from the checkpoint; a setting that is also given must agree with it."""
    path = directory / "config.json"
    if not path.is_file():
        raise ConfigError(
            Problem(f'{where}: "init_from" is {directory}, which has no config.json; expected a checkpoint directory')
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(Problem(f"{path}: file is not JSON; expected a transformers configuration")) from error
    settings = model_settings(config, path)
    given = mapping.get("model") or {}
    if not isinstance(given, dict):
        raise ConfigError(Problem(f'{where}: "model" is {given!r}; expected a group of settings'))
    problems = [
        Problem(f'{where}: "model.{key}" is {given[key]}; expected {value}, as in {path}', "leave it out")
        for key, value in settings.items()
        if given.get(key) is not None and given[key] != value
    ]
    if problems:
        raise ConfigError(*problems)
    mapping["model"] = {**given, **settings}

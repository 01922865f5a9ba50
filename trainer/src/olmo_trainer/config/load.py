"""One call from a file name to a checked RunConfig."""

from pathlib import Path
from typing import Any

from ..formats.checkpoint import inspect_checkpoint
from ..formats.contract import ConfigError, Fields, FormatError, Problem, read_object
from ..settings import SettingError, build, in_file, read_settings
from .check import config_problems
from .published import apply_preset, model_settings
from .schema import RunConfig

__all__ = ["FORMER_DTYPES", "FORMER_NAMES", "build_config", "load_config"]

FORMER_NAMES = {
    "run_directory": "output_dir",
    "data.instance_filter": "data.window_filter",
    "train.precision": "train.dtype",
    "train.recompute": "train.activation_checkpointing",
    "train.recompute_every": "train.activation_checkpointing_every",
}
"""Former name of a setting -> its name. Former names are accepted, and manifests still contain them."""
FORMER_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
"""The same for the values of `train.dtype`."""


def load_config(path: Path, overrides: list[str]) -> RunConfig:
    """Read, complete from `init_from` and check a config."""
    mapping = read_settings(path, overrides, former_names=FORMER_NAMES)
    if isinstance(mapping.get("model"), dict):
        mapping["model"] = apply_preset(mapping["model"], str(path))
    if isinstance(mapping.get("anneal"), str):
        _take_rate_from(Path(mapping["anneal"]).expanduser(), mapping, str(path))
    if isinstance(mapping.get("init_from"), str):
        _take_model_from(Path(mapping["init_from"]).expanduser(), mapping, str(path))
    config = build_config(mapping, str(path))
    with in_file(path):
        if problems := config_problems(config):
            raise SettingError(*problems)
    return config


def build_config(mapping: dict[str, Any], where: str) -> RunConfig:
    """The config of settings under present or former names."""
    train = mapping.get("train")
    for name in ("dtype", "precision"):
        if isinstance(train, dict) and isinstance(train.get(name), str):
            train[name] = FORMER_DTYPES.get(train[name], train[name])
    return build(RunConfig, mapping, where, former_names=FORMER_NAMES)


def _take_rate_from(directory: Path, mapping: dict[str, Any], where: str) -> None:
    """Fill in what `anneal` means."""
    mapping.setdefault("init_from", str(directory))
    mapping.setdefault("init_moments", True)
    mapping.setdefault("schedule", {"kind": "linear", "final_ratio": 0.0})
    optimizer = mapping.setdefault("optimizer", {})
    if not isinstance(optimizer, dict) or "learning_rate" in optimizer:
        return
    path = directory / "training" / "state.json"
    if not path.is_file():
        what = f'{where}: "anneal" is {directory}, which has no training/state.json with its learning rate'
        raise ConfigError(f"{what}; expected a checkpoint of a run", hint="set optimizer.learning_rate")
    optimizer["learning_rate"] = Fields(read_object(path), path).number("learning_rate")


def _take_model_from(directory: Path, mapping: dict[str, Any], where: str) -> None:
    """Fill `model` from the checkpoint; a setting that is also given must agree with it."""
    path = directory / "config.json"
    if not path.is_file():
        raise ConfigError(
            f'{where}: "init_from" is {directory}, which has no config.json; expected a checkpoint directory'
        )
    try:
        config = inspect_checkpoint(directory).config
    except FormatError as error:
        raise ConfigError(str(error), hint=error.hint) from error
    settings = model_settings(config, path)
    given = mapping.get("model") or {}
    if not isinstance(given, dict):
        raise ConfigError(f'{where}: "model" is {given!r}; expected a group of settings')
    problems = [
        Problem(f'{where}: "model.{key}" is {given[key]}; expected {value}, as in {path}', "remove the setting")
        for key, value in settings.items()
        if given.get(key) is not None and _differs(given[key], value)
    ]
    if problems:
        raise ConfigError(*problems)
    mapping["model"] = {**given, **settings}


def _differs(given: Any, value: Any) -> bool:
    """Whether a setting is another; of a group, what is not given agrees."""
    if isinstance(given, dict) and isinstance(value, dict):
        return any(_differs(part, value.get(key)) for key, part in given.items() if part is not None)
    return bool(given != value)

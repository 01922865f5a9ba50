"""What several verbs ask of their arguments."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..config.errors import ConfigError, Problem
from ..config.load import load_config
from ..formats.files import place

if TYPE_CHECKING:
    from ..config.schema import RunConfig
    from ..data.sources import TrainingData

__all__ = ["Verbs", "add_config", "existing", "last_of_run", "new", "place", "read_request"]

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_config(parser: argparse.ArgumentParser) -> None:
    """The YAML file of a run."""
    parser.add_argument("config", type=place, help="YAML file of the run")


def existing(path: Path, what: str) -> Path:
    """The path, which must be there.

    Raises: ConfigError.
    """
    if not path.exists():
        raise ConfigError(Problem(f"{path}: not found; expected {what}"))
    return path


def last_of_run(path: Path) -> Path:
    """The last whole checkpoint of a run's directory; any other path as it is."""
    steps = [folder for folder in path.glob("checkpoints/step-*") if (folder / "manifest.json").is_file()]
    return max(steps, key=lambda folder: int(folder.name.removeprefix("step-")), default=path)


def new(path: Path) -> Path:
    """The path, where nothing must be.

    Raises: ConfigError.
    """
    if any(sign in path.name for sign in "*?"):
        raise ConfigError(Problem(f"{path}: is a pattern; expected the name of one directory"))
    if path.exists():
        raise ConfigError(Problem(f"{path}: is there already; expected a new directory", "remove it or name another"))
    return path


def read_request(arguments: argparse.Namespace) -> tuple[RunConfig, TrainingData, str]:
    """The config and its data, all checked before torch, which takes seconds, is imported."""
    from ..data.sources import open_training_data

    where = str(arguments.config)
    config = load_config(arguments.config, arguments.overrides)
    return config, open_training_data(config, where), where

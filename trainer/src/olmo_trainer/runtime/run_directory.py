"""A run's directory: one process at a time, one config from beginning to end."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..config.errors import ConfigError, Problem
from ..config.parse import as_mapping, read_mapping, written
from ..config.schema import RunConfig
from ..formats.files import write_atomically

__all__ = ["begun_with", "keep_config", "locked"]

# a run may be continued with other values of these: no weight depends on them
_FREE = (
    "run_directory",
    "data.loader.",
    "validation.",
    "checkpoint.",
    "logging.",
    "wandb.",
    "energy.",
    "train.max_skipped_steps",
    "train.stop_at",
    "train.parallel.",
    "stability.max_rewinds",
    "stability.slow_rise_nats",
    "stability.slow_rise_action",
)


@contextmanager
def locked(directory: Path, where: str) -> Iterator[None]:
    """Keep a second process out of the run directory; the lock ends with the process, however it ends.

    Raises: ConfigError: another process has it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    stream: IO[str] = (directory / ".lock").open("w")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f'{where}: "run_directory" is {directory}, in use by another process; expected one process a run'
            raise ConfigError(Problem(message)) from error
        yield


def begun_with(directory: Path) -> dict[str, Any]:
    """The resolved config that a run was begun with; empty for a new one."""
    path = directory / "config.yaml"
    return read_mapping(path, []) if path.is_file() else {}


def keep_config(config: RunConfig, directory: Path, where: str, *, begun: bool) -> None:
    """Write the resolved config; for a run that has begun, check first that it is the one it was begun with.

    Raises: ConfigError: with every setting that differs and that weights depend on.
    """
    if begun and (kept := begun_with(directory)):
        before, after = _flat(kept), _flat(as_mapping(config))
        changed = [
            key for key in sorted({*before, *after}) if not key.startswith(_FREE) and before.get(key) != after.get(key)
        ]
        if changed:
            since = f"with which {directory} was begun"
            raise ConfigError(
                *(
                    Problem(
                        f'{where}: "{key}" is {after.get(key)}; expected {before.get(key)}, {since}',
                        "set run_directory to begin another run",
                    )
                    for key in changed
                )
            )
    write_atomically(directory / "config.yaml", written(config).encode())


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: item for name, part in items for key, item in _flat(part, f"{prefix}{name}.").items()}
    return {prefix[:-1]: value}

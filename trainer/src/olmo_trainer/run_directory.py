"""A run's directory: one process at a time, one config from beginning to end."""

import fcntl
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .config.load import build_config
from .config.schema import RunConfig
from .data.order import BatchSchedule
from .formats.contract import Problem, write_file
from .formats.manifest import read_manifest
from .optim import rate_of_step
from .settings import SettingError, as_mapping, as_yaml, read_settings

__all__ = ["begun_with", "keep_config", "locked"]


# settings that may change when a run is resumed: no weight depends on them
_FREE = (
    "output_dir",
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

# paths of inputs: they may change if the content is the same
_PLACES = re.compile(r"init_from|anneal|data\.tokenizer|data\.sources\.\d+\.(path|label_masks)")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep a second process out of the run directory; the lock ends with the process, however it ends."""
    directory.mkdir(parents=True, exist_ok=True)
    stream: IO[str] = (directory / ".lock").open("w")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f'"output_dir" is {directory}, in use by another process; expected one process per run'
            raise SettingError(message) from error
        yield


def begun_with(directory: Path) -> dict[str, Any]:
    """The resolved config that a run began with; empty for a new run."""
    path = directory / "config.yaml"
    return read_settings(path, []) if path.is_file() else {}


def keep_config(
    config: RunConfig, directory: Path, last: Path | None, inputs: Callable[[Path], list[dict[str, Any]]]
) -> None:
    """Write the resolved config; if the run has a `last` checkpoint, check first that the config still fits it.

    Paths may differ if `inputs`, the manifest's rows as seen from a checkpoint, have the same sha256; the number of
    steps may differ if the completed steps keep their learning rates.
    """
    if last is not None and (kept := begun_with(directory)):
        path = directory / "config.yaml"
        was = build_config(kept, str(path))
        before, after = _flat(as_mapping(was)), _flat(as_mapping(config))
        changed = [
            key for key in sorted({*before, *after}) if not key.startswith(_FREE) and before.get(key) != after.get(key)
        ]
        if any(_PLACES.fullmatch(key) for key in changed) and _contents(inputs(last)) == _contents(
            read_manifest(last).inputs
        ):
            changed = [key for key in changed if not _PLACES.fullmatch(key)]
        done = int(last.name.removeprefix("step-"))
        if changed == ["train.steps"] and _same_rates(was, config, done):
            changed = []
        problems = []
        for key in changed:
            message = f'"{key}" is {after.get(key)}; expected {before.get(key)}, as when {directory} was started'
            problems.append(Problem(message, _hint(key, last, config)))
        if problems:
            raise SettingError(*problems)
    write_file(directory / "config.yaml", as_yaml(config).encode())


def _hint(key: str, last: Path, config: RunConfig) -> str:
    if key == "train.steps":
        kind = config.schedule.kind
        begin = f"set another output_dir, init_from={last} and init_moments=true"
        return f"it changes the {kind} schedule of the completed steps; to train on from here, {begin}"
    return "set output_dir to start another run"


def _contents(inputs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Role and sha256 of everything a run trains on, without paths."""
    rows = ((str(row["role"]), row.get("manifest_sha256") or row["sha256"]) for row in inputs)
    return sorted(row for row in rows if row[0] != "validation")


def _same_rates(before: RunConfig, after: RunConfig, done: int) -> bool:
    """Whether the completed steps have the same learning rates under both configs."""
    if after.train.steps is None or after.train.steps < done:
        return False
    plans = [BatchSchedule(config.train, config.data.sequence_length) for config in (before, after)]
    return all(
        rate_of_step(step, before, plans[0]) == rate_of_step(step, after, plans[1]) for step in range(1, done + 1)
    )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: item for name, part in items for key, item in _flat(part, f"{prefix}{name}.").items()}
    return {prefix[:-1]: value}

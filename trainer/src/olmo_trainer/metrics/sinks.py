"""Copies of metrics.jsonl for those who look elsewhere: Weights & Biases, TensorBoard. The file is the truth."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

from ..config.errors import ConfigError, Problem
from ..config.schema import RunConfig, WandbConfig

__all__ = ["Copies", "open_copies"]


class Sink(Protocol):
    """A place for rows."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add the row of a step."""

    def close(self) -> None:
        """Finish."""


class Copies:
    """All these places. Where a run may go back, rows wait for the checkpoint that makes them final.

    Neither place can take a row back: a step that is done again would be there twice, or as it was not to be. What a
    failed run had not saved is in metrics.jsonl alone.
    """

    def __init__(self, sinks: list[Sink], *, waits: bool) -> None:
        self._sinks, self._waits = sinks, waits
        self._rows: list[tuple[int, dict[str, float]]] = []

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add the row of a step."""
        if self._sinks:
            self._rows.append((step, values))
        if not self._waits:
            self.settle()

    def settle(self) -> None:
        """The rows so far are final."""
        rows, self._rows = self._rows, []
        for step, values in rows:
            for sink in self._sinks:
                sink.write(step, values)

    def drop(self, last_step: int) -> None:
        """Forget the rows after a step, which is gone back to."""
        self._rows = [row for row in self._rows if row[0] <= last_step]

    def close(self) -> None:
        """Finish."""
        for sink in self._sinks:
            sink.close()


def open_copies(config: RunConfig, artifact: dict[str, Any], done_steps: int, *, writes: bool) -> Copies:
    """The places that a config names, to go on after `done_steps`; `artifact` are the settings a run never changes.

    Raises: ConfigError: one is asked for and its package is not installed.
    """
    directory = Path(config.run_directory)
    sinks: list[Sink] = []
    if config.wandb.enabled and writes:
        named = json.dumps([artifact, directory.name], sort_keys=True)
        sinks.append(_Wandb(config.wandb, directory, hashlib.sha256(named.encode()).hexdigest()[:16], artifact))
    if config.logging.tensorboard and writes:
        sinks.append(_TensorBoard(directory / "tensorboard", done_steps))
    return Copies(sinks, waits=config.stability.rewind_after is not None)


def _missing(setting: str, extra: str) -> ConfigError:
    message = f'"{setting}" is true and {extra} is not installed; expected the extra'
    return ConfigError(Problem(message, f"pip install 'olmo-trainer[{extra}]'"))


class _Wandb:
    """Weights & Biases, offline unless asked otherwise. A run that is continued keeps its id, and so its curves.

    Online, steps that are done again after a kill are the same and ignored; `wandb sync --append` joins offline parts.
    """

    def __init__(self, settings: WandbConfig, directory: Path, identity: str, config: dict[str, Any]) -> None:
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise _missing("wandb.enabled", "wandb") from error
        self._run = wandb.init(
            project=settings.project,
            name=settings.name,
            mode=settings.mode,
            id=identity,
            resume="allow",
            dir=str(directory),
            config=config,
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


class _TensorBoard:
    """Event files; what an earlier start of the run wrote after `done_steps` is left out by TensorBoard."""

    def __init__(self, directory: Path, done_steps: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise _missing("logging.tensorboard", "tensorboard") from error
        self._writer: Any = SummaryWriter(str(directory), purge_step=done_steps + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()

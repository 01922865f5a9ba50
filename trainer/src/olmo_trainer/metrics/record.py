"""Where a run's numbers go: metrics.jsonl (one row per step, each step once), copies of it, and the console."""

import hashlib
import json
import logging
import math
import os
import time
from pathlib import Path
from typing import IO, Any

from ..config.schema import RunConfig, WandbConfig
from ..formats.contract import ConfigError, FormatError, decode, mismatch, write_file

__all__ = ["Console", "MetricsFile", "RunLog", "clock", "scaled", "whole_rows"]

log = logging.getLogger(__name__)


# ---- metrics.jsonl


class MetricsFile:
    """Rows `{"step", "time_s", name: value, …}`; `time_s` is the run time over all restarts.

    Opened at a resumed step, it drops the rows after that step, which will be written again, and a last line that a
    kill cut short. With `writes=False`, on all ranks but the first, it only knows the last row.
    Raises: FormatError: `not_json`.
    """

    def __init__(self, path: Path, resumed_step: int | None, *, writes: bool = True) -> None:
        self._path, self._writes = path, writes
        self._stream: IO[str] | None = None
        self.reached: dict[str, Any] = (whole_rows(path) or [{}])[-1]
        """The last row ever written, also if it was dropped: its time and energy were spent."""
        if resumed_step and not self.reached and writes:
            log.warning("%s: has no row of the %d steps before; their time and energy are lost", path, resumed_step)
        self.cut(-1 if resumed_step is None else resumed_step)
        self._begun = time.monotonic() - float(self.last.get("time_s", 0.0))

    def cut(self, last_step: int) -> None:
        """Drop the rows after a step, which will be written again; the clock keeps running."""
        MetricsFile.close(self)
        rows = [row for row in whole_rows(self._path) if row["step"] <= last_step]
        self.last: dict[str, Any] = rows[-1] if rows else {}
        if not self._writes:
            return
        write_file(self._path, "".join(_line(row) for row in rows).encode())
        self._stream = self._path.open("a", encoding="utf-8")

    @property
    def time_s(self) -> float:
        """Run time in seconds, over all restarts."""
        return time.monotonic() - self._begun

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append the row of a step; a value that is not finite becomes null."""
        if self._stream is None:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._stream.write(_line({"step": step, "time_s": round(self.time_s, 3), **finite}))
        self._stream.flush()

    def sync(self) -> None:
        """Flush all rows to the disk, before a checkpoint promises that they exist."""
        if self._stream is not None:
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Flush and close."""
        if self._stream is not None:
            self.sync()
            self._stream.close()


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, without a last one that is incomplete; empty without a file.

    Raises: FormatError: `not_json`: a line is damaged.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True) if path.is_file() else (), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            row = decode(line, path)  # refuses NaN and infinity, for which a row has null
        except FormatError:
            row = None
        if not _is_row(row):
            hint = "remove the line: the row of its step is lost"
            raise mismatch("not_json", path, "damaged", "the row of a step", line=number, hint=hint)
        rows.append(row)
    return rows


def _is_row(row: Any) -> bool:
    is_numbers = isinstance(row, dict) and all(isinstance(value, int | float | None) for value in row.values())
    return is_numbers and isinstance(row.get("step"), int)


# ---- copies


def _missing(setting: str, extra: str) -> ConfigError:
    message = f'"{setting}" is true, but {extra} is not installed; expected the extra'
    return ConfigError(message, hint=f"pip install 'olmo-trainer[{extra}]'")


class _Wandb:
    """Weights & Biases, offline unless asked otherwise. A resumed run keeps its id, and so its curves.

    Online, steps repeated after a kill are equal and ignored; `wandb sync --append` joins offline parts.
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
    """Event files; TensorBoard ignores what an earlier start of the run wrote after `done_steps`."""

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


# ---- all of them


class RunLog(MetricsFile):
    """The rows of a run: in metrics.jsonl, and copies in Weights & Biases and TensorBoard.

    The copies cannot take a row back. If the run may go back, rows therefore wait for the checkpoint that makes them
    final; what a failed run had not saved is only in metrics.jsonl. `artifact` are the settings that never change.
    """

    def __init__(self, config: RunConfig, resumed_step: int | None, artifact: dict[str, Any], *, writes: bool) -> None:
        directory = Path(config.output_dir)
        super().__init__(directory / "metrics.jsonl", resumed_step, writes=writes)
        self._waits = config.stability.rewind_after is not None
        self._rows: list[tuple[int, dict[str, float]]] = []
        self._copies: list[_Wandb | _TensorBoard] = []
        if config.wandb.enabled and writes:
            named = json.dumps([artifact, directory.name], sort_keys=True)
            identity = hashlib.sha256(named.encode()).hexdigest()[:16]
            self._copies.append(_Wandb(config.wandb, directory, identity, artifact))
        if config.logging.tensorboard and writes:
            self._copies.append(_TensorBoard(directory / "tensorboard", resumed_step or 0))

    def write(self, step: int, values: dict[str, float]) -> None:
        super().write(step, values)
        if self._copies:
            self._rows.append((step, values))
        if not self._waits:
            self._copy()

    def flush(self) -> None:
        """Make all rows final: before a checkpoint promises that they exist."""
        self.sync()
        self._copy()

    def drop_after(self, last_step: int) -> None:
        """Drop the rows after a step that the run goes back to."""
        self.cut(last_step)
        self._rows = [row for row in self._rows if row[0] <= last_step]

    def close(self) -> None:
        super().close()
        for copy in self._copies:
            copy.close()

    def _copy(self) -> None:
        rows, self._rows = self._rows, []
        for step, values in rows:
            for copy in self._copies:
                copy.write(step, values)


# ---- console


def scaled(value: float) -> str:
    """A number with three digits and an SI prefix."""
    for limit, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g} "


def clock(seconds: float) -> str:
    """Seconds as `12:34` or `1:12:34`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


class Console:
    """Logs how far a run of `steps` steps is."""

    def __init__(self, steps: int, first_step: int, every_s: float) -> None:
        self.steps, self.first_step, self.every_s = steps, first_step, every_s
        self._begun = self._next = time.monotonic()
        self._seen = ""

    def step(self, step: int, values: dict[str, float] | None = None) -> None:
        """Log a line if one is due; without `values`, with those of the last row.

        The time left follows from the pace since this start, validation included.
        """
        now = time.monotonic()
        is_due = now >= self._next or step == self.steps
        if values is not None:
            bpb = f"  bpb {values['eval/bpb']:.3f}" if "eval/bpb" in values else ""
            numbers = "  loss {:.4f}%s  lr {:.2e}  grad {:.2f}  {}tok/s".format(
                values["train/CrossEntropyLoss"],
                values["optim/learning_rate_group0"],
                values["optim/total_grad_norm"],
                scaled(values["throughput/device/tokens_per_second"]),
            )
            shown, self._seen = numbers % bpb, numbers % "" + f" at step {step}"
        else:
            shown = self._seen
        if is_due:
            self._next = now + self.every_s
            left = (now - self._begun) / max(1, step - self.first_step) * (self.steps - step)
            log.info("train  step %d/%d%s  eta %s", step, self.steps, shown, clock(left))

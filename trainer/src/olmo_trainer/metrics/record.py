"""metrics.jsonl: one row a step, each step once, whatever the run went through."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from pathlib import Path
from typing import IO, Any

from ..formats.fields import mismatch
from ..formats.files import write_atomically

__all__ = ["MetricsFile", "whole_rows"]

log = logging.getLogger(__name__)


class MetricsFile:
    """Rows `{"step", "time_s", name: value, …}`; `time_s` counts the time the run was up, over all its restarts.

    Opened at a resumed step, it drops the rows after that step, which will be written again, and a last line that a
    kill cut short. One that does not write, on other ranks than the first, knows the last row alone.
    Raises: FormatError: `not_json`.
    """

    def __init__(self, path: Path, resumed_step: int | None, *, writes: bool = True) -> None:
        self._path, self._writes = path, writes
        self._stream: IO[str] | None = None
        self.reached: dict[str, Any] = (whole_rows(path) or [{}])[-1]
        """The last row that was ever written, dropped ones included: what was spent was spent."""
        if resumed_step and not self.reached and writes:
            log.warning("%s: holds no row of the %d steps before; their time and energy are lost", path, resumed_step)
        self.cut(-1 if resumed_step is None else resumed_step)
        self._begun = time.monotonic() - float(self.last.get("time_s", 0.0))

    def cut(self, last_step: int) -> None:
        """Drop the rows after a step, which will be written again; the clock goes on."""
        self.close()
        rows = [row for row in whole_rows(self._path) if row["step"] <= last_step]
        self.last: dict[str, Any] = rows[-1] if rows else {}
        if not self._writes:
            return
        write_atomically(self._path, "".join(_line(row) for row in rows).encode())
        self._stream = self._path.open("a", encoding="utf-8")

    @property
    def time_s(self) -> float:
        """Seconds that the run has been up."""
        return time.monotonic() - self._begun

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append the row of a step; a value that is not finite becomes null."""
        if self._stream is None:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._stream.write(_line({"step": step, "time_s": round(self.time_s, 3), **finite}))
        self._stream.flush()

    def sync(self) -> None:
        """Have the disk hold all rows: before a checkpoint promises that they are there."""
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
    """The rows of a metrics.jsonl up to one that is still being written or that a kill cut short; none without a file.

    Raises: FormatError: `not_json`: a line is damaged.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True) if path.is_file() else (), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            row = json.loads(line, parse_constant=_refuse)
        except ValueError:
            row = None
        if not _is_row(row):
            hint = "remove the line: the row of its step is lost"
            raise mismatch(path, "not_json", "damaged", "the row of a step", line=number, hint=hint)
        rows.append(row)
    return rows


def _refuse(name: str) -> float:
    raise ValueError(name)  # a row has null in place of NaN and infinity


def _is_row(row: Any) -> bool:
    is_numbers = isinstance(row, dict) and all(isinstance(value, int | float | None) for value in row.values())
    return is_numbers and isinstance(row.get("step"), int)

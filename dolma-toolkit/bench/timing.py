"""Time one command: wall time, CPU time and peak memory of it and its children."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cost", "run"]


@dataclass(frozen=True)
class Cost:
    """The cost of a command."""

    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    output: str = ""
    too_short: bool = False
    """start-up was more than half of it, so the rest means nothing"""

    def better(self, other: Cost) -> Cost:
        """The one with less CPU time, which other work on the machine affects least."""
        return self if self.cpu_s <= other.cpu_s else other

    def less(self, start: Cost) -> Cost:
        """Without what the same command takes on one document."""
        wall, cpu = self.wall_s - start.wall_s, self.cpu_s - start.cpu_s
        too_short = cpu < self.cpu_s / 2
        return Cost(max(wall, 1e-3), max(cpu, 1e-3), self.peak_rss_mb, self.output, too_short)


def run(command: list[str], folder: Path) -> Cost:
    """Run `command` in `folder`.

    Raises SystemExit: when it fails.
    """
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode != 0:
        raise SystemExit(f"error: {' '.join(command)} ended with {process.returncode}\n{text[-3000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)

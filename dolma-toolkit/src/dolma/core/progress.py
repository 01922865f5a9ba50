"""Progress of a long command: a line every ten seconds, one at the end, and rows of ``metrics.ndjson``."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dolma.files.paths import side_file

__all__ = ["Reporter", "bytes_text", "count_text", "duration_text"]

log = logging.getLogger(__name__)


class Reporter:
    """Called by the core with its counters; ``finish`` writes the summary.

    ``directories`` get ``.dolma/metrics.ndjson``, with a row per report. Later runs append to it.
    """

    def __init__(self, command: str, directories: Iterable[Path]) -> None:
        self.command = command
        self.directories = list(directories)

    def __call__(
        self, documents: int, bytes_done: int, files: int, total_files: int, total_bytes: int, seconds: float
    ) -> None:
        """Logs one line and appends one row; the bytes are of stored input, or of text."""
        rate = documents / seconds if seconds > 0 else 0.0
        remaining_s = (total_bytes - bytes_done) * seconds / bytes_done if bytes_done else None
        parts = [
            f"{self.command}  {files}/{total_files} files",
            f"{count_text(documents)} documents",
            f"{count_text(rate)} documents/s",
            f"{bytes_text(bytes_done)} of {bytes_text(total_bytes)}",
        ]
        if remaining_s is not None:
            parts.append(f"eta {duration_text(remaining_s)}")
        log.info("  ".join(parts))
        self._append({"time_s": round(seconds, 3), "documents": documents, "bytes": bytes_done, "files": files})

    def finish(self, seconds: float, counts: Mapping[str, Any], text: str) -> None:
        """Logs the summary and appends a last row with ``done: true``."""
        log.info("%s  %s  in %s", self.command, text, duration_text(seconds))
        self._append({"time_s": round(seconds, 3), **counts, "done": True})

    def _append(self, row: Mapping[str, Any]) -> None:
        line = json.dumps({"command": self.command, **row}, ensure_ascii=False) + "\n"
        for directory in self.directories:
            if directory.is_dir():
                path = side_file(directory, "metrics.ndjson")
                path.parent.mkdir(exist_ok=True)
                with path.open("a", encoding="utf-8") as file:
                    file.write(line)


def count_text(count: float) -> str:
    """``950``, ``12.3 k``, ``4.56 M``."""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}"
    return f"{count:.0f}"


def bytes_text(count: float) -> str:
    """``950 B``, ``12.3 kB``, ``4.56 GB``."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}"
    return f"{count:.0f} B"


def duration_text(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``04:10``, ``2:04:10``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"

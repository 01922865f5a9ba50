"""What a run reports and leaves in ``.dolma`` next to its results: progress and metrics, settings, bad rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dolma.config import to_yaml
from dolma.errors import FormatError, ProblemsError, dolma_errors
from dolma.files.paths import named, side_file

__all__ = ["Reporter", "bytes_text", "count_text", "duration_text", "error_log", "save_config", "save_skipped"]

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
    for limit, unit in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
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


def save_config(config: Any, directories: Iterable[Path]) -> None:
    """Saves the resolved settings as ``.dolma/config.yaml``, next to the results."""
    text = to_yaml(config)
    for directory in directories:
        path = side_file(directory, "config.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def save_skipped(command: str, directory: Path, rows: Sequence[tuple[str, int, str, str]]) -> None:
    """Writes the skipped rows to ``.dolma/skipped.ndjson`` and logs their number. Removes an older list."""
    path = side_file(directory, "skipped.ndjson")
    if not rows:
        path.unlink(missing_ok=True)
        return
    names = ("path", "line", "code", "message")
    lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    log.warning(
        f"{command}  {len(rows)} rows could not be read and were skipped; they are listed in {named(str(path))}"
    )


@contextmanager
def error_log(directory: Path) -> Iterator[None]:
    """Writes the bad rows to ``.dolma/errors.ndjson`` in ``directory``. Removes an older list."""
    path = side_file(directory, "errors.ndjson")
    try:
        with dolma_errors():
            yield
    except (FormatError, ProblemsError) as error:
        errors = error.errors if isinstance(error, ProblemsError) else (error,)
        rows = [
            {"code": one.code, "path": one.path, "line": one.line, "field": one.field, "message": one.message}
            for one in errors
            if isinstance(one, FormatError)
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        log.error(f"{len(errors)} error{'s' * (len(errors) > 1)}; those of rows are listed in {named(str(path))}")
        raise
    path.unlink(missing_ok=True)
    with suppress(OSError):  # it has other files, or there never was an error
        path.parent.rmdir()

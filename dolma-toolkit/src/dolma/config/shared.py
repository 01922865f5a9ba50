"""Settings that several commands have, and what every command does with its own."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dolma import _native
from dolma.config import setting, to_yaml
from dolma.errors import FormatError, Problem, ProblemsError, errors_of_native
from dolma.files.mirror import named
from dolma.files.paths import side_file

__all__ = [
    "GENERATE_IDS",
    "SKIP_BAD_ROWS",
    "Compression",
    "WorkDir",
    "at_least",
    "error_log",
    "save_config",
    "save_skipped",
    "shown_and_done",
]

log = logging.getLogger(__name__)

GENERATE_IDS = "give each row without an id one: its path below `documents`, a colon and its line number"
SKIP_BAD_ROWS = "how many bad rows to skip, over all files; one more ends the run"
"""Help of two settings that `tag`, `dedupe` and `mix` share."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkDir:
    """Where intermediate files go."""

    input: str | None = setting(None, "directory for copies of remote files (default: work_dir.output)")
    output: str | None = setting(None, "directory for unfinished results (default: beside the results)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compression:
    """How files are packed, where their names do not tell."""

    input: str | None = setting(None, "packing of the inputs: gz, zst, bz2, xz or none (default: by extension)")
    output: str | None = setting(None, "packing of the outputs: gz, zst, bz2, xz or none (default: by extension)")

    def check(self, prefix: str = "compression") -> Iterator[Problem]:
        """Problems of the two names."""
        for name in ("input", "output"):
            value = getattr(self, name)
            if value not in (None, "", "gz", "zst", "zstd", "bz2", "xz"):
                yield Problem(f"{prefix}.{name}", f'is "{value}"; expected gz, zst, bz2, xz or an empty string')


def at_least(least: int, **values: int | None) -> Iterator[Problem]:
    """A problem for each value below ``least``; None passes."""
    for key, value in values.items():
        if value is not None and value < least:
            yield Problem(key, f"is {value}; expected at least {least}")


def shown_and_done(config: Any) -> bool:
    """With ``dryrun`` prints the resolved settings to stdout, and says so."""
    if config.dryrun:
        sys.stdout.write(to_yaml(config))
    return bool(config.dryrun)


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
        try:
            yield
        except _native.NativeError as error:
            raise errors_of_native(error) from None
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

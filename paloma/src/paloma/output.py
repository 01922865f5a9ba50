"""What every command writes: an artifact directory that is complete or absent, and tables in Markdown and CSV."""

import contextlib
import csv
import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paloma import WRITER
from paloma.formats.contract import ConfigError, write_file
from paloma.formats.manifest import MANIFEST, write_manifest

__all__ = ["csv_table", "format_number", "markdown_table", "staged", "write_artifact"]


@contextlib.contextmanager
def staged(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """A directory to fill next to `output`, renamed to `output` when the block ends without an error.

    Raises:
        ConfigError: when `output` is not empty and `overwrite` is false, or `output` is not an artifact.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output-dir: {output} is a file; expected a directory", hint="choose another --output-dir")
    if output.is_dir() and any(output.iterdir()):
        problem = f"--output-dir: {output} is not empty; expected a new directory"
        if not overwrite:
            raise ConfigError(problem, hint="use --overwrite, or choose another --output-dir")
        if not (output / MANIFEST).is_file():
            raise ConfigError(f"{problem} or an artifact", hint="choose another one; only artifacts are replaced")
    staging = output.with_name(f".{output.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        if output.is_dir():
            shutil.rmtree(output)
        staging.rename(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_artifact(output: Path, contents: Mapping[str, bytes], *, overwrite: bool, **manifest: Any) -> None:
    """Write files by name, and a manifest with the given fields (`format`, `config`, `counts`, `details`, `inputs`).

    Raises:
        ConfigError: as `staged`.
    """
    with staged(output, overwrite=overwrite) as staging:
        for name, content in contents.items():
            write_file(staging / name, content)
        write_manifest(staging, files=[staging / name for name in contents], writer=WRITER, **manifest)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned table; the first column to the left, the others to the right."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in [head, *rows]]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(head))]
    lines = []
    for row in cells:
        first, *others = row
        padded = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("| " + " | ".join(padded) + " |")
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join(lines)


def csv_table(rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows with the columns of the first one; numbers in full, unknown values empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def format_number(value: float | None) -> str:
    """Three decimals, none from a thousand on; a dash for an unknown value."""
    if value is None:
        return "–"
    return f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"

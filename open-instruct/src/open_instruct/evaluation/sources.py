"""The files of a benchmark in the data directory, and their rows: JSON Lines, JSON or CSV, compressed or not."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..formats.contract import ConfigError, Fields, FormatError, read_lines, read_rows

__all__ = ["find_files", "read_records", "read_table", "read_text", "stem"]

_COMPRESSED = ("", ".gz", ".zst", ".bz2", ".xz")


def stem(path: Path) -> str:
    """The name of a file without its extensions: `dev` of `dev.jsonl.gz`."""
    return path.name.partition(".")[0]


def find_files(directory: Path, patterns: Sequence[str], wanted: str, *, optional: bool = False) -> list[Path]:
    """The files that match the first of the patterns that any file matches, sorted; any compression is accepted.

    Raises:
        ConfigError: there is none, and they are not `optional`; `wanted` says what is missing.
    """
    for pattern in patterns:
        found = {path for end in _COMPRESSED for path in directory.glob(pattern + end) if path.is_file()}
        if found:
            return sorted(found)
    if optional:
        return []
    raise ConfigError(
        f"data: {directory} has no {' or '.join(patterns)}; expected {wanted}",
        hint="docs/guide/evaluate-chat.md lists the files of each benchmark",
    )


def read_records(path: Path) -> Iterator[Fields]:
    """The rows of JSON Lines or CSV with a header. Raises FormatError at `path:line`."""
    if ".csv" in path.suffixes:
        rows = read_table(path)
        _, header = next(rows, (1, []))
        for line, row in rows:
            if len(row) != len(header):
                raise FormatError(
                    "invalid_value", path, f"the row has {len(row)} fields; expected {len(header)}", line=line
                )
            yield Fields(dict(zip(header, row, strict=True)), path, line)
        return
    for line, value in read_rows(path):
        yield Fields(value, path, line)


def read_table(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of CSV, each with its last line. Raises FormatError."""
    reader = csv.reader(io.StringIO(read_text(path).removeprefix("\ufeff"), newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        message = f"is not CSV ({error}); expected fields in double quotes"
        raise FormatError("invalid_value", path, message, line=reader.line_num) from error


def read_text(path: Path) -> str:
    """The text of a file, through its decompressor. Raises FormatError."""
    lines = []
    for line, raw in read_lines(path):
        try:
            lines.append(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            message = f"is not UTF-8 (byte {error.start + 1} of the line); expected UTF-8"
            raise FormatError("invalid_value", path, message, line=line) from error
    return "\n".join(lines)

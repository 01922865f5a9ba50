"""Files of rows and the lines in them, as the core reads them: compressed or not, JSON lines or Parquet."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = [
    "artifact_files",
    "attributes_name",
    "documents_name",
    "holds_rows",
    "lines",
    "open_text",
    "parse_object",
    "sha256_of",
]

_COMPRESSIONS = (".gz", ".zst", ".zstd", ".bz2", ".xz")
_UNREAD_COMPRESSIONS = (".br", ".lz4", ".zip", ".7z", ".rar", ".Z", ".snappy")
"""Files with these extensions count as rows too, so that they are an error and never silently skipped."""


def sha256_of(path: Path) -> str:
    """Hexadecimal digits of the file's hash."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def holds_rows(name: str) -> bool:
    """Whether a file name is one of rows: ``.json`` or ``.jsonl``, then perhaps a compression; or ``.parquet``."""
    for suffix in (*_COMPRESSIONS, *_UNREAD_COMPRESSIONS):
        if name.endswith(suffix):
            name = name.removesuffix(suffix)
            break
    return name.endswith((".json", ".jsonl", ".parquet"))


def attributes_name(documents: str) -> str:
    """The attribute file of a document file, by their paths below their directories."""
    return f"{documents}.jsonl.gz" if documents.endswith(".parquet") else documents


def documents_name(attributes: str) -> str:
    """The other way round."""
    return attributes.removesuffix(".jsonl.gz") if attributes.endswith(".parquet.jsonl.gz") else attributes


def artifact_files(path: Path, format: str, fits: Callable[[str], bool] = holds_rows) -> tuple[Path, list[str]]:
    """The root and, sorted, the paths below it of the files whose names fit: those in the manifest, or all."""
    from dolma.formats.manifest import find_manifest

    if path.is_file():
        return path.parent, [path.name]
    if manifest := find_manifest(path, format):
        return path, sorted(row["path"] for row in manifest.files if fits(row["path"]))
    found = []
    for file in path.rglob("*"):
        relative = file.relative_to(path)
        hidden = any(part.startswith(".") for part in relative.parts)
        if file.is_file() and not hidden and file.name != "manifest.json" and fits(file.name):
            found.append(relative.as_posix())
    return path, sorted(found)


# The imports below are in functions: every command names files by this module, and has to start quickly.


def lines(path: Path, fields: list[str] | None = None) -> Iterator[tuple[int, bytes]]:
    """Line numbers, from 1, and lines without line ends. A row of Parquet is a line, with only the columns ``fields``.

    The core reads them, so that every command accepts the same files.

    Raises:
        FormatError: ``truncated``, or ``invalid_value`` if the file is not packed as its name says.
    """
    from dolma import _native
    from dolma.errors import FormatError, errors_of_native
    from dolma.formats import contract

    try:
        yield from enumerate(_native.Lines(str(path), fields), start=1)
    except _native.NativeError as native:
        error = errors_of_native(native)
        if isinstance(error, FormatError):
            error = contract.FormatError(error.code, error.path, error.message, line=error.line, field=error.field)
        raise error from None


def open_text(path: Path) -> io.StringIO:
    """The whole unpacked file as UTF-8 text with its line ends; for small tables.

    Raises:
        FormatError: as ``lines``; ``invalid_value`` for bytes that are not UTF-8.
    """
    from dolma.formats.contract import FormatError

    data = b"\n".join(line for _, line in lines(path))
    try:
        return io.StringIO(data.decode("utf-8"), newline="")
    except UnicodeDecodeError as error:
        raise FormatError("invalid_value", path, f"the file is not UTF-8 ({error})") from None


def parse_object(data: bytes, path: Path | str, line: int) -> dict[str, Any]:
    """A JSON object; what is wrong with other lines is said as the core says it.

    Raises:
        FormatError: ``not_json``, ``not_object``.
    """
    import msgspec

    from dolma import _native
    from dolma.formats.contract import FormatError, type_name

    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = _native.why_not_json(data) or f"the line is not JSON ({error}); expected an object"
        if not data.strip():
            reason = "the line is blank; expected a JSON object"
        raise FormatError("not_json", path, reason, line=line) from None
    if not isinstance(value, dict):
        raise FormatError("not_object", path, f"the line is {type_name(value)}; expected a JSON object", line=line)
    return value

"""Rows of documents: docs/formats/document.md, version 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dolma.errors import FormatError
from dolma.formats import manifest
from dolma.formats.fields import Fields
from dolma.formats.files import artifact_files, holds_rows, lines, parse_object

__all__ = ["files", "parse", "read"]

Row = dict[str, Any]


def parse(data: bytes, path: str, line: int) -> Row:
    """One line as a row with defaults filled in, as *Dump* says.

    Raises:
        FormatError: at the first field that breaks the format.
    """
    fields = Fields(parse_object(data, path, line), path, line)
    id, text = fields.string("id"), fields.string("text")
    if not id:
        raise fields.error("id", "invalid_value", "is empty; expected a name unique within its source")
    row: Row = {"id": id, "text": text}
    for name in ("source", "added", "created"):
        row[name] = fields.optional_string(name) or ""
    row["version"] = fields.optional_string("version")
    metadata = _metadata(fields)
    metadata.optional_string("subdomain")
    subdomain = fields.optional_string("subdomain")
    row["metadata"] = metadata.value if subdomain is None else metadata.value | {"subdomain": subdomain}
    row["attributes"] = fields.optional_object("attributes").value
    return row


def _metadata(fields: Fields) -> Fields:
    """The metadata object, which may be given as JSON text."""
    value = fields.value.get("metadata")
    if isinstance(value, str):
        try:
            value = parse_object(value.encode(), fields.path, fields.line)
        except FormatError:
            raise fields.wrong_type("metadata", value, "an object, or one as JSON text") from None
        fields = Fields({"metadata": value}, fields.path, fields.line)
    return fields.optional_object("metadata")


def files(path: Path) -> tuple[manifest.Manifest | None, Path, list[str]]:
    """The manifest, the root and the files of an artifact."""
    found = manifest.read_optional(path, "document")
    return found, *artifact_files(path, found.paths if found else None, holds_rows)


def read(path: Path, errors: list[FormatError]) -> Iterator[tuple[Row, dict[str, int]]]:
    """Every good row and what it adds to the counts; what is wrong is appended to ``errors``."""
    found, root, names = files(path)
    if found:
        errors.extend(manifest.check_files(found))
        if errors:
            return
    counts = {"documents": 0, "text_bytes": 0}
    for name in names:
        try:
            for line, data in lines(root / name):
                try:
                    row = parse(data, str(root / name), line)
                except FormatError as error:
                    errors.append(error)
                    continue
                added = {"documents": 1, "text_bytes": len(row["text"].encode())}
                counts = {key: counts[key] + added[key] for key in counts}
                yield row, added
        except FormatError as error:  # the file itself is damaged
            errors.append(error)
    if found and not errors:
        errors.extend(manifest.check_counts(found, counts))

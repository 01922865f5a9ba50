"""Rows of documents: docs/formats/document.md, version 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dolma.formats.contract import Fields, FormatError, Reader
from dolma.formats.files import artifact_files, lines, parse_object

__all__ = ["READERS", "dump", "parse"]

Row = dict[str, Any]


def parse(data: bytes, path: Path, line: int) -> Row:
    """One line as a row with defaults filled in, as *Dump* says.

    Raises:
        FormatError: at the first field that breaks the format.
    """
    fields = Fields(parse_object(data, path, line), path, line)
    row: Row = {"id": fields.string("id", not_empty=True), "text": fields.string("text")}
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
            value = parse_object(value.encode(), fields.path, fields.line or 0)
        except FormatError:
            raise fields.wrong_type("metadata", "an object, or one as JSON text") from None
        fields = Fields({"metadata": value}, fields.path, fields.line)
    return fields.optional_object("metadata")


def dump(path: Path) -> Iterator[Row | FormatError]:
    """Yields every document as a row, or the error of an invalid one."""
    root, names = artifact_files(path, "document")
    for name in names:
        try:
            for line, data in lines(root / name):
                try:
                    yield parse(data, root / name, line)
                except FormatError as error:
                    yield error
        except FormatError as error:  # the file itself is damaged
            yield error


READERS = {"document": Reader(dump, ("documents", "text_bytes"), lambda row: (1, len(row["text"].encode())))}

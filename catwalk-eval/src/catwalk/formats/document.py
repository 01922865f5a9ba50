"""docs/formats/document.md, version 1: text with an id, a source and a subdomain."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catwalk.formats.fields import Record
from catwalk.formats.json_lines import read_rows, row_files
from catwalk.formats.manifest import MANIFEST, check_files, read_manifest

__all__ = ["Document", "document_files", "document_root", "dump", "read_documents", "validate"]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A row; `subdomain` is `metadata["subdomain"]` or empty."""

    id: str
    text: str
    source: str
    added: str
    created: str
    version: str | None
    metadata: dict[str, Any]
    attributes: dict[str, Any]

    @property
    def subdomain(self) -> str:
        """The domain within the source."""
        return str(self.metadata.get("subdomain") or "")


def document_root(path: Path) -> Path:
    """The directory that the manifest of documents would stand in: `path`, or its folder `documents`."""
    return path / "documents" if not (path / MANIFEST).is_file() and (path / "documents").is_dir() else path


def document_files(path: Path) -> list[Path]:
    """The row files of a document directory (the manifest's, when there is one) or the file itself, in sorted order.

    Raises:
        FormatError: as `row_files`, and the manifest's errors.
    """
    if not path.is_dir():
        return row_files(path)
    path = document_root(path)
    if not (path / MANIFEST).is_file():
        return row_files(path)
    manifest = read_manifest(path, "document")
    check_files(path, manifest, hashes=False)
    return row_files(path, [entry["path"] for entry in manifest["files"]])


def read_documents(path: Path) -> Iterator[Document]:
    """The rows of one file.

    Raises:
        FormatError: with `path:line` and the field.
    """
    for line, value in read_rows(path):
        yield _document(Record(value=value, path=path, line=line))


def _document(record: Record) -> Document:
    identifier = record.text("id", empty=False)
    text = record.text("text")
    given = _metadata(record)
    metadata = dict(given.value)
    if record.value.get("subdomain") is not None:
        metadata["subdomain"] = record.text("subdomain")
    elif metadata.get("subdomain") is not None:
        given.text("subdomain")
    return Document(
        id=identifier,
        text=text,
        source=record.optional_text("source"),
        added=record.optional_text("added"),
        created=record.optional_text("created"),
        version=None if record.value.get("version") is None else record.text("version"),
        metadata=metadata,
        attributes={} if record.value.get("attributes") is None else record.record("attributes").value,
    )


def _metadata(record: Record) -> Record:
    """The object of metadata, which may be there as JSON text."""
    value = record.value.get("metadata")
    if value is None:
        return Record(value={}, path=record.path, line=record.line)
    if isinstance(value, str):
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise record.wrong_type("metadata", "an object, or one as JSON text", value)
        record = Record(value={"metadata": parsed}, path=record.path, line=record.line)
    return record.record("metadata")


def validate(path: Path) -> None:
    """Full check of a document directory or file: rows, manifest, hashes, counts."""
    for _ in dump(path, hashes=True):
        pass


def dump(path: Path, *, hashes: bool = False) -> Iterator[dict[str, Any]]:
    """The canonical rows: head line first (so the rows are read twice), then a row a document."""
    root = document_root(path)
    manifest = read_manifest(root, "document") if (root / MANIFEST).is_file() else None
    if manifest is not None:
        check_files(root, manifest, hashes=hashes)
    files = document_files(root)
    counts = {"documents": 0, "text_bytes": 0}
    for file in files:
        for document in read_documents(file):
            counts["documents"] += 1
            counts["text_bytes"] += len(document.text.encode())
    if manifest is not None:
        stated = Record(value=manifest["counts"], path=root / MANIFEST, prefix="counts.")
        for key, count in counts.items():
            if stated.integer(key) != count:
                raise stated.error("invalid_value", key, f"is {stated.value[key]}; the rows give {count}")
    yield {"format": "document", "version": 1, "counts": counts}
    for file in files:
        for document in read_documents(file):
            yield vars(document).copy()

"""Documents: JSON lines with an id, a text and a source. Implements docs/formats/document.md v1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .fields import field_of, mismatch, shown
from .json_lines import read_rows, row_files
from .manifest import MANIFEST, check_files, read_manifest

__all__ = ["Document", "document_files", "documents", "dump", "validate"]

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Document:
    """One document; `subdomain` is `metadata.subdomain`, a top-level `subdomain`, or the empty string."""

    path: Path
    line: int
    id: str
    text: str
    source: str
    subdomain: str
    row: dict[str, Any]


def document_files(path: Path) -> list[Path]:
    """The document files of a directory (or the one file given), in sorted order of their relative paths.

    With a manifest they are the files it lists; without one, every `.json`/`.jsonl` file below, compressed or not.
    Raises: FormatError: `missing_file`, `wrong_size` and what a bad manifest raises.
    """
    if not (path / MANIFEST).is_file():
        return row_files(path)
    manifest = read_manifest(path, wanted="document", newest=VERSION)
    check_files(manifest, checksums=False)
    return row_files(path, [row["path"] for row in manifest.files])


def _metadata(row: dict[str, Any], path: Path, line: int) -> dict[str, Any]:
    """The metadata object, which may be stored as JSON text."""
    value = row.get("metadata")
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            expected = "an object, or one as JSON text"
            raise mismatch(path, "wrong_type", shown(row["metadata"]), expected, line=line, field="metadata")
        return value
    found: dict[str, Any] = field_of(row, "metadata", "an object", path, line=line, optional=True, default={})
    return found


def documents(files: list[Path]) -> Iterator[Document]:
    """Yield the checked documents of the files, in order.

    Raises: FormatError: with the place of the first row that breaks a rule.
    """
    for path in files:
        for line, row in read_rows(path):
            identifier = field_of(row, "id", "a string", path, line=line)
            if not identifier:
                raise mismatch(path, "invalid_value", "empty", "a string with characters", line=line, field="id")
            text = field_of(row, "text", "a string", path, line=line)
            for name in ("source", "added", "created", "subdomain", "version"):
                field_of(row, name, "a string", path, line=line, optional=True)
            metadata = _metadata(row, path, line)
            inner = field_of(metadata, "subdomain", "a string", path, line=line, prefix="metadata.", optional=True)
            field_of(row, "attributes", "an object", path, line=line, optional=True, default={})
            subdomain = row.get("subdomain")
            yield Document(
                path=path,
                line=line,
                id=identifier,
                text=text,
                source=row.get("source") or "",
                subdomain=inner or "" if subdomain is None else subdomain,
                row=row,
            )


def validate(path: Path) -> Iterator[Document]:
    """Check a document directory in full, checksums and counts included, yielding each document.

    Raises: FormatError.
    """
    manifest = None
    if path.is_dir() and (path / MANIFEST).is_file():
        manifest = read_manifest(path, wanted="document", newest=VERSION)
        check_files(manifest, checksums=True)
    counted = text_bytes = 0
    for document in documents(document_files(path)):
        counted += 1
        text_bytes += len(document.text.encode("utf-8"))
        yield document
    if manifest is not None:
        for name, value in (("documents", counted), ("text_bytes", text_bytes)):
            stated = field_of(manifest.counts, name, "an integer", manifest.path, prefix="counts.")
            if stated != value:
                raise mismatch(manifest.path, "invalid_value", str(stated), str(value), field=f"counts.{name}")


def dump(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a row a document with the defaults filled in."""
    for document in validate(path):
        row = document.row
        metadata = _metadata(row, document.path, document.line)
        if row.get("subdomain") is not None:
            metadata = {**metadata, "subdomain": row["subdomain"]}
        yield {
            "id": document.id,
            "text": document.text,
            "source": document.source,
            "added": row.get("added") or "",
            "created": row.get("created") or "",
            "version": row.get("version"),
            "metadata": metadata,
            "attributes": row.get("attributes") or {},
        }

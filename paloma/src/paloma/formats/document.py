"""docs/formats/document.md, version 1: rows of text with an id and a source."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paloma.formats.errors import FormatError
from paloma.formats.fields import Fields
from paloma.formats.json_lines import decode, read_lines, row_files
from paloma.formats.manifest import MANIFEST, check_files, read_manifest

__all__ = ["Document", "document_files", "dump", "parse_document", "read_documents", "validate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A row, defaults filled in; `metadata["subdomain"]` also where the file had it at the top level."""

    id: str
    text: str
    source: str = ""
    added: str = ""
    created: str = ""
    version: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def subdomain(self) -> str:
        """The domain within the source, `""` where the row names none."""
        return str(self.metadata.get("subdomain") or "")


def parse_document(data: bytes, path: Path, line: int) -> Document:
    """One line as a document.

    Raises:
        FormatError: with the codes of the contract.
    """
    row = Fields(decode(data, path, line), path, line)
    metadata = _metadata(row)
    inner, outer = metadata.optional_text("subdomain"), row.optional_text("subdomain")
    values = metadata.value
    if outer is not None and outer != inner:
        values = values | {"subdomain": outer}
    return Document(
        id=row.text("id", not_empty=True),
        text=row.text("text"),
        source=row.optional_text("source") or "",
        added=row.optional_text("added") or "",
        created=row.optional_text("created") or "",
        version=row.optional_text("version"),
        metadata=values,
        attributes=row.optional_object("attributes").value,
    )


def _metadata(row: Fields) -> Fields:
    """The object of metadata, which may be given as JSON text."""
    text = row.value.get("metadata")
    if type(text) is not str:
        return row.optional_object("metadata")
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if type(value) is not dict:
        raise row.error("wrong_type", "metadata", "text", "an object, or one as JSON text")
    return Fields({"metadata": value}, row.path, row.line).optional_object("metadata")


def document_files(path: Path) -> list[Path]:
    """The files of an artifact, of a directory without a manifest, or one file; sizes are checked where they are known.

    Raises:
        FormatError: of the manifest or its files.
    """
    if not (path / MANIFEST).is_file():
        return row_files(path)
    manifest = read_manifest(path, "document")
    for error in check_files(path, manifest, hashes=False):
        raise error
    return row_files(path, [entry["path"] for entry in manifest["files"]])


def read_documents(path: Path) -> Iterator[Document]:
    """All documents, file by file.

    Raises:
        FormatError: at the first broken row.
    """
    for file in document_files(path):
        for line, data in read_lines(file):
            yield parse_document(data, file, line)


def validate(path: Path, counted: dict[str, int]) -> Iterator[FormatError]:
    """Every broken row; `counted` gets the counts of the good ones."""
    counted |= {"documents": 0, "text_bytes": 0}
    for file in document_files(path):
        try:
            for line, data in read_lines(file):
                try:
                    document = parse_document(data, file, line)
                except FormatError as error:
                    yield error
                    continue
                counted["documents"] += 1
                counted["text_bytes"] += len(document.text.encode())
        except FormatError as error:  # the file itself ends early
            yield error


def dump(path: Path) -> Iterator[dict[str, Any]]:
    """The head line, then a row a document."""
    documents = text_bytes = 0
    for document in read_documents(path):
        documents += 1
        text_bytes += len(document.text.encode())
    yield {"format": "document", "version": 1, "counts": {"documents": documents, "text_bytes": text_bytes}}
    for document in read_documents(path):
        yield {name: getattr(document, name) for name in Document.__slots__}

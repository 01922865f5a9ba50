"""Documents: rows of text with an id and a source. Implements docs/formats/document.md, version 1.

The packages that read documents in Python carry this file, byte for byte.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .contract import Fields, FormatError, Reader, decode_object, read_lines
from .manifest import MANIFEST, artifact_files

__all__ = ["READERS", "Document", "document_files", "document_root", "dump", "parse_document", "read_documents"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A row with its defaults; `metadata["subdomain"]` also if the row has it at the top level."""

    id: str
    text: str
    source: str = ""
    added: str = ""
    created: str = ""
    version: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    place: str = field(default="", compare=False)
    """`path:line`, for messages"""

    @property
    def subdomain(self) -> str:
        """The domain within the source; empty if there is none."""
        return str(self.metadata.get("subdomain") or "")


def document_root(path: Path) -> Path:
    """The directory with the manifest of documents: `path`, or its folder `documents`."""
    return path / "documents" if not (path / MANIFEST).is_file() and (path / "documents").is_dir() else path


def document_files(path: Path) -> list[Path]:
    """The document files at a path, as `artifact_files`."""
    return artifact_files(document_root(path), "document")


def read_documents(files: Iterable[Path]) -> Iterator[Document]:
    """Yield the documents of files, in order.

    Raises:
        FormatError: at the first invalid row.
    """
    for file in files:
        for line, raw in read_lines(file):
            yield parse_document(raw, file, line)


def parse_document(raw: bytes, path: Path, line: int) -> Document:
    """One line as a document.

    Raises:
        FormatError: at the first invalid field.
    """
    row = Fields(decode_object(raw, path, line), path, line)
    identifier, text = row.string("id", not_empty=True), row.string("text")
    metadata = _metadata(row)
    metadata.optional_string("subdomain")
    subdomain = row.optional_string("subdomain")
    return Document(
        id=identifier,
        text=text,
        source=row.optional_string("source") or "",
        added=row.optional_string("added") or "",
        created=row.optional_string("created") or "",
        version=row.optional_string("version"),
        metadata=metadata.value if subdomain is None else metadata.value | {"subdomain": subdomain},
        attributes=row.optional_object("attributes").value,
        place=f"{path}:{line}",
    )


def _metadata(row: Fields) -> Fields:
    """The object of metadata, which may be stored as JSON text."""
    text = row.value.get("metadata")
    if not isinstance(text, str):
        return row.optional_object("metadata")
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise row.wrong_type("metadata", "an object, or one as JSON text")
    return Fields(value, row.path, row.line, row.name("metadata"))


def dump(path: Path) -> Iterator[dict[str, Any] | FormatError]:
    """Yield every document as a row, or the error of an invalid one."""
    for file in document_files(path):
        try:
            for line, raw in read_lines(file):
                try:
                    row = asdict(parse_document(raw, file, line))
                    del row["place"]
                    yield row
                except FormatError as error:
                    yield error
        except FormatError as error:  # the file itself is damaged
            yield error


READERS = {"document": Reader(dump, ("documents", "text_bytes"), lambda row: (1, len(row["text"].encode())))}

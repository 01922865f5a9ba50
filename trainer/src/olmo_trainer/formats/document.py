"""Documents: JSON lines with an id, a text and a source. Implements docs/formats/document.md v1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FormatError, shown
from .files import COMPRESSIONS, field_of, rows
from .manifest import MANIFEST, check_files, read_manifest

__all__ = ["Document", "document_files", "documents", "dump", "validate"]

VERSION = 1
_SUFFIXES = (".json", ".jsonl")


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
    if path.is_file():
        return [path]
    if (path / MANIFEST).is_file():
        manifest = read_manifest(path, wanted="document", newest=VERSION)
        check_files(manifest, checksums=False)
        return [path / row["path"] for row in manifest.files if _is_document_file(Path(row["path"]))]
    found = [item for item in path.rglob("*") if item.is_file() and _is_document_file(item.relative_to(path))]
    return sorted(found, key=lambda item: item.relative_to(path).as_posix())


def _is_document_file(path: Path) -> bool:
    plain = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    return plain.suffix in _SUFFIXES and path.name != MANIFEST and "attributes" not in path.parts[:-1]


def _check_spans(attributes: dict[str, Any], length: int, path: Path, line: int) -> None:
    for key, spans in attributes.items():
        field = f"attributes.{key}"
        if not isinstance(spans, list):
            raise FormatError(path, "wrong_type", shown(spans), "an array", line=line, field=field)
        for index, span in enumerate(spans):
            place = f"{field}.{index}"
            whole = isinstance(span, list) and len(span) == 3
            if not whole or any(isinstance(part, bool) or not isinstance(part, int | float) for part in span):
                raise FormatError(path, "wrong_type", shown(span), "[start, end, score]", line=line, field=place)
            start, end = span[:2]
            if not isinstance(start, int) or not isinstance(end, int):
                raise FormatError(path, "wrong_type", shown(span), "integer offsets", line=line, field=place)
            if not 0 <= start <= end <= length:
                expected = f"0 ≤ start ≤ end ≤ {length}"
                raise FormatError(path, "out_of_range", f"[{start}, {end}]", expected, line=line, field=place)


def documents(files: list[Path]) -> Iterator[Document]:
    """Yield the checked documents of the files, in order.

    Raises: FormatError: with the place of the first row that breaks a rule.
    """
    for path in files:
        for line, row in rows(path):
            identifier = field_of(row, "id", "a string", path, line=line)
            if not identifier:
                raise FormatError(path, "invalid_value", "empty", "a string with characters", line=line, field="id")
            text = field_of(row, "text", "a string", path, line=line)
            for name in ("source", "added", "created", "subdomain"):
                field_of(row, name, "a string", path, line=line, optional=True)
            if row.get("version") is not None:
                field_of(row, "version", "a string", path, line=line)
            metadata = field_of(row, "metadata", "an object", path, line=line, optional=True, default={})
            attributes = field_of(row, "attributes", "an object", path, line=line, optional=True, default={})
            # a document-level duplicate mark ends at the length in bytes (docs/formats/attributes.md), the longer of the two
            _check_spans(attributes, len(text.encode("utf-8", "surrogatepass")), path, line)
            inner = field_of(metadata, "subdomain", "a string", path, line=line, prefix="metadata.", optional=True)
            yield Document(
                path=path,
                line=line,
                id=identifier,
                text=text,
                source=row.get("source", ""),
                subdomain=inner if inner is not None else row.get("subdomain", ""),
                row=row,
            )


def validate(path: Path) -> Iterator[Document]:
    """Check a document directory in full, checksums, counts and unique ids included, yielding each document.

    Raises: FormatError.
    """
    manifest = None
    if path.is_dir() and (path / MANIFEST).is_file():
        manifest = read_manifest(path, wanted="document", newest=VERSION)
        check_files(manifest, checksums=True)
    seen: dict[tuple[str, str], str] = {}
    counted = text_bytes = 0
    for document in documents(document_files(path)):
        key = (document.source, document.id)
        place = f"{document.path}:{document.line}"
        if key in seen:
            raise FormatError(
                document.path,
                "invalid_value",
                f"{shown(document.id)}, which is also at {seen[key]}",
                f'an id that is unique within its source "{document.source}"',
                line=document.line,
                field="id",
            )
        seen[key] = place
        counted += 1
        text_bytes += len(document.text.encode("utf-8", "surrogatepass"))
        yield document
    if manifest is not None:
        for name, value in (("documents", counted), ("text_bytes", text_bytes)):
            stated = field_of(manifest.counts, name, "an integer", manifest.path, prefix="counts.")
            if stated != value:
                raise FormatError(manifest.path, "invalid_value", str(stated), str(value), field=f"counts.{name}")


def dump(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a row a document with the defaults filled in."""
    for document in validate(path):
        row = document.row
        yield {
            "id": document.id,
            "text": document.text,
            "source": document.source,
            "added": row.get("added", ""),
            "created": row.get("created", ""),
            "version": row.get("version"),
            "metadata": row.get("metadata", {}),
            "attributes": row.get("attributes", {}),
        }

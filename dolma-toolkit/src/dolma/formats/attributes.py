"""Rows of attributes and their documents: docs/formats/attributes.md, version 1."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from dolma.errors import FormatError
from dolma.formats import manifest
from dolma.formats.fields import Fields
from dolma.formats.files import artifact_files, attributes_name, documents_name, holds_rows, lines, parse_object

__all__ = ["is_spans", "parse", "read", "values"]

Row = dict[str, Any]


def values(fields: Fields, span_keys: Collection[str] = ()) -> dict[str, Any]:
    """The attributes: any JSON, with spans under ``span_keys``. Scores of spans are floating point.

    Raises:
        FormatError: at the first span that breaks the format.
    """
    return {
        key: _spans(key, fields) if key in span_keys or is_spans(value) else value
        for key, value in fields.value.items()
    }


def is_spans(value: Any) -> bool:
    """Whether a value is a list of spans, as far as one can tell: other lists of three numbers look the same."""
    try:
        _spans("_", Fields({"_": value}, ""))
    except FormatError:
        return False
    return True


def _spans(key: str, fields: Fields) -> list[list[Any]]:
    return [_span(span, f"{key}.{index}", fields) for index, span in enumerate(fields.array(key))]


def _span(span: Any, name: str, fields: Fields) -> list[Any]:
    if not isinstance(span, list):
        raise fields.wrong_type(name, span, "an array of [start, end, score]")
    if len(span) < 3:
        raise fields.error(name, "invalid_value", f"has {len(span)} parts; expected [start, end, score]")
    start, end, score, *more = span
    for index, value in enumerate((start, end)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise fields.wrong_type(f"{name}.{index}", value, "an integer")
    if not isinstance(score, int | float) or isinstance(score, bool):
        raise fields.wrong_type(f"{name}.2", score, "a number")
    if not 0 <= start <= end:
        raise fields.error(name, "out_of_range", f"is [{start}, {end}]; expected 0 ≤ start ≤ end")
    return [start, end, float(score), *more]


def parse(data: bytes, path: str, line: int, span_keys: Collection[str] = ()) -> Row:
    """One line as ``{"id", "attributes"}``; values under ``span_keys`` must be spans.

    Raises:
        FormatError: at the first field that breaks the format.
    """
    fields = Fields(parse_object(data, path, line), path, line)
    row = {"id": fields.string("id"), "attributes": values(fields.object("attributes"), span_keys)}
    fields.optional_string("source")
    return row


def read(path: Path, documents: Path | None, errors: list[FormatError]) -> Iterator[tuple[Row, dict[str, int]]]:
    """Every good row and what it adds to the counts; what is wrong is appended to ``errors``.

    ``documents`` is the directory (or file) of the documents; without it the one that the manifest names, if there.
    """
    found = manifest.read_optional(path, "attributes")
    byte_keys: list[str] = []
    span_keys: list[str] = []
    if found:
        details = found.details
        span_keys = details.array("keys")
        default = found.directory / details.string("documents")
        byte_keys = list(details.value.get("byte_length_keys") or [])
        documents = documents or (default if default.is_dir() else None)
        errors.extend(manifest.check_files(found))
        if errors:
            return
    root, names = artifact_files(path, found.paths if found else None, holds_rows)
    if documents is not None and documents.is_dir():
        listed = manifest.read_optional(documents, "document")
        for listed_name in artifact_files(documents, listed.paths if listed else None, holds_rows)[1]:
            name = attributes_name(listed_name)
            if name not in names:
                message = "file not found; expected one for each document file"
                errors.append(FormatError(str(root / name), None, None, "missing_file", message))
    counts = {"documents": 0, "spans": 0}
    for name in names:
        texts = None
        if documents is not None:
            texts = _texts(documents if documents.is_file() else documents / documents_name(name))
        for row, added in _read_file(root / name, texts, span_keys, byte_keys, errors):
            counts = {key: counts[key] + added[key] for key in counts}
            yield row, added
    if found and not errors:
        errors.extend(manifest.check_counts(found, counts))


def _texts(path: Path) -> Iterator[Row]:
    from dolma.formats import document

    if path.is_file():
        for line, data in lines(path):
            yield document.parse(data, str(path), line)


def _read_file(
    path: Path, texts: Iterator[Row] | None, span_keys: list[str], byte_keys: list[str], errors: list[FormatError]
) -> Iterator[tuple[Row, dict[str, int]]]:
    line = 0
    try:
        for line, data in lines(path):
            document = next(texts, None) if texts is not None else None
            if texts is not None and document is None:
                message = "the row has no document; expected as many rows as documents"
                errors.append(FormatError(str(path), line, None, "misaligned", message))
                return
            try:
                row = parse(data, str(path), line, span_keys)
                if document is not None:
                    _check_alignment(row, document, byte_keys, Fields(row, str(path), line))
            except FormatError as error:
                errors.append(error)
                continue
            yield (
                row,
                {"documents": 1, "spans": sum(len(found) for found in row["attributes"].values() if is_spans(found))},
            )
        if texts is not None and next(texts, None) is not None:
            message = f"the file ends after {line} rows; expected a row for each document"
            errors.append(FormatError(str(path), line + 1, None, "misaligned", message))
    except FormatError as error:  # a damaged file, or a document that is none
        errors.append(error)


def _check_alignment(row: Row, document: Row, byte_keys: list[str], fields: Fields) -> None:
    if row["id"] != document["id"]:
        raise fields.error("id", "misaligned", f'is "{row["id"]}"; expected "{document["id"]}", the document\'s')
    length = {False: len(document["text"]), True: len(document["text"].encode())}
    for key, found in row["attributes"].items():
        in_bytes = key in byte_keys
        for index, (_, end, *_) in enumerate(found if is_spans(found) else ()):
            if end > length[in_bytes]:
                unit = "bytes" if in_bytes else "code points"
                message = f"ends at {end}; expected at most {length[in_bytes]}, the {unit} of the text"
                raise fields.error(f"attributes.{key}.{index}", "out_of_range", message)

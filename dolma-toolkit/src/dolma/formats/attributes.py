"""Rows of attributes and their documents: docs/formats/attributes.md, version 1."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from dolma.formats import document
from dolma.formats.contract import Fields, FormatError, Reader, type_name
from dolma.formats.files import artifact_files, attributes_name, documents_name, lines, parse_object
from dolma.formats.manifest import find_manifest

__all__ = ["READERS", "dump", "is_spans", "parse", "values"]

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
        raise _wrong_type(fields, name, span, "an array of [start, end, score]")
    if len(span) < 3:
        raise fields.error("invalid_value", name, f"has {len(span)} parts; expected [start, end, score]")
    start, end, score, *more = span
    for index, value in enumerate((start, end)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong_type(fields, f"{name}.{index}", value, "an integer")
    if not isinstance(score, int | float) or isinstance(score, bool):
        raise _wrong_type(fields, f"{name}.2", score, "a number")
    if not 0 <= start <= end:
        raise fields.error("out_of_range", name, f"is [{start}, {end}]; expected 0 ≤ start ≤ end")
    return [start, end, float(score), *more]


def _wrong_type(fields: Fields, name: str, value: object, expected: str) -> FormatError:
    return fields.error("wrong_type", name, f"is {type_name(value)}; expected {expected}")


def parse(data: bytes, path: Path, line: int, span_keys: Collection[str] = ()) -> Row:
    """One line as ``{"id", "attributes"}``; values under ``span_keys`` must be spans.

    Raises:
        FormatError: at the first field that breaks the format.
    """
    fields = Fields(parse_object(data, path, line), path, line)
    row = {"id": fields.string("id"), "attributes": values(fields.object("attributes"), span_keys)}
    fields.optional_string("source")
    return row


def dump(path: Path, *, documents: Path | None = None) -> Iterator[Row | FormatError]:
    """Yields every row, or the error of an invalid one.

    ``documents`` is the directory (or file) of the documents; without it the one that the manifest names, if it exists.
    """
    found = find_manifest(path, "attributes")
    byte_keys: list[str] = []
    span_keys: list[str] = []
    if found:
        details = found.fields("details")
        span_keys = details.array("keys")
        default = found.directory / details.string("documents")
        byte_keys = list(details.value.get("byte_length_keys") or [])
        documents = documents or (default if default.is_dir() else None)
    root, names = artifact_files(path, "attributes")
    if documents is not None and documents.is_dir():
        for name in map(attributes_name, artifact_files(documents, "document")[1]):
            if name not in names:
                message = "file not found; expected one for each document file"
                yield FormatError("missing_file", root / name, message)
    for name in names:
        texts = None
        if documents is not None:
            texts = _texts(documents if documents.is_file() else documents / documents_name(name))
        yield from _read_file(root / name, texts, span_keys, byte_keys)


def _texts(path: Path) -> Iterator[Row]:
    if path.is_file():
        for line, data in lines(path):
            yield document.parse(data, path, line)


def _read_file(
    path: Path, texts: Iterator[Row] | None, span_keys: list[str], byte_keys: list[str]
) -> Iterator[Row | FormatError]:
    line = 0
    try:
        for line, data in lines(path):
            text = next(texts, None) if texts is not None else None
            if texts is not None and text is None:
                message = "the row has no document; expected as many rows as documents"
                yield FormatError("misaligned", path, message, line=line)
                return
            try:
                row = parse(data, path, line, span_keys)
                if text is not None:
                    _check_alignment(row, text, byte_keys, Fields(row, path, line))
            except FormatError as error:
                yield error
                continue
            yield row
        if texts is not None and next(texts, None) is not None:
            message = f"the file ends after {line} rows; expected a row for each document"
            yield FormatError("misaligned", path, message, line=line + 1)
    except FormatError as error:  # a damaged file, or an invalid document
        yield error


def _check_alignment(row: Row, document: Row, byte_keys: list[str], fields: Fields) -> None:
    if row["id"] != document["id"]:
        raise fields.error("misaligned", "id", f'is "{row["id"]}"; expected "{document["id"]}", the document\'s')
    length = {False: len(document["text"]), True: len(document["text"].encode())}
    for key, found in row["attributes"].items():
        in_bytes = key in byte_keys
        for index, (_, end, *_) in enumerate(found if is_spans(found) else ()):
            if end > length[in_bytes]:
                unit = "bytes" if in_bytes else "code points"
                message = f"ends at {end}; expected at most {length[in_bytes]}, the {unit} of the text"
                raise fields.error("out_of_range", f"attributes.{key}.{index}", message)


def _num_spans(row: Row) -> int:
    return sum(len(found) for found in row["attributes"].values() if is_spans(found))


READERS = {
    "attributes": Reader(
        dump,
        ("documents", "spans"),
        lambda row: (1, _num_spans(row)),
        flags={"documents": {"type": Path, "metavar": "DIR", "help": "documents of the attributes"}},
    )
}

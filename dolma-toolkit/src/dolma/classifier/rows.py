"""Labelled rows from JSONL, CSV and fastText files, and a split that depends only on their texts."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dolma.errors import FormatError, ProblemsError
from dolma.files.paths import Source
from dolma.formats.files import lines, open_text, parse_object

__all__ = ["LABEL_PREFIX", "Row", "read_rows", "split", "training_line"]

LABEL_PREFIX = "__label__"
REPORTED_ROWS = 100


@dataclass(frozen=True)
class Row:
    """A text and the label that someone gave it, without prefix."""

    text: str
    label: str


def read_rows(sources: Sequence[Source], text_field: str, label_field: str, renamed: Mapping[str, str]) -> list[Row]:
    """Rows of all files, in order. ``renamed`` maps labels to others; those that it maps to nothing are left out.

    JSON fields may be dotted. Numbers and booleans are labels as JSON spells them. The separator of a table is the
    comma, semicolon or tab that finds both columns in its first line. A file whose first line begins with ``__label__``
    is in fastText's format, whatever its name: the label, then the text.

    Raises:
        FormatError, ProblemsError: rows without text or label.
    """
    rows: list[Row] = []
    errors: list[Exception] = []
    for source in sources:
        reader = _reader(source, text_field, label_field)
        for number, value in reader(source, text_field, label_field, errors.append):
            try:
                text = _string(value, text_field, source.name, number)
                label = _string(value, label_field, source.name, number)
            except FormatError as error:
                errors.append(error)
                continue
            name = re.sub(r"\s+", "_", renamed.get(label, label).strip())
            if name:
                rows.append(Row(text, name))
            elif label not in renamed:
                message = f'"{label_field}" is empty; expected a label'
                errors.append(FormatError(source.name, number, label_field, "invalid_value", message))
            if len(errors) >= REPORTED_ROWS:
                break
    if errors:
        raise errors[0] if len(errors) == 1 else ProblemsError(errors[:REPORTED_ROWS])
    return rows


_Reader = Callable[[Source, str, str, Callable[[Exception], None]], Iterator[tuple[int, Mapping[str, Any]]]]


def _reader(source: Source, text_field: str, label_field: str) -> _Reader:
    if re.search(r"\.[ct]sv(\.\w+)?$", source.name):
        return _table
    first = next((line for _, line in lines(Path(source.path), [text_field, label_field]) if line.strip()), b"")
    return _fasttext if first.startswith(LABEL_PREFIX.encode()) else _jsonl


def _jsonl(
    source: Source, text_field: str, label_field: str, report: Callable[[Exception], None]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    fields = [field.partition(".")[0] for field in (text_field, label_field)]
    for number, line in lines(Path(source.path), [*fields, text_field, label_field]):
        try:
            yield number, parse_object(line, source.name, number)
        except FormatError as error:
            report(error)


def _fasttext(
    source: Source, text_field: str, label_field: str, report: Callable[[Exception], None]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in lines(Path(source.path)):
        try:
            words = line.decode("utf-8").split()
        except UnicodeDecodeError as error:
            report(FormatError(source.name, number, None, "invalid_value", f"the line is not UTF-8 ({error})"))
            continue
        labels = [word for word in words if word.startswith(LABEL_PREFIX)]
        if len(labels) != 1:
            message = f'the line has {len(labels)} labels; expected one "{LABEL_PREFIX}…" and a text'
            report(FormatError(source.name, number, None, "invalid_value", message))
            continue
        text = " ".join(word for word in words if word != labels[0])
        yield number, {text_field: text, label_field: labels[0].removeprefix(LABEL_PREFIX)}


def _table(
    source: Source, text_field: str, label_field: str, report: Callable[[Exception], None]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    csv.field_size_limit(sys.maxsize)
    text = open_text(Path(source.path))
    # spreadsheets may write the separator in a line before the header
    said = re.match(r"sep=(.)\r?\n", text.getvalue())
    text.seek(said.end() if said else 0)
    separator = said[1] if said else _separator(text.getvalue(), text_field, label_field)
    reader = csv.DictReader(text, strict=True, delimiter=separator)
    try:
        for row in reader:
            if None in row:
                message = (
                    f"the row has more cells than the header ({', '.join(reader.fieldnames or ())}); expected no more"
                )
                report(FormatError(source.name, reader.line_num + bool(said), None, "invalid_value", message))
                continue
            yield reader.line_num + bool(said), row
    except csv.Error as error:
        message = f"the line is not valid CSV ({error}); expected fields separated by commas, semicolons or tabs"
        report(FormatError(source.name, reader.line_num + bool(said), None, "invalid_value", message))


def _separator(text: str, *columns: str) -> str:
    """The separator between the columns in the first line; a comma if the columns are missing."""
    for separator in ",;\t":
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
        if all(column in header for column in columns):
            return separator
    return ","


def _string(row: Mapping[str, Any], field: str, path: str, line: int) -> str:
    value: Any = row
    for part in [field] if field in row else field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is None:
        known = ", ".join(str(name) for name in row)
        raise FormatError(path, line, field, "missing_field", f'"{field}" is missing; expected it among {known}')
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise FormatError(path, line, field, "wrong_type", f'"{field}" is no text; expected a string or a number')
    return str(value)


def split(rows: Sequence[Row], fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Training and test rows. Equal texts fall on the same side, wherever they stand."""
    train: list[Row] = []
    test: list[Row] = []
    for row in rows:
        digest = hashlib.sha256(f"{seed}\n{row.text}".encode("utf-8", "surrogatepass")).digest()
        is_test = int.from_bytes(digest[:8], "big") < fraction * 2**64
        (test if is_test else train).append(row)
    return train, test


def training_line(row: Row) -> str:
    """The row as fastText reads it. Words that it would take for labels or for the end of a line are left out."""
    words = re.split(r"[ \n\r\t\v\f\0]+", row.text)
    kept = (word for word in words if word and not word.startswith(LABEL_PREFIX) and word != "</s>")
    return f"{LABEL_PREFIX}{row.label} {' '.join(kept)}\n"

"""Text classifiers: labelled rows, a fastText model trained on them, and its precision, recall and F1."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dolma.core.extras import fasttext_trainer
from dolma.errors import ConfigError, Problem, raise_all
from dolma.files.paths import Source
from dolma.formats.contract import FormatError
from dolma.formats.files import lines, open_text, parse_object

__all__ = [
    "LABEL_PREFIX",
    "Row",
    "evaluate",
    "measures",
    "read_rows",
    "split",
    "tables",
    "train",
    "training_line",
    "wilson",
]

LABEL_PREFIX = "__label__"
REPORTED_ROWS = 100


@dataclass(frozen=True)
class Row:
    """A text and the label that someone gave it, without prefix."""

    text: str
    label: str


def read_rows(sources: Sequence[Source], text_field: str, label_field: str, renamed: Mapping[str, str]) -> list[Row]:
    """Rows of all files, in order. ``renamed`` maps labels to others; rows of a label mapped to nothing are dropped.

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
                errors.append(FormatError("invalid_value", source.name, message, line=number, field=label_field))
            if len(errors) >= REPORTED_ROWS:
                break
    raise_all(errors[:REPORTED_ROWS])
    return rows


_Reader = Callable[[Source, str, str, Callable[[Exception], None]], Iterator[tuple[int, Mapping[str, Any]]]]


def _reader(source: Source, text_field: str, label_field: str) -> _Reader:
    if re.search(r"\.[ct]sv(\.\w+)?$", source.name):
        return _csv
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
            report(FormatError("invalid_value", source.name, f"the line is not UTF-8 ({error})", line=number))
            continue
        labels = [word for word in words if word.startswith(LABEL_PREFIX)]
        if len(labels) != 1:
            message = f'the line has {len(labels)} labels; expected one "{LABEL_PREFIX}…" and a text'
            report(FormatError("invalid_value", source.name, message, line=number))
            continue
        text = " ".join(word for word in words if word != labels[0])
        yield number, {text_field: text, label_field: labels[0].removeprefix(LABEL_PREFIX)}


def _csv(
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
                report(FormatError("invalid_value", source.name, message, line=reader.line_num + bool(said)))
                continue
            yield reader.line_num + bool(said), row
    except csv.Error as error:
        message = f"the line is not valid CSV ({error}); expected fields separated by commas, semicolons or tabs"
        report(FormatError("invalid_value", source.name, message, line=reader.line_num + bool(said)))


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
        raise FormatError(
            "missing_field", path, f'"{field}" is missing; expected it among {known}', line=line, field=field
        )
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise FormatError(
            "wrong_type", path, f'"{field}" is not text; expected a string or a number', line=line, field=field
        )
    return str(value)


def split(rows: Sequence[Row], fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Training and test rows. Equal texts go to the same side, wherever they are."""
    train: list[Row] = []
    test: list[Row] = []
    for row in rows:
        digest = hashlib.sha256(f"{seed}\n{row.text}".encode("utf-8", "surrogatepass")).digest()
        is_test = int.from_bytes(digest[:8], "big") < fraction * 2**64
        (test if is_test else train).append(row)
    return train, test


def training_line(row: Row) -> str:
    """The row as fastText reads it, without words that it would take for labels or for the end of a line."""
    words = re.split(r"[ \n\r\t\v\f\0]+", row.text)
    kept = (word for word in words if word and not word.startswith(LABEL_PREFIX) and word != "</s>")
    return f"{LABEL_PREFIX}{row.label} {' '.join(kept)}\n"


class Hyperparameters(Protocol):
    """The settings that a model depends on."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def dimension(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def min_count(self) -> int: ...
    @property
    def word_ngrams(self) -> int: ...
    @property
    def min_chars(self) -> int: ...
    @property
    def max_chars(self) -> int: ...
    @property
    def buckets(self) -> int: ...
    @property
    def loss(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def quantize(self) -> bool: ...
    @property
    def cutoff(self) -> int: ...


def train(rows: Sequence[Row], settings: Hyperparameters, directory: Path) -> list[str]:
    """Writes ``model.bin``, and ``model.ftz`` if it is wanted, and returns their names.

    Raises:
        ConfigError: fastText refuses the settings for these rows.
    """
    fasttext = fasttext_trainer("train-classifier")
    text = directory / "train.txt"
    with text.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
        file.writelines(map(training_line, rows))
    try:
        names = _fit(fasttext, settings, text, directory)
    except (ValueError, RuntimeError) as error:
        reason = re.sub(r"\s+", " ", str(error))
        hint = "" if "quantiz" not in reason else "remove quantize: so small a model gains nothing from it"
        message = f"stops at {len(rows)} training rows: {reason}"
        raise ConfigError([Problem("fastText", f"{message}; expected settings that suit them", hint)]) from None
    os.remove(text)
    return names


def _fit(fasttext: object, settings: Hyperparameters, text: Path, directory: Path) -> list[str]:
    model = fasttext.train_supervised(  # type: ignore[attr-defined]
        input=str(text),
        lr=settings.learning_rate,
        dim=settings.dimension,
        epoch=settings.epochs,
        minCount=settings.min_count,
        wordNgrams=settings.word_ngrams,
        minn=settings.min_chars,
        maxn=settings.max_chars,
        bucket=settings.buckets,
        loss=settings.loss,
        seed=settings.seed,
        thread=1,
        verbose=0,
    )
    model.save_model(str(directory / "model.bin"))
    if not settings.quantize:
        return ["model.bin"]
    # retraining restores what is lost where rows are cut; norms apart keep the small ones apart
    model.quantize(
        input=str(text),
        qnorm=True,
        cutoff=settings.cutoff,
        retrain=settings.cutoff > 0,
        thread=1,
        epoch=settings.epochs,
        lr=settings.learning_rate,
        verbose=0,
    )
    model.save_model(str(directory / "model.ftz"))
    return ["model.bin", "model.ftz"]


_Z = 1.959964
"""The 97.5 % point of the normal distribution."""


def wilson(hits: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927); (0, 1) of nothing."""
    if n == 0:
        return 0.0, 1.0
    share = hits / n
    centre = share + _Z * _Z / (2 * n)
    width = _Z * math.sqrt(share * (1 - share) / n + _Z * _Z / (4 * n * n))
    scale = 1 + _Z * _Z / n
    return max(0.0, (centre - width) / scale), min(1.0, (centre + width) / scale)


def measures(hits: int, found: int, n: int) -> dict[str, Any]:
    """Precision, recall and F1 of ``found`` things of which ``hits`` are among the ``n`` right ones.

    F1 is 2J/(1+J) of the share J of hits among all that is found or right, so its interval is that of J, mapped.
    """
    union = found + n - hits
    f1 = 2 * hits / (found + n) if found + n else 0.0
    f1_interval = [2 * bound / (1 + bound) for bound in wilson(hits, union)]

    def rounded(values: Sequence[float]) -> list[float]:
        return [round(value, 4) for value in values]

    return {
        "n": n,
        "found": found,
        "hits": hits,
        "precision": round(hits / found, 4) if found else None,
        "precision_95": rounded(wilson(hits, found)),
        "recall": round(hits / n, 4) if n else None,
        "recall_95": rounded(wilson(hits, n)),
        "f1": round(f1, 4),
        "f1_95": rounded(f1_interval),
    }


def evaluate(
    labels: Sequence[str], scored: Sequence[Mapping[str, float]], thresholds: Sequence[float]
) -> dict[str, Any]:
    """``labels`` are the right ones, ``scored`` the probabilities of each text by label."""
    best = [max(scores, key=lambda name: scores[name], default="") for scores in scored]
    names = sorted(set(labels) | {name for scores in scored for name in scores})
    hits = sum(one == other for one, other in zip(labels, best, strict=True))
    by_label: dict[str, Any] = {}
    by_threshold: dict[str, Any] = {}
    for name in names:
        right = [label == name for label in labels]
        found = [label == name for label in best]
        both = sum(one and other for one, other in zip(right, found, strict=True))
        by_label[name] = measures(both, sum(found), sum(right))
        by_threshold[name] = []
        for threshold in thresholds:
            found = [scores.get(name, 0.0) >= threshold for scores in scored]
            both = sum(one and other for one, other in zip(right, found, strict=True))
            by_threshold[name].append({"threshold": threshold, **measures(both, sum(found), sum(right))})
    low, high = wilson(hits, len(labels))
    present = [row["f1"] for row in by_label.values() if row["n"]]
    return {
        "n": len(labels),
        "accuracy": round(hits / len(labels), 4) if labels else None,
        "accuracy_95": [round(low, 4), round(high, 4)],
        "macro_f1": round(sum(present) / len(present), 4) if present else None,
        "labels": by_label,
        "thresholds": by_threshold,
    }


def tables(evaluation: Mapping[str, Any]) -> str:
    """Markdown of what ``evaluate`` gives."""
    blocks = [
        [["label", "n", "found", "precision", "recall", "F1"]]
        + [[name, *_cells(row)] for name, row in evaluation["labels"].items()]
    ]
    for name, rows in evaluation["thresholds"].items():
        head = [f"{name} ≥", "n", "found", "precision", "recall", "F1"]
        blocks.append([head] + [[f"{row['threshold']:g}", *_cells(row)] for row in rows])
    low, high = evaluation["accuracy_95"]
    shown = "-" if evaluation["accuracy"] is None else f"{evaluation['accuracy']:.3f} ({low:.3f}-{high:.3f})"
    first = f"{evaluation['n']} texts, accuracy {shown}"
    return "\n\n".join([first, *map(_markdown_table, blocks)]) + "\n"


def _cells(row: Mapping[str, Any]) -> list[str]:
    def cell(name: str) -> str:
        low, high = row[f"{name}_95"]
        return "-" if row[name] is None else f"{row[name]:.3f} ({low:.3f}-{high:.3f})"

    return [str(row["n"]), str(row["found"]), cell("precision"), cell("recall"), cell("f1")]


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return "| " + " | ".join([first, *(other.strip().rjust(len(other)) for other in others)]) + " |"

    rule = "| " + " | ".join(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]) + " |"
    return "\n".join([line(head), rule, *map(line, body)])

"""docs/formats/results.md, version 1: scores of one checkpoint, with what is needed to derive them again."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from catwalk.formats.contract import Fields, FormatError, Reader, read_object, read_rows
from catwalk.formats.manifest import check_counts, check_files, find_manifest

__all__ = [
    "ITEMS",
    "METRICS",
    "PER_DOCUMENT",
    "PREDICTIONS",
    "READERS",
    "RESULTS",
    "count",
    "dump",
    "read_document_scores",
    "read_predictions",
    "read_results",
    "validate",
]

RESULTS = "results.json"
PREDICTIONS = "predictions.jsonl.gz"
PER_DOCUMENT = "perplexity.jsonl.gz"
ITEMS = "items.jsonl.gz"
METRICS = (
    *("acc_raw", "acc_per_token", "acc_per_char", "acc_per_byte", "acc_unconditional"),
    *("bits_per_byte_gold", "probability_mass"),
)
_RELATIVE_TOLERANCE = 1e-6  # docs/formats/results.md, "Errors"


def read_results(directory: Path, *, checksums: bool = False) -> dict[str, Any]:
    """`results.json`, every field checked, and the manifest when there is one.

    Raises:
        FormatError: `missing_field`, `wrong_type`, `invalid_value`, and the manifest's.
    """
    if manifest := find_manifest(directory, "results"):
        for error in check_files(manifest, checksums=checksums):
            raise error
    path = directory / RESULTS
    value = read_object(path)
    record = Fields(value, path)
    name = record.string("format")
    if name != "results":
        raise record.error("unknown_format", "format", f'is "{name}"; expected results')
    version = record.integer("version", minimum=1)
    if version > 1:
        raise record.error("unsupported_version", "version", f"is {version}; this reader reads 1 to 1")
    model = record.object("model")
    for key in ("name", "architecture", "dtype"):
        model.string(key)
    model.integer("parameters")
    model.integer("vocab_size")
    model.hash_or_null("tokenizer_sha256")
    model.hash_or_null("manifest_sha256")
    inference = record.object("inference")
    inference.string("dtype")
    inference.integer("max_length_tokens", minimum=1)
    inference.string("windowing", choices=("strict-disjoint", "paloma-reference"))
    inference.string("prefix", choices=("bos", "eos"))
    previous: tuple[str, ...] = ()
    for task in record.objects("tasks"):
        name = _check_task(task)
        _check_order(task, (name,), previous)
        previous = (name,)
    previous = ()
    for domain in record.objects("perplexity"):
        domain_key = _check_domain(domain)
        _check_order(domain, domain_key, previous)
        previous = domain_key
    return value


def _check_order(record: Fields, key: tuple[str, ...], previous: tuple[str, ...]) -> None:
    if previous and key <= previous:
        name = record.prefix
        message = f'"{name}" is {"/".join(key)} after {"/".join(previous)}; expected each once, sorted'
        raise FormatError("invalid_value", record.path, message, field=name)


def _check_task(task: Fields) -> str:
    name = task.string("task", not_empty=True)
    task.string("split")
    task.integer("num_shots")
    items = task.integer("items")
    task.number("choices_mean")
    primary = task.string("primary_metric")
    metrics = task.object("metrics")
    kind = task.value.get("kind", "choices")
    for metric in metrics.value:
        if kind == "choices" and metric not in METRICS:
            raise metrics.error("invalid_value", metric, f"is not a metric; expected one of {', '.join(METRICS)}")
        entry = metrics.object(metric)
        value = entry.number("value")
        if metric.startswith("acc_") and not 0 <= value <= 1:
            raise entry.error("invalid_value", "value", f"is {value}; expected 0 to 1")
        _check_stderr(entry)
        if entry.integer("n") > items:
            raise entry.error("invalid_value", "n", f"is {entry.value['n']}; the task has {items} items")
    if primary not in metrics.value:
        raise task.error("invalid_value", "primary_metric", f'is "{primary}"; expected one of "metrics"')
    return name


def _check_stderr(entry: Fields) -> None:
    stderr = entry.number_or_null("stderr")
    if stderr is not None and stderr < 0:
        raise entry.error("invalid_value", "stderr", f"is {stderr}; expected at least 0")


def _check_domain(domain: Fields) -> tuple[str, str]:
    key = (domain.string("source"), domain.string("subdomain"))
    for count in ("documents", "tokens", "bytes", "chars", "words"):
        domain.integer(count)
    nll_nats = domain.number("nll_nats")
    if nll_nats < 0:
        raise domain.error("invalid_value", "nll_nats", f"is {nll_nats}; expected at least 0")
    if nll_nats == 0 and domain.value["tokens"]:
        tokens = domain.value["tokens"]
        raise domain.error("invalid_value", "nll_nats", f"is 0 for {tokens} tokens; expected more than 0")
    ratio = domain.object("bits_per_byte")
    value = ratio.number_or_null("value")
    _check_stderr(ratio)
    ratio.integer("n")
    size_bytes = domain.value["bytes"]
    derived = nll_nats / (size_bytes * math.log(2)) if size_bytes else None
    if (value is None) != (derived is None) or not math.isclose(value or 0, derived or 0, rel_tol=_RELATIVE_TOLERANCE):
        raise ratio.error("invalid_value", "value", f"is {value}; the sums give {derived}")
    return key


def read_predictions(directory: Path) -> Iterator[dict[str, Any]]:
    """The rows of `predictions.jsonl.gz`, checked."""
    path = directory / PREDICTIONS
    if not path.is_file():
        raise FormatError("missing_file", path, "the file is absent; expected the predictions")
    for line, value in read_rows(path):
        record = Fields(value, path, line)
        record.string("task", not_empty=True)
        record.string("id", not_empty=True)
        if "choices" not in value and "scores" in value:
            scores = record.object("scores")
            for metric in scores.value:
                scores.number(metric)
            yield value
            continue
        label = record.integer("label")
        choices = list(record.objects("choices"))
        for choice in choices:
            sums = {"sum_logprob": choice.number("sum_logprob")}
            sums["sum_logprob_unconditional"] = choice.number_or_null("sum_logprob_unconditional") or 0.0
            for name, value_nats in sums.items():
                if value_nats > 0:
                    message = f"is {value_nats}; a log-probability is at most 0"
                    raise choice.error("invalid_value", name, message)
            for count in ("tokens", "chars", "bytes"):
                choice.integer(count, minimum=1)
        if label >= len(choices):
            raise record.error("out_of_range", "label", f"is {label}; there are {len(choices)} choices")
        predicted = record.object("predicted")
        for metric in predicted.value:
            if predicted.integer(metric) >= len(choices):
                message = f"is {predicted.value[metric]}; there are {len(choices)} choices"
                raise predicted.error("out_of_range", metric, message)
        yield value


def read_document_scores(directory: Path) -> Iterator[dict[str, Any]]:
    """The rows of `perplexity.jsonl.gz` (an addition of this package), checked; nothing when the file is absent."""
    path = directory / PER_DOCUMENT
    if not path.is_file():
        return
    for line, value in read_rows(path):
        record = Fields(value, path, line)
        for key in ("source", "subdomain", "id"):
            record.string(key)
        for key in ("tokens", "bytes", "chars", "words"):
            record.integer(key)
        nll_nats = record.number("nll_nats")
        if nll_nats < 0 or (nll_nats and not value["tokens"]):
            message = f"is {nll_nats} for {value['tokens']} tokens; expected at least 0, and 0 without tokens"
            raise record.error("invalid_value", "nll_nats", message)
        yield value


def dump(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each task and domain, after every row of the other files is checked.

    That every stored number follows from the rows is for `catwalk verify` to say.
    """
    results = read_results(path, checksums=True)
    if (path / PREDICTIONS).is_file():
        for _ in read_predictions(path):
            pass
    for _ in read_document_scores(path):
        pass
    yield from results["tasks"]
    yield from results["perplexity"]


def validate(path: Path) -> None:
    """Check results in full: fields, ratios, rows, checksums and counts.

    Raises:
        FormatError: the first error.
    """
    rows = list(dump(path))
    if manifest := find_manifest(path, "results"):
        totals = [sum(numbers) for numbers in zip(*map(count, rows), strict=True)] or [0, 0, 0]
        for error in check_counts(manifest, dict(zip(("tasks", "items", "domains"), totals, strict=True))):
            raise error


def count(row: dict[str, Any]) -> tuple[int, int, int]:
    """Tasks, items and domains of a row."""
    return (1, row["items"], 0) if "task" in row else (0, 0, 1)


READERS = {"results": Reader(dump, ("tasks", "items", "domains"), count)}

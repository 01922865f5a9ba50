"""docs/formats/results.md, version 1: scores of one checkpoint, with what is needed to derive them again."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from catwalk.formats.errors import FormatError
from catwalk.formats.fields import Record
from catwalk.formats.json_lines import read_object, read_rows
from catwalk.formats.manifest import MANIFEST, check_files, read_manifest

__all__ = [
    "METRICS",
    "PER_DOCUMENT",
    "PREDICTIONS",
    "RESULTS",
    "dump",
    "read_document_scores",
    "read_predictions",
    "read_results",
    "validate",
]

RESULTS = "results.json"
PREDICTIONS = "predictions.jsonl.gz"
PER_DOCUMENT = "perplexity.jsonl.gz"
METRICS = (
    *("acc_raw", "acc_per_token", "acc_per_char", "acc_per_byte", "acc_unconditional"),
    *("bits_per_byte_gold", "probability_mass"),
)
_RELATIVE_TOLERANCE = 1e-6  # docs/formats/results.md, "Errors"


def read_results(directory: Path, *, hashes: bool = False) -> dict[str, Any]:
    """`results.json`, every field checked, and the manifest when there is one.

    Raises:
        FormatError: `missing_field`, `wrong_type`, `invalid_value`, and the manifest's.
    """
    if (directory / MANIFEST).is_file():
        check_files(directory, read_manifest(directory, "results"), hashes=hashes)
    path = directory / RESULTS
    value = read_object(path)
    record = Record(value=value, path=path)
    name = record.text("format")
    if name != "results":
        raise record.error("unknown_format", "format", f'is "{name}"; expected results')
    version = record.integer("version", minimum=1)
    if version > 1:
        raise record.error("unsupported_version", "version", f"is {version}; this reader reads 1 to 1")
    model = record.record("model")
    for key in ("name", "architecture", "dtype"):
        model.text(key)
    model.integer("parameters")
    model.integer("vocab_size")
    model.hash("tokenizer_sha256", or_null=True)
    model.hash("manifest_sha256", or_null=True)
    inference = record.record("inference")
    inference.text("dtype")
    inference.integer("max_length_tokens", minimum=1)
    inference.text("windowing", choices=("strict-disjoint", "paloma-reference"))
    inference.text("prefix", choices=("bos", "eos"))
    previous: tuple[str, ...] = ()
    for task in record.records("tasks"):
        name = _check_task(task)
        _check_order(task, (name,), previous)
        previous = (name,)
    previous = ()
    for domain in record.records("perplexity"):
        domain_key = _check_domain(domain)
        _check_order(domain, domain_key, previous)
        previous = domain_key
    return value


def _check_order(record: Record, key: tuple[str, ...], previous: tuple[str, ...]) -> None:
    if previous and key <= previous:
        name = record.prefix.removesuffix(".")
        message = f'"{name}" is {"/".join(key)} after {"/".join(previous)}; expected each once, sorted'
        raise FormatError("invalid_value", record.path, message, field=name)


def _check_task(task: Record) -> str:
    name = task.text("task", empty=False)
    task.text("split")
    task.integer("num_shots")
    items = task.integer("items")
    task.number("choices_mean")
    primary = task.text("primary_metric")
    metrics = task.record("metrics")
    for metric in metrics.value:
        if metric not in METRICS:
            raise metrics.error("invalid_value", metric, f"is not a metric; expected one of {', '.join(METRICS)}")
        entry = metrics.record(metric)
        value = entry.number("value")
        if metric.startswith("acc_") and not 0 <= value <= 1:
            raise entry.error("invalid_value", "value", f"is {value}; expected 0 to 1")
        _check_stderr(entry)
        if entry.integer("n") > items:
            raise entry.error("invalid_value", "n", f"is {entry.value['n']}; the task has {items} items")
    if primary not in metrics.value:
        raise task.error("invalid_value", "primary_metric", f'is "{primary}"; expected one of "metrics"')
    return name


def _check_stderr(entry: Record) -> None:
    stderr = entry.number_or_null("stderr")
    if stderr is not None and stderr < 0:
        raise entry.error("invalid_value", "stderr", f"is {stderr}; expected at least 0")


def _check_domain(domain: Record) -> tuple[str, str]:
    key = (domain.text("source"), domain.text("subdomain"))
    for count in ("documents", "tokens", "bytes", "chars", "words"):
        domain.integer(count)
    nll_nats = domain.number("nll_nats")
    if nll_nats < 0:
        raise domain.error("invalid_value", "nll_nats", f"is {nll_nats}; expected at least 0")
    if nll_nats == 0 and domain.value["tokens"]:
        tokens = domain.value["tokens"]
        raise domain.error("invalid_value", "nll_nats", f"is 0 for {tokens} tokens; expected more than 0")
    ratio = domain.record("bits_per_byte")
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
        record = Record(value=value, path=path, line=line)
        record.text("task", empty=False)
        record.text("id", empty=False)
        label = record.integer("label")
        choices = list(record.records("choices"))
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
        predicted = record.record("predicted")
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
        record = Record(value=value, path=path, line=line)
        for key in ("source", "subdomain", "id"):
            record.text(key)
        for key in ("tokens", "bytes", "chars", "words"):
            record.integer(key)
        nll_nats = record.number("nll_nats")
        if nll_nats < 0 or (nll_nats and not value["tokens"]):
            message = f"is {nll_nats} for {value['tokens']} tokens; expected at least 0, and 0 without tokens"
            raise record.error("invalid_value", "nll_nats", message)
        yield value


def validate(path: Path) -> None:
    """Full check of a results directory: fields, ratios, rows, manifest, hashes, counts.

    That every stored number follows from the rows is `catwalk verify`'s to say.
    """
    results = read_results(path, hashes=True)
    if (path / PREDICTIONS).is_file():
        for _ in read_predictions(path):
            pass
    for _ in read_document_scores(path):
        pass
    if (path / MANIFEST).is_file():
        counts = Record(value=read_manifest(path, "results")["counts"], path=path / MANIFEST, prefix="counts.")
        for key, count in _counts(results).items():
            if counts.integer(key) != count:
                raise counts.error("invalid_value", key, f"is {counts.value[key]}; {RESULTS} gives {count}")


def _counts(results: dict[str, Any]) -> dict[str, int]:
    return {
        "tasks": len(results["tasks"]),
        "items": sum(task["items"] for task in results["tasks"]),
        "domains": len(results["perplexity"]),
    }


def dump(path: Path) -> Iterator[dict[str, Any]]:
    """Head line, then a row a task, then a row a domain."""
    results = read_results(path)
    yield {"format": "results", "version": 1, "counts": _counts(results)}
    yield from results["tasks"]
    yield from results["perplexity"]

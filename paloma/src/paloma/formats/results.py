"""docs/formats/results.md, version 1: what catwalk measured, as sums from which everything else is derived."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from paloma.formats.contract import Fields, FormatError, Reader, decode_object, read_lines, read_object
from paloma.formats.manifest import check_files, find_manifest

__all__ = ["READERS", "Domain", "Inference", "Model", "Results", "count", "dump", "parse_results", "read_results"]

RESULTS = "results.json"
PREDICTIONS = "predictions.jsonl.gz"
_VERSION = 1
_RATIO_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Domain:
    """Sums of one domain over its documents; `nll_nats` is the sum of −ln p of the scored tokens."""

    source: str
    subdomain: str
    documents: int
    tokens: int
    bytes: int
    chars: int
    words: int
    nll_nats: float
    bits_per_byte_stderr: float | None

    @property
    def name(self) -> str:
        """`source` or `source/subdomain`."""
        return f"{self.source}/{self.subdomain}" if self.subdomain else self.source


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """What was scored."""

    name: str
    architecture: str
    parameters: int
    vocab_size: int
    dtype: str
    tokenizer_sha256: str | None
    manifest_sha256: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Inference:
    """How it was scored."""

    dtype: str
    max_length_tokens: int
    windowing: str
    prefix: str
    split: str | None = None
    """of the documents; None where they have none, or in results of older writers"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """One results artifact; `tasks` as the file has them, for they are not this package's business."""

    path: Path
    model: Model
    inference: Inference
    domains: tuple[Domain, ...]
    tasks: tuple[dict[str, Any], ...]


def _parse_model(fields: Fields) -> Model:
    return Model(
        name=fields.string("name"),
        architecture=fields.string("architecture"),
        parameters=fields.integer("parameters"),
        vocab_size=fields.integer("vocab_size"),
        dtype=fields.string("dtype"),
        tokenizer_sha256=fields.hash_or_null("tokenizer_sha256"),
        manifest_sha256=fields.hash_or_null("manifest_sha256"),
    )


def _parse_inference(fields: Fields) -> Inference:
    return Inference(
        dtype=fields.string("dtype"),
        max_length_tokens=fields.integer("max_length_tokens", minimum=1),
        windowing=fields.string("windowing", choices=("strict-disjoint", "paloma-reference")),
        prefix=fields.string("prefix", choices=("bos", "eos")),
        split=fields.optional_string("split"),
    )


def _parse_score(fields: Fields) -> dict[str, float | int | None]:
    return {
        "value": fields.number_or_null("value"),
        "stderr": fields.number_or_null("stderr", minimum=0.0),
        "n": fields.integer("n"),
    }


def _parse_task(fields: Fields) -> dict[str, Any]:
    metrics = fields.object("metrics")
    task = {
        "task": fields.string("task", not_empty=True),
        "split": fields.string("split"),
        "num_shots": fields.integer("num_shots"),
        "items": fields.integer("items"),
        "choices_mean": fields.number("choices_mean", minimum=0.0),
        "primary_metric": fields.string("primary_metric"),
        "metrics": {name: _parse_score(metrics.object(name)) for name in metrics.value},
    }
    if task["primary_metric"] not in metrics.value:
        message = f'is "{task["primary_metric"]}"; expected one of the metrics ({", ".join(metrics.value)})'
        raise fields.error("invalid_value", "primary_metric", message)
    return task


def _parse_domain(fields: Fields) -> Domain:
    score = fields.object("bits_per_byte")
    parsed = _parse_score(score)
    domain = Domain(
        source=fields.string("source"),
        subdomain=fields.string("subdomain"),
        documents=fields.integer("documents"),
        tokens=fields.integer("tokens"),
        bytes=fields.integer("bytes"),
        chars=fields.integer("chars"),
        words=fields.integer("words"),
        nll_nats=fields.number("nll_nats", minimum=0.0),
        bits_per_byte_stderr=parsed["stderr"],
    )
    if domain.tokens and not domain.nll_nats:
        message = f"is 0 for {domain.tokens} tokens; expected more than 0"
        raise fields.error("invalid_value", "nll_nats", message)
    stored = parsed["value"]
    derived = domain.nll_nats / (domain.bytes * math.log(2)) if domain.bytes else None
    if (stored is None) != (derived is None) or (
        stored is not None and derived is not None and not math.isclose(stored, derived, rel_tol=_RATIO_TOLERANCE)
    ):
        raise score.error("invalid_value", "value", f"is {stored}; expected {derived}, as the sums give")
    return domain


def _check_order(place: str, path: Path, keys: list[tuple[str, ...]]) -> None:
    for position, (one, other) in enumerate(pairwise(keys), start=1):
        if other <= one:
            field = f"{place}.{position}"
            message = f'"{field}" is {" ".join(other)!r} after {" ".join(one)!r}; expected sorted rows, each once'
            raise FormatError("invalid_value", path, message, field=field)


def parse_results(value: dict[str, Any], path: Path) -> Results:
    """An object of results that stood at `path`.

    Raises:
        FormatError: with the codes of the contract.
    """
    fields = Fields(value, path)
    if (name := fields.string("format")) != "results":
        raise fields.error("unknown_format", "format", f'is "{name}"; expected results')
    version = fields.integer("version", minimum=1)
    if version > _VERSION:
        message = f'"version" is {version}; expected 1 to {_VERSION}, which this release reads'
        raise FormatError("unsupported_version", path, message, field="version", hint="upgrade paloma-eval")
    results = Results(
        path=path,
        model=_parse_model(fields.object("model")),
        inference=_parse_inference(fields.object("inference")),
        tasks=tuple(_parse_task(task) for task in fields.objects("tasks")),
        domains=tuple(_parse_domain(domain) for domain in fields.objects("perplexity")),
    )
    _check_order("tasks", path, [(task["task"],) for task in results.tasks])
    _check_order("perplexity", path, [(domain.source, domain.subdomain) for domain in results.domains])
    return results


def _results_path(path: Path) -> Path:
    return path / RESULTS if path.is_dir() else path


def read_results(path: Path) -> Results:
    """The results in a directory or a file, every field checked.

    Raises:
        FormatError: of the manifest, where there is one, or of `results.json`.
    """
    if manifest := find_manifest(path, "results"):
        for error in check_files(manifest, checksums=False):
            raise error
    file = _results_path(path)
    return parse_results(read_object(file), file)


def _check_prediction(fields: Fields, tasks: set[str]) -> None:
    fields.string("task", choices=sorted(tasks))
    fields.string("id")
    label = fields.integer("label")
    choices = fields.objects("choices")
    for choice in choices:
        sums = {
            "sum_logprob": choice.number("sum_logprob"),
            "sum_logprob_unconditional": choice.number_or_null("sum_logprob_unconditional"),
        }
        for name, value in sums.items():
            if value is not None and value > 0:
                raise choice.error("invalid_value", name, f"is {value}; expected a log-probability of at most 0")
        for name in ("tokens", "chars", "bytes"):
            choice.integer(name)
    predicted = fields.object("predicted")
    positions = [(fields, "label", label), *((predicted, name, predicted.integer(name)) for name in predicted.value)]
    for owner, name, position in positions:
        if position >= len(choices):
            raise owner.error("out_of_range", name, f"is {position}; expected one of {len(choices)} choices")


def dump(path: Path) -> Iterator[dict[str, Any] | FormatError]:
    """Yield a row for each task and domain, and the errors of predictions."""
    results = read_results(path)
    stored = read_object(_results_path(path))["perplexity"]
    yield from results.tasks
    for domain, row in zip(results.domains, stored, strict=True):
        values = asdict(domain)
        del values["bits_per_byte_stderr"]
        yield values | {"bits_per_byte": _parse_score(Fields(row["bits_per_byte"], results.path))}
    predictions = _results_path(path).parent / PREDICTIONS
    if not predictions.is_file():
        return
    tasks = {task["task"] for task in results.tasks}
    for line, raw in read_lines(predictions):
        try:
            _check_prediction(Fields(decode_object(raw, predictions, line), predictions, line), tasks)
        except FormatError as error:
            yield error


def count(row: dict[str, Any]) -> tuple[int, int, int]:
    """Tasks, items and domains of a row."""
    return (1, row["items"], 0) if "task" in row else (0, 0, 1)


READERS = {"results": Reader(dump, ("tasks", "items", "domains"), count)}

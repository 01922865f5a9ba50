"""docs/formats/results.md, version 1: what catwalk measured, as sums from which everything else is derived."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from paloma.formats.errors import FormatError
from paloma.formats.fields import Fields
from paloma.formats.json_lines import decode, read_lines, read_object
from paloma.formats.manifest import MANIFEST, check_files, read_manifest

__all__ = ["Domain", "Inference", "Model", "Results", "dump", "parse_results", "read_results", "validate"]

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
        name=fields.text("name"),
        architecture=fields.text("architecture"),
        parameters=fields.integer("parameters"),
        vocab_size=fields.integer("vocab_size"),
        dtype=fields.text("dtype"),
        tokenizer_sha256=fields.hash("tokenizer_sha256", nullable=True),
        manifest_sha256=fields.hash("manifest_sha256", nullable=True),
    )


def _parse_inference(fields: Fields) -> Inference:
    return Inference(
        dtype=fields.text("dtype"),
        max_length_tokens=fields.integer("max_length_tokens", minimum=1),
        windowing=fields.one_of("windowing", ("strict-disjoint", "paloma-reference")),
        prefix=fields.one_of("prefix", ("bos", "eos")),
        split=fields.optional_text("split"),
    )


def _parse_score(fields: Fields) -> dict[str, float | int | None]:
    return {
        "value": fields.nullable_number("value"),
        "stderr": fields.nullable_number("stderr", minimum=0.0),
        "n": fields.integer("n"),
    }


def _parse_task(fields: Fields) -> dict[str, Any]:
    metrics = fields.object("metrics")
    task = {
        "task": fields.text("task", not_empty=True),
        "split": fields.text("split"),
        "num_shots": fields.integer("num_shots"),
        "items": fields.integer("items"),
        "choices_mean": fields.number("choices_mean", minimum=0.0),
        "primary_metric": fields.text("primary_metric"),
        "metrics": {name: _parse_score(metrics.object(name)) for name in metrics.value},
    }
    if task["primary_metric"] not in metrics.value:
        got, known = f'"{task["primary_metric"]}"', ", ".join(metrics.value)
        raise fields.error("invalid_value", "primary_metric", got, f"one of the metrics ({known})")
    return task


def _parse_domain(fields: Fields) -> Domain:
    score = fields.object("bits_per_byte")
    parsed = _parse_score(score)
    domain = Domain(
        source=fields.text("source"),
        subdomain=fields.text("subdomain"),
        documents=fields.integer("documents"),
        tokens=fields.integer("tokens"),
        bytes=fields.integer("bytes"),
        chars=fields.integer("chars"),
        words=fields.integer("words"),
        nll_nats=fields.number("nll_nats", minimum=0.0),
        bits_per_byte_stderr=parsed["stderr"],
    )
    if domain.tokens and not domain.nll_nats:
        got = f"0 for {domain.tokens} tokens"
        raise fields.error("invalid_value", "nll_nats", got, "more than 0")
    stored = parsed["value"]
    derived = domain.nll_nats / (domain.bytes * math.log(2)) if domain.bytes else None
    if (stored is None) != (derived is None) or (
        stored is not None and derived is not None and not math.isclose(stored, derived, rel_tol=_RATIO_TOLERANCE)
    ):
        raise score.error("invalid_value", "value", f"{stored}", f"{derived}, which the sums give")
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
    fields.one_of("format", ("results",), "unknown_format")
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
    if (path / MANIFEST).is_file():
        for error in check_files(path, read_manifest(path, "results"), hashes=False):
            raise error
    file = _results_path(path)
    return parse_results(read_object(file), file)


def _check_prediction(fields: Fields, tasks: set[str]) -> None:
    fields.one_of("task", sorted(tasks))
    fields.text("id")
    label = fields.integer("label")
    choices = fields.objects("choices")
    for choice in choices:
        sums = {
            "sum_logprob": choice.number("sum_logprob"),
            "sum_logprob_unconditional": choice.nullable_number("sum_logprob_unconditional"),
        }
        for name, value in sums.items():
            if value is not None and value > 0:
                raise choice.error("invalid_value", name, str(value), "a log-probability of at most 0")
        for name in ("tokens", "chars", "bytes"):
            choice.integer(name)
    predicted = fields.object("predicted")
    positions = [(fields, "label", label), *((predicted, name, predicted.integer(name)) for name in predicted.value)]
    for owner, name, position in positions:
        if position >= len(choices):
            raise owner.error("out_of_range", name, str(position), f"a position among {len(choices)} choices")


def validate(path: Path, counted: dict[str, int]) -> Iterator[FormatError]:
    """Everything wrong with the results and their predictions; `counted` gets the counts."""
    results = read_results(path)
    counted |= {
        "tasks": len(results.tasks),
        "items": sum(task["items"] for task in results.tasks),
        "domains": len(results.domains),
    }
    predictions = _results_path(path).parent / PREDICTIONS
    if not predictions.is_file():
        return
    tasks = {task["task"] for task in results.tasks}
    try:
        for line, data in read_lines(predictions):
            try:
                _check_prediction(Fields(decode(data, predictions, line), predictions, line), tasks)
            except FormatError as error:
                yield error
    except FormatError as error:  # the file itself ends early
        yield error


def dump(path: Path) -> Iterator[dict[str, Any]]:
    """The head line, a row a task, a row a domain."""
    results = read_results(path)
    stored = read_object(_results_path(path))["perplexity"]
    counts: dict[str, int] = {}
    list(validate(path, counts))
    yield {"format": "results", "version": 1, "counts": counts}
    yield from results.tasks
    for domain, row in zip(results.domains, stored, strict=True):
        values = asdict(domain)
        del values["bits_per_byte_stderr"]
        yield values | {"bits_per_byte": _parse_score(Fields(row["bits_per_byte"], results.path))}

"""Derive every stored number again from the rows, and say which one differs."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from catwalk.errors import ConfigError
from catwalk.formats.results import PER_DOCUMENT, read_document_scores, read_predictions, read_results, validate
from catwalk.results.write import prediction_row, task_row
from catwalk.scoring.perplexity import domain_rows
from catwalk.types import DocumentScore, ItemScore

__all__ = ["read_document_rows", "read_item_scores", "verify", "verify_all"]

_RELATIVE_TOLERANCE = 1e-9  # ten significant digits are stored


def read_item_scores(directory: Path) -> dict[str, list[ItemScore]]:
    """Scores by task from predictions.jsonl.gz, in the order of the file."""
    tasks: dict[str, list[ItemScore]] = {}
    for row in read_predictions(directory):
        choices = row["choices"]
        tasks.setdefault(row["task"], []).append(
            ItemScore(
                id=row["id"],
                label=row["label"],
                sum_logprobs=tuple(choice["sum_logprob"] for choice in choices),
                sum_logprobs_unconditional=tuple(choice["sum_logprob_unconditional"] for choice in choices),
                tokens=tuple(choice["tokens"] for choice in choices),
                chars=tuple(choice["chars"] for choice in choices),
                bytes=tuple(choice["bytes"] for choice in choices),
            )
        )
    return tasks


def read_document_rows(directory: Path) -> list[DocumentScore]:
    """Scores of documents from perplexity.jsonl.gz; empty when the run had none."""
    return [DocumentScore(**row) for row in read_document_scores(directory)]


def verify(directory: Path) -> Iterator[str]:
    """A sentence for every number that the rows do not give.

    Raises:
        FormatError: when a file is damaged or breaks the format (the manifest's hashes included).
    """
    validate(directory)
    results = read_results(directory)
    scores = read_item_scores(directory) if results["tasks"] else {}
    for stored in results["tasks"]:
        name = stored["task"]
        if name not in scores:
            yield f"{name}: no predictions are stored"
            continue
        derived = task_row(name, stored["split"], stored["primary_metric"], scores[name])
        yield from _differences(name, stored, derived)
        yield from _repeated(f"{name} item", [score.id for score in scores[name]])
    for name in sorted(scores.keys() - {task["task"] for task in results["tasks"]}):
        yield f"{name}: predictions are stored, but results.json lacks the task"
    for row in read_predictions(directory) if results["tasks"] else ():
        score = ItemScore(**_columns(row))
        yield from _differences(f"{row['task']} item {row['id']}", row, prediction_row(row["task"], score))
    documents = read_document_rows(directory)
    if results["perplexity"] and not documents:
        yield f"perplexity: {PER_DOCUMENT} not found; expected the document rows that its numbers follow from"
        return
    try:
        derived_domains = domain_rows(documents)
    except ValueError as error:  # tokens that cost no bits, or sums that overflow
        yield str(error)
        return
    yield from _differences("perplexity", results["perplexity"], derived_domains)


def _repeated(what: str, names: Sequence[str]) -> Iterator[str]:
    counts = Counter(names)
    yield from (f"{what} {name} appears {count} times" for name, count in counts.items() if count > 1)


def verify_all(directories: Sequence[Path]) -> Iterator[str]:
    """`verify` of several results, each sentence with its directory.

    Raises:
        ConfigError: when one is not a directory.
    """
    for directory in directories:
        if not directory.is_dir():
            raise ConfigError(f"results: {directory} is absent; expected a results directory")
    for directory in directories:
        yield from (f"{directory}: {line}" for line in verify(directory))


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    names = {
        "sum_logprobs": "sum_logprob",
        "sum_logprobs_unconditional": "sum_logprob_unconditional",
        "tokens": "tokens",
        "chars": "chars",
        "bytes": "bytes",
    }
    columns = {name: tuple(choice[key] for choice in row["choices"]) for name, key in names.items()}
    return {"id": row["id"], "label": row["label"], **columns}


def _differences(where: str, stored: Any, derived: Any) -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(derived, dict):
        for key in sorted(stored.keys() | derived.keys()):
            if key not in stored or key not in derived:
                yield f'{where}: "{key}" is {"absent" if key not in stored else "not derivable from the rows"}'
            else:
                yield from _differences(f"{where}.{key}", stored[key], derived[key])
    elif isinstance(stored, list) and isinstance(derived, list) and len(stored) == len(derived):
        for index, (left, right) in enumerate(zip(stored, derived, strict=True)):
            yield from _differences(f"{where}.{index}", left, right)
    elif not _equal(stored, derived):
        yield f"{where} is {stored}; the rows give {derived}"


def _equal(stored: Any, derived: Any) -> bool:
    if isinstance(stored, (int, float)) and isinstance(derived, (int, float)):
        return math.isclose(stored, derived, rel_tol=_RELATIVE_TOLERANCE, abs_tol=1e-12)
    return bool(stored == derived)

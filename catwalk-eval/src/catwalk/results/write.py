"""The results artifact: results.json, predictions.jsonl.gz, perplexity.jsonl.gz, manifest.json last."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from catwalk import DISTRIBUTION, __version__
from catwalk.formats.json_lines import atomic_file, canonical_json, canonical_line, write_gzip
from catwalk.formats.manifest import write_manifest
from catwalk.formats.results import PER_DOCUMENT, PREDICTIONS, RESULTS
from catwalk.results.workspace import TaskPart
from catwalk.scoring.choice import predicted, task_metrics
from catwalk.scoring.numbers import round_significant
from catwalk.scoring.perplexity import domain_rows
from catwalk.types import DocumentScore, ItemScore, Task

__all__ = ["prediction_row", "task_row", "write_results"]


def prediction_row(task: str, score: ItemScore) -> dict[str, Any]:
    """A row of predictions.jsonl.gz."""
    choices = zip(
        *(score.sum_logprobs, score.tokens, score.chars, score.bytes, score.sum_logprobs_unconditional), strict=True
    )
    names = ("sum_logprob", "tokens", "chars", "bytes", "sum_logprob_unconditional")
    return {
        "task": task,
        "id": score.id,
        "label": score.label,
        "choices": [dict(zip(names, choice, strict=True)) for choice in choices],
        "predicted": predicted(score),
    }


def task_row(name: str, split: str, primary_metric: str, scores: Sequence[ItemScore]) -> dict[str, Any]:
    """An entry of `tasks` in results.json."""
    return {
        "task": name,
        "split": split,
        "num_shots": 0,
        "items": len(scores),
        "choices_mean": round_significant(sum(len(score.tokens) for score in scores) / len(scores)),
        "primary_metric": primary_metric,
        "metrics": task_metrics(scores),
    }


def write_results(
    output: Path,
    *,
    model: dict[str, Any],
    inference: dict[str, Any],
    tasks: Mapping[str, tuple[Task, TaskPart]],
    items_available: Mapping[str, int],
    documents: Sequence[DocumentScore],
    config: dict[str, Any],
    inputs: list[dict[str, Any]],
) -> None:
    """Write the artifact; each file is whole or absent, and the manifest comes last."""
    ordered = sorted(tasks.items())
    results: dict[str, Any] = {
        "format": "results",
        "version": 1,
        "model": model,
        "inference": inference,
        "tasks": [task_row(name, task.split, task.primary_metric, part.scores) for name, (task, part) in ordered],
        "perplexity": domain_rows(documents),
    }
    files = [output / RESULTS, output / PREDICTIONS]
    with atomic_file(output / RESULTS) as stream:
        stream.write(canonical_json(results).encode())
    _write_rows(output / PREDICTIONS, _prediction_rows(ordered))
    if documents:
        files.append(output / PER_DOCUMENT)
        _write_rows(output / PER_DOCUMENT, (asdict(score) for score in documents))
    write_manifest(
        output,
        format="results",
        writer=(DISTRIBUTION, __version__),
        files=files,
        config=config,
        counts={
            "tasks": len(ordered),
            "items": sum(len(part.scores) for _, (_, part) in ordered),
            "domains": len(results["perplexity"]),
        },
        details={
            "tasks": {
                name: {
                    "items_available": items_available[name],
                    "truncated_contexts": part.truncated,
                    "border_crossings": part.crossings,
                    "windowed_choices": part.windowed,
                }
                for name, (_, part) in ordered
            }
        },
        inputs=inputs,
    )


def _prediction_rows(ordered: Sequence[tuple[str, tuple[Task, TaskPart]]]) -> Iterator[dict[str, Any]]:
    for name, (_, part) in ordered:
        for score in part.scores:
            yield prediction_row(name, score)


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with write_gzip(path, level=6) as file:
        file.writelines(canonical_line(row).encode() for row in rows)

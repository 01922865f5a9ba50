"""The results artifact (docs/formats/results.md) of an evaluation: rows to means, and the files. No torch."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..formats.contract import WorkError, canonical_json, canonical_line, write_file, write_gzip
from .items import Benchmark, Item, Prompt, Row, Score
from .statistics import Estimate, estimate

__all__ = ["TaskRows", "choice_row", "task_entry", "write_files"]


@dataclass(frozen=True, kw_only=True)
class TaskRows:
    """A benchmark with the rows of its items, and the prompt of each item."""

    benchmark: Benchmark
    items: Sequence[Item]
    prompts: Sequence[Prompt]
    rows: Sequence[Row]
    shots: int
    available: int
    """Items before `limit`."""
    cut: int = 0
    """Prompts that do not fit."""
    warnings: Sequence[str] = ()

    @property
    def details(self) -> dict[str, Any]:
        """What the manifest tells of the task."""
        return {
            "items_available": self.available,
            "truncated_contexts": self.cut,
            "warnings": list(self.warnings),
        }


def choice_row(item: Item, scores: Sequence[Score]) -> Row:
    """The row of an item whose likeliest choice is its answer."""
    sums = [score.sum_logprob for score in scores]
    sizes = [(len(choice), len(choice.encode())) for choice in item.choices]
    normalized = {
        "acc_raw": sums,
        "acc_per_token": [value / score.tokens for value, score in zip(sums, scores, strict=True)],
        "acc_per_char": [value / chars for value, (chars, _) in zip(sums, sizes, strict=True)],
        "acc_per_byte": [value / size for value, (_, size) in zip(sums, sizes, strict=True)],
    }
    return {
        "id": item.id,
        "label": item.label,
        "choices": [
            {"sum_logprob": score.sum_logprob, "tokens": score.tokens, "chars": chars, "bytes": size}
            | {"sum_logprob_unconditional": None}
            for score, (chars, size) in zip(scores, sizes, strict=True)
        ],
        "predicted": {name: values.index(max(values)) for name, values in normalized.items()},
    }


def _metrics(row: Row) -> dict[str, float]:
    """Every metric of a row; a task's metric is their mean."""
    if "choices" not in row:
        return {name: float(value) for name, value in row["scores"].items()}
    gold = row["choices"][row["label"]]
    values = {name: float(index == row["label"]) for name, index in row["predicted"].items()}
    values["bits_per_byte_gold"] = -gold["sum_logprob"] / (gold["bytes"] * math.log(2))
    values["probability_mass"] = math.fsum(math.exp(choice["sum_logprob"]) for choice in row["choices"])
    return values


def _rounded(value: float) -> float:
    if not math.isfinite(value):
        raise WorkError(f"a result is {value}; expected a finite number")
    return float(f"{value:.10g}") if value else 0.0


def _estimates(rows: Sequence[Row]) -> dict[str, Estimate]:
    columns = [_metrics(row) for row in rows]
    clustered = any(row.get("cluster") for row in rows)
    clusters = [str(row.get("cluster") or f"item {row['id']}") for row in rows] if clustered else None
    return {name: estimate([column[name] for column in columns], clusters) for name in columns[0]}


def _means(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "value": _rounded(found.value),
            "stderr": None if found.stderr is None else _rounded(found.stderr),
            "n": found.n,
        }
        for name, found in _estimates(rows).items()
    }


def _intervals(rows: Sequence[Row]) -> dict[str, list[float] | None]:
    return {
        name: None if found.interval is None else [_rounded(end) for end in found.interval]
        for name, found in _estimates(rows).items()
    }


def task_entry(one: TaskRows) -> dict[str, Any]:
    """An entry of `tasks` in results.json."""
    rows, primary = one.rows, one.benchmark.primary_metric
    counts = [len(row.get("choices", ())) for row in rows]
    entry: dict[str, Any] = {
        "task": one.benchmark.name,
        "split": one.benchmark.split,
        "num_shots": one.shots,
        "items": len(rows),
        "choices_mean": _rounded(sum(counts) / len(counts)),
        "primary_metric": primary,
        "metrics": _means(rows),
    }
    if "choices" not in rows[0]:
        entry["kind"] = "generation" if "generation" in rows[0] else "scores"
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("group"):
            groups.setdefault(row["group"], []).append(row)
    if groups:
        subtotals = {name: _means(groups[name])[primary] for name in sorted(groups)}
        macro = sum(subtotal["value"] for subtotal in subtotals.values()) / len(subtotals)
        entry["groups"] = {"subtotals": subtotals, "macro_mean": _rounded(macro)}
    return entry


def write_files(
    directory: Path, *, model: dict[str, Any], inference: dict[str, Any], tasks: Sequence[TaskRows]
) -> list[dict[str, Any]]:
    """Write results.json, predictions.jsonl.gz and items.jsonl.gz; return the entries of `tasks`, sorted by name.

    `intervals`, of 95 %, are an addition to the format: `{task: {metric: [low, high]}}`.
    """
    tasks = sorted(tasks, key=lambda one: one.benchmark.name)
    entries = [task_entry(one) for one in tasks]
    value = {
        "format": "results",
        "version": 1,
        "model": model,
        "inference": inference,
        "tasks": entries,
        "perplexity": [],
        "intervals": {one.benchmark.name: _intervals(one.rows) for one in tasks},
    }
    write_file(directory / "results.json", canonical_json(value).encode())
    _write_rows(
        directory / "predictions.jsonl.gz",
        ({"task": one.benchmark.name, **row} for one in tasks for row in one.rows),
    )
    _write_rows(directory / "items.jsonl.gz", (row for one in tasks for row in _texts(one)))
    return entries


def _texts(one: TaskRows) -> Iterable[dict[str, Any]]:
    for item, prompt in zip(one.items, one.prompts, strict=True):
        text = prompt.text or "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt.messages)
        row = {"task": one.benchmark.name, "id": item.id, "context": text, "continuations": list(item.choices)}
        yield row | ({"references": list(item.references)} if item.references else {})


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with write_gzip(path, level=6) as file:
        file.writelines(canonical_line(row).encode() for row in rows)

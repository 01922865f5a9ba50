"""Groups of lm-evaluation-harness: a number for several tasks, from the tasks' own numbers.

A group's YAML says which metrics it has, and whether each item or each task counts the same (`weight_by_size`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catwalk.metrics import round_significant

__all__ = ["GroupRule", "group_row"]


@dataclass(frozen=True, kw_only=True)
class GroupRule:
    """What a group sums: `by_items` says of each metric whether each item (or else each task) counts the same."""

    name: str
    tasks: tuple[str, ...]
    by_items: Mapping[str, bool]


def group_row(rule: GroupRule, tasks: Mapping[str, dict[str, Any]]) -> dict[str, Any] | None:
    """An entry of `groups` in results.json, from entries of `tasks`; None if a task, or every metric, is missing.

    Standard errors are the harness's: pooled over items, √(Σ (n_k − 1) n_k s_k² / ((N − K) N)), or √Σ s_k² / K.
    """
    if not all(name in tasks for name in rule.tasks):
        return None
    metrics = {}
    for metric, by_items in rule.by_items.items():
        entries = [tasks[name]["metrics"].get(metric) for name in rule.tasks]
        found = [entry for entry in entries if entry is not None]
        if len(found) < len(entries):
            continue  # rather than a number of fewer tasks
        metrics[metric] = {**_sum(found, [tasks[name]["items"] for name in rule.tasks], by_items), "by_items": by_items}
    return {"group": rule.name, "tasks": list(rule.tasks), "metrics": metrics} if metrics else None


def _sum(entries: Sequence[dict[str, Any]], sizes: Sequence[int], by_items: bool) -> dict[str, Any]:
    weights = sizes if by_items else [1] * len(sizes)
    value = math.fsum(w * entry["value"] for w, entry in zip(weights, entries, strict=True)) / sum(weights)
    errors = [entry["stderr"] for entry in entries if entry["stderr"] is not None]
    stderr = None
    if len(errors) == len(entries) and not by_items:
        stderr = math.sqrt(math.fsum(error**2 for error in errors)) / len(errors)
    elif len(errors) == len(entries) and sum(sizes) > len(sizes):
        squares = math.fsum((n - 1) * n * error**2 for n, error in zip(sizes, errors, strict=True))
        stderr = math.sqrt(squares / (sum(sizes) - len(sizes)) / sum(sizes))
    return {
        "value": round_significant(value),
        "stderr": None if stderr is None else round_significant(stderr),
        "n": sum(sizes),
    }

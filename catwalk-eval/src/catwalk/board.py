"""The numbers of a leaderboard: values with intervals, means, and which differences the items can show.

A model is tied with the best of a task unless the exact McNemar test (a sign-flip test for other metrics), with Holm's
correction over the models, separates them. Means over tasks are compared with paired standard errors, √Σ s²_k / K.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from catwalk.results import LoadedResults
from catwalk.rows import row_metrics
from catwalk.statistics import holm, interval, mcnemar_p, minimal_detectable_effect, sign_flip_p, tied_groups
from catwalk.tables import is_share

__all__ = ["Board", "Cell", "build_board"]

_LEVEL = 0.05
_LOWER_IS_BETTER = ("bits_per_byte", "nats_")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model on one task. `tied`: no test separates it from the best."""

    value: float
    low: float
    high: float
    n: int
    tied: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Board:
    """`cells[model][task]` is None without results. `differences[i][j]` is the mean of j − i with its adjusted p.

    `effects` has, for each task, the smallest difference that its items can show (None for fewer than two models).
    `means` are of the primary metrics that are shares (bits per byte are in no mean), with the ends of the interval,
    and `centred` of accuracies centred at chance. None if a task is missing.
    """

    models: list[str]
    tasks: list[str]
    metrics: list[str]
    cells: list[list[Cell | None]]
    means: list[tuple[float, float, float] | None]
    centred: list[float | None]
    letters: list[str]
    differences: list[list[tuple[float, float | None] | None]]
    effects: list[float | None]
    best_of_two: dict[str, list[float | None]]


def is_lower_better(metric: str) -> bool:
    """Whether a smaller value of a metric is better."""
    return metric.startswith(_LOWER_IS_BETTER)


def build_board(models: Sequence[LoadedResults]) -> Board:
    """Every number of the leaderboard."""
    tasks = sorted({name for model in models for name in model.tasks})
    metrics = [_primary(models, task) for task in tasks]
    values = [_values(models, task, metric) for task, metric in zip(tasks, metrics, strict=True)]
    columns = [_column(models, task, metric, found) for task, metric, found in zip(tasks, metrics, values, strict=True)]
    cells = [[column[index] for column in columns] for index in range(len(models))]
    shares = [place for place, metric in enumerate(metrics) if is_share(metric)]  # of the mean: one unit, one direction
    averaged = [[row[place] for place in shares] for row in cells]
    complete = [index for index, row in enumerate(averaged) if row and all(row)]
    differences = _differences(complete, [values[place] for place in shares], len(models))
    differs = [[bool(one and one[1] is not None and one[1] <= _LEVEL) for one in row] for row in differences]
    means = [_mean(row) for row in averaged]
    chosen = [[differs[i][j] for j in complete] for i in complete]
    letters = dict(zip(complete, tied_groups([(means[i] or (0.0,))[0] for i in complete], chosen), strict=True))
    return Board(
        models=[model.label for model in models],
        tasks=tasks,
        metrics=metrics,
        cells=cells,
        means=means,
        centred=[_centred(model, tasks, metrics) for model in models],
        letters=[letters.get(index, "") for index in range(len(models))],
        differences=differences,
        effects=[_effect(found) for found in values],
        best_of_two=_best_of_two(tasks, cells),
    )


def _primary(models: Sequence[LoadedResults], task: str) -> str:
    return str(next(model.tasks[task]["primary_metric"] for model in models if task in model.tasks))


def _values(models: Sequence[LoadedResults], task: str, metric: str) -> list[list[float] | None]:
    """The metric of the items that every model with the task has, in one order."""
    found = [
        {row["id"]: row_metrics(row).get(metric, math.nan) for row in model.rows.get(task, ())} for model in models
    ]
    present = [one for one in found if one]
    shared = sorted(set.intersection(*(set(one) for one in present))) if present else []
    return [[one[id] for id in shared] if one and shared else None for one in found]


def _column(
    models: Sequence[LoadedResults], task: str, metric: str, values: Sequence[list[float] | None]
) -> list[Cell | None]:
    entries = [model.tasks[task]["metrics"].get(metric) if task in model.tasks else None for model in models]
    scored = [index for index, entry in enumerate(entries) if entry is not None]
    if not scored:
        return [None] * len(models)
    sign = -1 if is_lower_better(metric) else 1
    best = max(scored, key=lambda index: sign * (entries[index] or {})["value"])
    tests = [_p(values[best], values[index]) for index in scored]
    adjusted = holm([p if index != best else None for index, p in zip(scored, tests, strict=True)])
    tied = {index for index, p in zip(scored, adjusted, strict=True) if index == best or (p is not None and p > _LEVEL)}
    column: list[Cell | None] = []
    for index, (model, entry) in enumerate(zip(models, entries, strict=True)):
        if entry is None:
            column.append(None)
            continue
        low, high = interval(metric, entry["value"], entry["stderr"], entry["n"]) or (entry["value"],) * 2
        details = model.details.get("tasks", {}).get(task, {})
        column.append(
            Cell(
                value=entry["value"],
                low=low,
                high=high,
                n=entry["n"],
                tied=index in tied,
                warnings=tuple(_warnings(details)),
            )
        )
    return column


def _warnings(details: dict[str, Any]) -> list[str]:
    """What the run counted, in words."""
    texts = {
        "truncated_contexts": "contexts cut to fit the window",
        "border_crossings": "continuations that begin within a token of the context",
        "repeated_items": "items that repeat another",
    }
    found = [f"{details[name]} {text}" for name, text in texts.items() if details.get(name)]
    return [*details.get("warnings", []), *found]


def _p(first: list[float] | None, second: list[float] | None) -> float | None:
    if not first or not second:
        return None
    if set(first) | set(second) <= {0.0, 1.0}:
        pairs = list(zip(first, second, strict=True))
        return mcnemar_p(sum(a > b for a, b in pairs), sum(b > a for a, b in pairs))
    return sign_flip_p([b - a for a, b in zip(first, second, strict=True)], resamples=2000)


def _effect(values: Sequence[list[float] | None]) -> float | None:
    """The minimal detectable effect between two models, from the mean variance of their differences."""
    import numpy as np

    rows = np.asarray([one for one in values if one])
    if len(rows) < 2 or rows.shape[1] < 2:
        return None
    covariance = np.cov(rows)
    pairs = [(i, j) for i in range(len(rows)) for j in range(i)]
    variance = sum(covariance[i, i] + covariance[j, j] - 2 * covariance[i, j] for i, j in pairs) / len(pairs)
    return minimal_detectable_effect(math.sqrt(max(0.0, float(variance)) / rows.shape[1]))


def _mean(row: Sequence[Cell | None]) -> tuple[float, float, float] | None:
    """The mean over all tasks with its interval; None if one is missing, rather than a mean of fewer."""
    found = [cell for cell in row if cell is not None]
    if not found or len(found) < len(row):
        return None
    mean = math.fsum(cell.value for cell in found) / len(found)
    half = math.sqrt(math.fsum(((cell.high - cell.low) / 2) ** 2 for cell in found)) / len(found)
    return mean, mean - half, mean + half


def _centred(model: LoadedResults, tasks: Sequence[str], metrics: Sequence[str]) -> float | None:
    """The mean of (accuracy − chance) / (1 − chance), over the tasks of multiple choice."""
    found = []
    for task, metric in zip(tasks, metrics, strict=True):
        entry = model.tasks.get(task)
        if entry is None:
            return None
        if metric.startswith("acc_") and entry["choices_mean"] > 1:
            chance = 1 / entry["choices_mean"]
            found.append((entry["metrics"][metric]["value"] - chance) / (1 - chance))
    return math.fsum(found) / len(found) if found else None


def _differences(
    complete: Sequence[int], values: Sequence[Sequence[list[float] | None]], count: int
) -> list[list[tuple[float, float | None] | None]]:
    """Mean over tasks of j − i, and its p adjusted for the number of pairs."""
    import numpy as np

    table: list[list[tuple[float, float | None] | None]] = [[None] * count for _ in range(count)]
    tasks = [task for task in values if all(task[index] for index in complete)]
    if len(complete) < 2 or not tasks:
        return table
    size = len(complete)
    means, variances = np.zeros(size), np.zeros((size, size))
    for task in tasks:
        rows = np.asarray([task[index] for index in complete])
        means += rows.mean(axis=1) / len(tasks)
        if rows.shape[1] > 1:
            covariance = np.cov(rows)
            own = np.diag(covariance)
            variances += (own[:, None] + own[None, :] - 2 * covariance) / rows.shape[1] / len(tasks) ** 2
    pairs = [(i, j) for i in range(size) for j in range(i)]
    ps = []
    for i, j in pairs:
        stderr = math.sqrt(max(0.0, float(variances[i, j])))
        gap = abs(float(means[i] - means[j]))
        ps.append(math.erfc(gap / stderr / math.sqrt(2)) if stderr > 1e-12 else float(gap < 1e-12))
    for (i, j), p in zip(pairs, holm(ps), strict=True):
        gap = float(means[j] - means[i])
        table[complete[i]][complete[j]] = (gap, p)
        table[complete[j]][complete[i]] = (-gap, p)
    return table


def _best_of_two(tasks: Sequence[str], cells: Sequence[Sequence[Cell | None]]) -> dict[str, list[float | None]]:
    """OLMES' max of the two formulations, `NAME` and `NAME:letters`. The larger of two noisy numbers is biased."""
    places = {task: index for index, task in enumerate(tasks)}
    found: dict[str, list[float | None]] = {}
    for task in tasks:
        name, _, shots = task.partition("@")
        other = f"{name}:letters" + (f"@{shots}" if shots else "")
        if other in places:
            pairs = [(row[places[task]], row[places[other]]) for row in cells]
            found[task] = [max(one.value, two.value) if one and two else None for one, two in pairs]
    return found

"""The numbers of a leaderboard: values with intervals, means, and which differences the items can show.

A model is tied with the best of a task unless the exact McNemar test (a sign-flip test for other metrics, and of whole
clusters for items that share passages), with Holm's correction over the models, separates them. Means over tasks are
compared with paired standard errors, √Σ s²_k / K, by cluster where there are some.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from catwalk.columns import align
from catwalk.results import LoadedResults
from catwalk.rows import alarms
from catwalk.statistics import (
    cluster_sums,
    holm,
    interval,
    mcnemar_p,
    mean_covariance,
    minimal_detectable_effect,
    normal_p,
    sign_flip_p,
    tied_groups,
)
from catwalk.tables import is_lower_better, is_share

__all__ = ["Board", "Cell", "build_board"]

Array = np.ndarray[Any, np.dtype[np.float64]]

_LEVEL = 0.05
_NOISE = 1e-12  # of sums of float64: smaller is 0


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


def build_board(models: Sequence[LoadedResults]) -> Board:
    """Every number of the leaderboard."""
    tasks = sorted({name for model in models for name in model.tasks})
    metrics = [_primary(models, task) for task in tasks]
    values = [_values(models, task) for task in tasks]
    columns = [_column(models, task, metric, found) for task, metric, found in zip(tasks, metrics, values, strict=True)]
    cells = [[column[index] for column in columns] for index in range(len(models))]
    shares = [place for place, metric in enumerate(metrics) if is_share(metric)]  # of the mean: one unit, one direction
    averaged = [[row[place] for place in shares] for row in cells]
    complete = [index for index, row in enumerate(averaged) if row and all(row)]
    differences = _differences(complete, [values[place] for place in shares], len(models))
    differs = [[bool(one and one[1] is not None and one[1] <= _LEVEL) for one in row] for row in differences]
    means = [_mean(row) for row in averaged]
    compared = [index for index in complete if any(differences[index])]
    chosen = [[differs[i][j] for j in compared] for i in compared]
    letters = dict(zip(compared, tied_groups([(means[i] or (0.0,))[0] for i in compared], chosen), strict=True))
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


@dataclass(frozen=True, kw_only=True)
class _Values:
    """The metric of the items that every model with the task has: `rows[place[model]]`."""

    place: dict[int, int]
    rows: Array
    clusters: tuple[str, ...]


def _values(models: Sequence[LoadedResults], task: str) -> _Values | None:
    """None if no item is shared, or the results have no items."""
    present = [index for index, model in enumerate(models) if task in model.columns]
    if not present:
        return None
    rows, clusters = align([models[index].columns[task] for index in present])
    place = {index: number for number, index in enumerate(present)}
    return _Values(place=place, rows=rows, clusters=clusters) if rows.shape[1] else None


def _column(models: Sequence[LoadedResults], task: str, metric: str, values: _Values | None) -> list[Cell | None]:
    entries = [model.tasks[task]["metrics"].get(metric) if task in model.tasks else None for model in models]
    scored = [index for index, entry in enumerate(entries) if entry is not None]
    if not scored:
        return [None] * len(models)
    sign = -1 if is_lower_better(metric) else 1
    best = max(scored, key=lambda index: sign * (entries[index] or {})["value"])
    tests = [_p(values, best, index, entries) if index != best else None for index in scored]
    tied = {index for index, p in zip(scored, holm(tests), strict=True) if p is None or p > _LEVEL}
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
                warnings=(*details.get("warnings", ()), *alarms(details)),
            )
        )
    return column


def _p(values: _Values | None, first: int, second: int, entries: Sequence[dict[str, Any] | None]) -> float | None:
    """Of no difference between two models: paired, or from their `entries` if there are no common items."""
    if values is None or not {first, second} <= values.place.keys():
        one, two = entries[first] or {}, entries[second] or {}
        if one.get("stderr") is None or two.get("stderr") is None:
            return None
        return normal_p(two["value"] - one["value"], math.hypot(one["stderr"], two["stderr"]))
    one, two = (values.rows[values.place[index]] for index in (first, second))
    if values.clusters:
        return sign_flip_p(cluster_sums((two - one).tolist(), values.clusters), resamples=2000)
    if np.isin(one, (0.0, 1.0)).all() and np.isin(two, (0.0, 1.0)).all():
        return mcnemar_p(int((one > two).sum()), int((two > one).sum()))
    return sign_flip_p((two - one).tolist(), resamples=2000)


def _effect(values: _Values | None) -> float | None:
    """The minimal detectable effect between two models, from the mean variance of their differences."""
    if values is None or len(values.rows) < 2 or values.rows.shape[1] < 2:
        return None
    variances = _difference_variances(values)
    above = variances[np.triu_indices(len(variances), 1)]
    return minimal_detectable_effect(math.sqrt(max(0.0, float(above.mean()))))


def _difference_variances(values: _Values) -> Array:
    """The variance of the difference of the means of each two models."""
    covariance = mean_covariance(values.rows, values.clusters)
    own = np.diag(covariance)
    variances: Array = own[:, None] + own[None, :] - 2 * covariance
    return variances


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
    complete: Sequence[int], values: Sequence[_Values | None], count: int
) -> list[list[tuple[float, float | None] | None]]:
    """Mean over tasks of j − i, and its p adjusted for the number of pairs; none if a task has no common items."""
    table: list[list[tuple[float, float | None] | None]] = [[None] * count for _ in range(count)]
    tasks = [one for one in values if one is not None and one.place.keys() >= set(complete)]
    if len(complete) < 2 or not tasks or len(tasks) < len(values):
        return table
    size = len(complete)
    means, variances = np.zeros(size), np.zeros((size, size))
    for one in tasks:
        chosen = [one.place[index] for index in complete]
        means += one.rows[chosen].mean(axis=1) / len(tasks)
        variances += _difference_variances(one)[np.ix_(chosen, chosen)] / len(tasks) ** 2
    pairs = [(i, j) for i in range(size) for j in range(i)]
    ps = []
    for i, j in pairs:
        stderr = math.sqrt(max(0.0, float(variances[i, j])))
        ps.append(normal_p(float(means[i] - means[j]), stderr if stderr > _NOISE else 0.0, noise=_NOISE))
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

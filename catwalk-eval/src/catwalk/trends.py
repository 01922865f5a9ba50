"""Trends over checkpoints: is a number still changing when the models are steps of one run?"""

import re
from collections import defaultdict
from collections.abc import Sequence

from catwalk.results import LoadedResults
from catwalk.statistics import holm, isotonic, mann_kendall
from catwalk.tables import Table, bits_per_byte, p_cell, scale

__all__ = ["checkpoints", "trend_tables"]

_STEP = re.compile(r"step[-_]?(\d+)")
_LEAST = 3  # checkpoints; two always have a trend


def checkpoints(models: Sequence[LoadedResults]) -> dict[str, list[tuple[int, LoadedResults]]]:
    """Models with `step-N`, `stepN` or `step_N` in their names, in the order of N, by the rest of the name."""
    runs: dict[str, dict[int, LoadedResults]] = defaultdict(dict)
    for model in models:
        name = str(model.results["model"]["name"])
        if found := _STEP.search(name):
            rest = _STEP.sub("step", re.sub(r"tokens?\d+[BMT]?", "", name))  # OLMo's step1000-tokens4B
            runs[rest][int(found[1])] = model
    return {run: sorted(found.items(), key=lambda one: one[0]) for run, found in runs.items() if len(found) >= _LEAST}


def trend_tables(models: Sequence[LoadedResults]) -> list[Table]:
    """For each run with at least three checkpoints, the trend of every task and source."""
    return [_table(run, found) for run, found in checkpoints(models).items()]


def _table(run: str, found: Sequence[tuple[int, LoadedResults]]) -> Table:
    models = [model for _, model in found]
    tests = []
    for name, metric, values in _series(models):
        tests.append((name, metric, values, *mann_kendall(values)))
    adjusted = holm([p for *_, p in tests])
    rows = []
    for (name, metric, values, tau, p), corrected in zip(tests, adjusted, strict=True):
        factor, digits = scale(metric)
        smooth = isotonic([value if tau >= 0 else -value for value in values])
        change = abs(smooth[-1] - smooth[len(smooth) // 2])
        ends = [f"{value * factor:.{digits}f}" for value in (values[0], values[-1])]
        rows.append([name, metric, *ends, f"{tau:+.2f}", p_cell(p), p_cell(corrected), f"{change * factor:.{digits}f}"])
    steps = ", ".join(str(step) for step, _ in found)
    note = (
        f"Steps {steps}. τ is Kendall's, +1 for numbers that always rise; p is that of no trend (Mann and Kendall), "
        "`p (Holm)` adjusted for the number of rows. `second half` is the change from the middle checkpoint to the "
        "last, along the nearest curve that never turns."
    )
    columns = ["task or source", "metric", "first", "last", "τ", "p", "p (Holm)", "second half"]
    return Table(title=f"Trend over checkpoints: {run}", note=note, columns=columns, rows=rows, numeric=6)


def _series(models: Sequence[LoadedResults]) -> list[tuple[str, str, list[float]]]:
    """Names, metrics and values of what every model has."""
    found = []
    for name in sorted(set.intersection(*(set(model.tasks) for model in models))):
        metric = models[0].tasks[name]["primary_metric"]
        entries = [model.tasks[name]["metrics"].get(metric) for model in models]
        if all(entries):
            found.append((name, metric, [entry["value"] for entry in entries]))
    for source in sorted(set.intersection(*({source for source, _ in model.domains} for model in models))):
        values = [bits_per_byte(model, source) for model in models]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            found.append((source or "(none)", "bits_per_byte", known))
    return found

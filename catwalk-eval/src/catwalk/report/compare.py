"""Two models on the same items: paired differences, which see smaller effects than two intervals beside each other."""

import math
from collections import Counter
from collections.abc import Sequence

from catwalk.report.loaded import LoadedResults
from catwalk.report.tables import Table
from catwalk.scoring.choice import item_metrics
from catwalk.scoring.uncertainty import Z95, Paired, paired_difference, paired_ratio_difference
from catwalk.types import DocumentScore

__all__ = ["comparison_tables", "holm"]


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for their number (Holm 1979); None stays None."""
    order = sorted((index for index, p in enumerate(ps) if p is not None), key=lambda index: ps[index] or 0.0)
    adjusted: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * (ps[index] or 0.0)))
        adjusted[index] = highest
    return adjusted


def comparison_tables(models: Sequence[LoadedResults]) -> list[Table]:
    """Each further model against the first, on tasks and on documents."""
    first, *others = models
    tables = []
    for other in others:
        title = f"{other.label} − {first.label}"
        tables += [table for table in (_tasks(first, other, title), _sources(first, other, title)) if table.rows]
    return tables


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _limits(paired: Paired, scale: float, digits: int) -> str:
    text = f"{paired.difference * scale:+.{digits}f}"
    if paired.stderr is None:
        return text
    half = Z95 * paired.stderr
    low, high = (paired.difference - half) * scale, (paired.difference + half) * scale
    return f"{text} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _tasks(first: LoadedResults, other: LoadedResults, title: str) -> Table:
    found = []
    for name in sorted(first.tasks.keys() & other.tasks.keys()):
        metric = first.tasks[name]["primary_metric"]
        left = {score.id: item_metrics(score)[metric] for score in first.items.get(name, [])}
        right = {score.id: item_metrics(score)[metric] for score in other.items.get(name, [])}
        ids = sorted(left.keys() & right.keys())
        if ids:
            values = [left[id] for id in ids], [right[id] for id in ids]
            found.append((name, metric, paired_difference(*values, binary=metric.startswith("acc_"))))
    adjusted = holm([paired.p for _, _, paired in found])
    rows = [
        [name, metric, str(paired.n), _limits(paired, 100, 1), _p(paired.p), _p(p)]
        for (name, metric, paired), p in zip(found, adjusted, strict=True)
    ]
    note = (
        "Percentage points on the items that both have; 95 % intervals from the standard error of the differences; p "
        "is McNemar's, exact; `p (Holm)` is adjusted for the number of tasks."
    )
    columns = ["task", "metric", "items", "difference", "p", "p (Holm)"]
    return Table(
        title=f"Paired differences on tasks: {title}", note=note, columns=columns, rows=rows, numeric=4, plot=[]
    )


def _by_key(documents: Sequence[DocumentScore]) -> dict[tuple[str, str, str, int], DocumentScore]:
    """Documents by source, subdomain, id and occurrence: an id may repeat."""
    found: dict[tuple[str, str, str, int], DocumentScore] = {}
    times: Counter[tuple[str, str, str]] = Counter()
    for one in documents:
        key = (one.source, one.subdomain, one.id)
        found[*key, times[key]] = one
        times[key] += 1
    return found


def _sources(first: LoadedResults, other: LoadedResults, title: str) -> Table:
    left, right = _by_key(first.documents), _by_key(other.documents)
    keys = sorted(key for key in left.keys() & right.keys() if left[key].bytes == right[key].bytes)
    found = []
    for source in sorted({key[0] for key in keys}):
        chosen = [key for key in keys if key[0] == source]
        sizes = [float(left[key].bytes) for key in chosen]
        if not sum(sizes):
            continue
        bits = [[side[key].nll_nats / math.log(2) for key in chosen] for side in (left, right)]
        found.append((source or "(none)", paired_ratio_difference(bits[0], bits[1], sizes)))
    adjusted = holm([paired.p for _, paired in found])
    rows = [
        [source, str(paired.n), _limits(paired, 1, 4), _p(paired.p), _p(p)]
        for (source, paired), p in zip(found, adjusted, strict=True)
    ]
    note = "Bits per byte on the documents that both have (below 0: the second is better); delta method over documents."
    columns = ["source", "documents", "difference", "p", "p (Holm)"]
    heading = f"Paired differences on documents: {title}"
    return Table(title=heading, note=note, columns=columns, rows=rows, numeric=4, plot=[])

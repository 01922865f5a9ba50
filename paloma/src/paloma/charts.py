"""The charts of `paloma report`: cost against loss, the loss by vocabulary type, and a heat map of the domains."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from statistics import median
from typing import Any

from paloma.aggregate import obstacles
from paloma.metrics import frontier
from paloma.page import Axis, Html, colour, element, frame, keys, table

__all__ = ["heat_maps", "pareto_charts", "type_curves"]

Point = tuple[float, float]


def _line(across: Axis, up: Axis, start: Point, end: Point, style: str) -> str:
    x1, x2, y1, y2 = across.at(start[0]), across.at(end[0]), 100 - up.at(start[1]), 100 - up.at(end[1])
    return f'<line x1="{x1:.2f}%" x2="{x2:.2f}%" y1="{y1:.2f}%" y2="{y2:.2f}%" {style}/>'


def _chart(label: str, parts: Sequence[str]) -> str:
    return f'<svg class="lines" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


# ---- cost against loss

_COSTS = {"parameters": "parameters", "tokens_seen": "tokens seen"}


def pareto_charts(values: list[dict[str, Any]], models: list[dict[str, Any]]) -> list[str]:
    """A chart of each known cost against macro bits per byte; efficient models are filled.

    `values` are the aggregates of the models. Probabilities are only of models that were aggregated together.
    """
    if len(models) < 2 or obstacles(models, "bits_per_byte"):
        return []
    parts = []
    for name, title in _COSTS.items():
        costs = [model["model"][name] if name == "parameters" else model.get(name) for model in models]
        estimates = [model["all"]["macro"]["bits_per_byte"] for model in models]
        points = [
            (model["label"], float(cost), estimate["value"], estimate.get("interval"))
            for model, cost, estimate in zip(models, costs, estimates, strict=True)
            if cost and estimate["value"] is not None
        ]
        if len({cost for _, cost, _, _ in points}) < 2:
            continue
        rows = values[0].get("pareto", {}).get(name, []) if len(values) == 1 else []
        chances = {row["model"]: row["probability"] for row in rows}
        parts += [element("h3", f"By {title}"), _scatter(points, chances, title)]
    text = (
        "Macro bits per byte; upright lines are 95 % intervals over documents. Filled: no other model is at most as "
        "costly and as lossy, and better in one of the two. The percentage is the share of the bootstrap's draws in "
        "which that is so."
    )
    return [element("h2", "Cost against loss"), element("p", text, "note"), *parts] if parts else []


def _scatter(
    points: list[tuple[str, float, float, list[float] | None]], chances: dict[str, float | None], title: str
) -> str:
    heights = [value for _, _, loss, interval in points for value in (interval or [loss])]
    across, up = Axis([cost for _, cost, _, _ in points], 0.1, log=True), Axis(heights, 0.1)
    efficient = frontier([(cost, loss) for _, cost, loss, _ in points])
    drawn, taken = [frame(across, up, title)], [0.0]
    best = sorted((cost, loss) for (_, cost, loss, _), flag in zip(points, efficient, strict=True) if flag)
    for first, second in pairwise(best):
        corner = (second[0], first[1])
        drawn += [_line(across, up, *ends, _FRONTIER) for ends in ((first, corner), (corner, second))]
    for (label, cost, loss, interval), flag in sorted(zip(points, efficient, strict=True), key=lambda p: -p[0][2]):
        x, y = across.at(cost), 100 - up.at(loss)
        taken.append(max(y, taken[-1] + 7))  # a line of text below the last label
        side = 'dx="-9" text-anchor="end"' if x > 50 else 'dx="9"'
        if interval:
            drawn.append(_line(across, up, (cost, interval[0]), (cost, interval[1]), 'stroke="currentColor"'))
        fill = "currentColor" if flag else "var(--back)"
        drawn.append(f'<circle cx="{x:.2f}%" cy="{y:.2f}%" r="4" fill="{fill}" stroke="currentColor"/>')
        chance = chances.get(label)
        text = label if chance is None else f"{label} ({chance:.0%})"
        drawn.append(f'<text x="{x:.2f}%" y="{taken[-1]:.2f}%" dy="-6" {side}>{escape(text)}</text>')
    return _chart(f"{title} against macro bits per byte", drawn)


_FRONTIER = 'stroke="currentColor" stroke-dasharray="2 3"'


# ---- the loss by vocabulary type


def type_curves(models: list[dict[str, Any]]) -> list[str]:
    """Curves of the share of loss over the share of types, and the types with half of the loss by source."""
    chosen = [(model["label"], model["types"]) for model in models if model.get("types")]
    if not chosen:
        return []
    labels, curves = [label for label, _ in chosen], [types["*"]["curve"] for _, types in chosen]
    across, up = Axis([point[0] for curve in curves for point in curve], log=True), Axis([0.0, 1.0])
    drawn = [frame(across, up, "share of the types that occur, those with most loss first")]
    for index, curve in enumerate(curves):
        style = f'stroke="{colour(index, len(curves))}" stroke-width="1.8"'
        drawn += [_line(across, up, start, end, style) for start, end in pairwise(curve)]
    text = (
        "Upwards: the share of the loss that is in the types of the vocabulary with most loss. A type is a token id. "
        "The table has the share of types with half of the loss."
    )
    rows = []
    for name in [*sorted({name for _, types in chosen for name in types} - {"*"}), "*"]:
        cells = [(types.get(name) or {}) for _, types in chosen]
        shares = [f"{cell['half']:.2%}" if cell.get("half") is not None else "–" for cell in cells]
        rows.append(["all" if name == "*" else name, max(cell.get("types", 0) for cell in cells), *shares])
    return [
        element("h2", "Loss by vocabulary type"),
        element("p", text, "note"),
        _chart("share of loss by share of types", drawn),
        keys(labels),
        table(["source", "types", *labels], rows, total=True),
    ]


# ---- the domains at a glance

_HEAT_MODELS = 8
_HEAT_STYLE = """<style>
.heat { display: flex; flex-wrap: wrap; gap: 1px; min-width: 7rem; max-width: 14rem; white-space: normal }
.heat i { width: 10px; height: 10px; background: color-mix(in oklab, #d0504a calc(var(--v) * 100%), #9fc0ea) }
@media screen and (prefers-color-scheme: dark) {
  .heat i { background: color-mix(in oklab, #f0776a calc(var(--v) * 100%), #23405f) } }
@media print { .heat i { print-color-adjust: exact } } </style>"""


def heat_maps(models: list[dict[str, Any]]) -> list[str]:
    """A square for each domain and model, by source; with several models also its distance to the best model."""
    shown = models[:_HEAT_MODELS]
    found = [
        {
            (d["source"], d["subdomain"]): d["bits_per_byte"]["value"]
            for d in model["domains"]
            if d["bits_per_byte"]["value"] is not None
        }
        for model in shown
    ]
    values = sorted(value for one in found for value in one.values())
    if not values:
        return []
    cut = len(values) // 50  # the outermost 2 % have the colour of the rest
    low, high = values[cut], values[-1 - cut]
    text = f"A square for each domain, from {low:.2f} (blue) to {high:.2f} bits per byte (red), hardest first."
    parts = [_HEAT_STYLE, element("h2", "Domains at a glance"), element("p", text, "note")]
    parts.append(_heat_table(shown, found, (low, high), "{:.3f}"))
    if len(shown) > 1:
        best: dict[tuple[str, str], float] = {}
        for one in found:
            for key, value in one.items():
                best[key] = min(value, best.get(key, value))
        distances = [{key: value / best[key] - 1 for key, value in one.items() if best[key]} for one in found]
        most = sorted(value for one in distances for value in one.values())
        high = most[-1 - len(most) // 50] if most else 0.0
        text = f"The same for the distance to the best model of each domain, from 0 to {high:.1%} more bits per byte."
        parts += [element("p", text, "note"), _heat_table(shown, distances, (0.0, high), "{:.1%}")]
    if len(models) > len(shown):
        parts.append(element("p", f"The first {len(shown)} of {len(models)} models.", "note"))
    return parts


def _heat_table(
    models: list[dict[str, Any]],
    found: Sequence[Mapping[tuple[str, str], float]],
    scale: tuple[float, float],
    form: str,
) -> str:
    """Rows are sources; the squares of a cell are in the same order for all models."""
    low, high = scale
    domains = {key for one in found for key in one}
    middle = {key: median(one[key] for one in found if key in one) for key in domains}
    rows = []
    for source in sorted({source for source, _ in domains}):
        names = sorted((key for key in domains if key[0] == source), key=lambda key: (-middle[key], key))
        cells = []
        for one in found:
            squares = []
            for key in (key for key in names if key in one):
                share = min(1.0, max(0.0, (one[key] - low) / (high - low))) if high > low else 0.0
                title = f"{'/'.join(filter(None, key))}: {form.format(one[key])}"
                squares.append(f'<i style="--v:{share:.2f}" title="{escape(title)}"></i>')
            cells.append(Html(f'<div class="heat">{"".join(squares)}</div>'))
        rows.append([source, *cells])
    return table(["source", *(model["label"] for model in models)], rows, text=len(models) + 1)

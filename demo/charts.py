"""Charts as inline SVG: lines over steps, points with intervals, pairs of points. No scripts, no external resources."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 14, 38
Point = tuple[float, float]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values that cover [low, high]: steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        high = low + 1
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(step * index, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A tick's label: short, with thousands as k."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:g}"


def words(kind: str, x: float, y: float, anchor: str, content: str) -> str:
    """A text element."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(content)}</text>'


def dot(colour: int, x: float, y: float, title: str) -> str:
    """A point with a tooltip."""
    return f'<circle class="dot c{colour}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{html.escape(title)}</title></circle>'


def canvas(height: float, description: str) -> str:
    """The opening tag of a chart; `description` is for screen readers."""
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(description)}">'


def line_chart(series: dict[str, Sequence[Point]], x_label: str, y_label: str) -> str:
    """Lines through (x, y) points, one colour per series, each point with its values as a tooltip."""
    points = [point for line in series.values() for point in line if math.isfinite(point[1])]
    if not points:
        return '<p class="note">no points were recorded</p>'
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = min(y for _, y in points), max(y for _, y in points)
    margin = 0.06 * (y_high - y_low or abs(y_high) or 1)
    y_low, y_high = y_low - margin, y_high + margin
    x_span = (x_high - x_low) or 1

    def place(x: float, y: float) -> Point:
        inner_x = LEFT + (x - x_low) / x_span * (WIDTH - LEFT - RIGHT)
        return inner_x, HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [canvas(HEIGHT, f"{y_label} over {x_label}")]
    for value in ticks(y_low, y_high):
        _, y = place(x_low, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(words("tick", LEFT - 6, y + 4, "end", number(value)))
    for value in ticks(x_low, x_high, 6):
        parts.append(words("tick", place(value, y_low)[0], HEIGHT - BOTTOM + 16, "middle", number(value)))
    for index, (name, line) in enumerate(series.items()):
        finite = [point for point in line if math.isfinite(point[1])]
        path = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in finite)
        parts.append(f'<polyline class="line c{index}" points="{path}"/>')
        if len(finite) <= 60:
            parts += [dot(index, *place(x, y), f"{name}: {y:.4g} at {number(x)}") for x, y in finite]
    parts.append(words("label", WIDTH - RIGHT, HEIGHT - 4, "end", x_label))
    parts.append(words("label", LEFT, TOP - 3, "start", y_label) + "</svg>")
    return "".join(parts) + legend(list(series))


def legend(names: Sequence[str]) -> str:
    """The names next to their colours; nothing for a single series."""
    if len(names) < 2:
        return ""
    entries = "".join(
        f'<span><i class="swatch c{index}"></i>{html.escape(name)}</span>' for index, name in enumerate(names)
    )
    return f'<div class="legend">{entries}</div>'


def interval_chart(
    rows: Sequence[tuple[str, Sequence[tuple[float, float] | None]]], names: Sequence[str], chance: Sequence[float]
) -> str:
    """A point with its 95 % interval for each (value, standard error) of each row and series, from 0 to 1.

    `chance` is the accuracy of guessing in each row, drawn dashed.
    """
    row_height, left = 14 * len(names) + 12, 110
    height = row_height * len(rows) + 30
    scale = WIDTH - left - RIGHT
    parts = [canvas(height, "accuracy by task with 95 percent intervals")]
    for value in (0, 0.25, 0.5, 0.75, 1):
        x = left + value * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 22}"/>')
        parts.append(words("tick", x, height - 6, "middle", f"{value:g}"))
    for index, (label, values) in enumerate(rows):
        top = index * row_height + 10
        parts.append(words("name", left - 8, top + row_height / 2, "end", label))
        x = left + chance[index] * scale
        parts.append(f'<line class="chance" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 2}" y2="{top + row_height - 12}"/>')
        for place, value in enumerate(values):
            if value is None:
                continue
            y, x, half = top + 5 + 14 * place, left + value[0] * scale, 1.96 * value[1] * scale
            low, high = max(x - half, left), min(x + half, left + scale)  # an accuracy stays within 0 and 1
            parts.append(f'<line class="line c{place}" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>')
            parts.append(dot(place, x, y, f"{names[place]}: {value[0]:.3f} ± {1.96 * value[1]:.3f}"))
    return "".join(parts) + "</svg>" + legend(names)


def pair_chart(rows: Sequence[tuple[str, Sequence[float]]], names: Sequence[str], x_label: str) -> str:
    """One point per row and series, joined by a line: how far each domain moved."""
    if not rows:
        return '<p class="note">no domains were scored</p>'
    row_height, left = 15, 170
    height = row_height * len(rows) + 40
    high = max(value for _, values in rows for value in values) * 1.03
    scale = (WIDTH - left - RIGHT) / high
    parts = [canvas(height, f"{x_label} by domain")]
    for value in ticks(0, high):
        x = left + value * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{height - 34}"/>')
        parts.append(words("tick", x, height - 20, "middle", number(value)))
    for index, (label, values) in enumerate(rows):
        y = index * row_height + 10
        places = [left + value * scale for value in values]
        parts.append(words("name", left - 8, y + 4, "end", label))
        parts.append(f'<line class="grid" x1="{min(places):.1f}" x2="{max(places):.1f}" y1="{y}" y2="{y}"/>')
        parts += [dot(i, x, y, f"{label}, {names[i]}: {values[i]:.3f}") for i, x in enumerate(places)]
    parts.append(words("label", WIDTH - RIGHT, height - 4, "end", x_label) + "</svg>")
    return "".join(parts) + legend(names)

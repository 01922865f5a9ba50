"""Curves as inline SVG: no script, nothing from elsewhere, the same bytes for the same numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

__all__ = ["Series", "chart"]

Series = tuple[str, Sequence[tuple[int, float]]]
"""A name, and (step, value) by rising step."""

_COLOURS = ("#2f7ed8", "#d9812f", "#3a9d5d", "#b0489c", "#c0443c", "#7a6fd0", "#8a8a2a", "#2a9a9a")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 900, 270, 70, 24, 10, 40
_BUCKETS = 400


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The least and the greatest value of each of so many stretches: a spike is never lost."""
    if len(points) <= 2 * _BUCKETS:
        return list(points)
    kept: set[tuple[int, float]] = {points[0], points[-1]}
    for bucket in range(_BUCKETS):
        part = points[bucket * len(points) // _BUCKETS : (bucket + 1) * len(points) // _BUCKETS]
        kept |= {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
    return sorted(kept)


def _ticks(low: float, high: float) -> list[float]:
    """Round values between two bounds, four to ten of them."""
    step = 10 ** math.floor(math.log10(high - low))
    step *= next(part for part in (0.2, 0.5, 1.0, 2.0) if (high - low) / (step * part) <= 9)
    return [round(number * step, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _colour(number: int, count: int) -> str:
    """A colour of its own for each of `count` curves; more than a few go round the circle in their order."""
    return _COLOURS[number] if count <= len(_COLOURS) else f"hsl({330 * number // count} 65% 48%)"


def chart(series: Sequence[Series], marks: Sequence[tuple[int, str]] = ()) -> str:
    """Curves over steps in one picture, with a line and a title at each marked step; empty without points."""
    points = [point for _, part in series for point in part]
    if not points:
        return ""
    first, last = min(step for step, _ in points), max(step for step, _ in points)
    low, high = min(value for _, value in points), max(value for _, value in points)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2

    def x(step: float) -> str:
        return f"{_LEFT + (step - first) / max(1, last - first) * (_WIDTH - _LEFT - _RIGHT):.1f}"

    def y(value: float) -> str:
        return f"{_TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM):.1f}"

    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    out = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">']
    for value in _ticks(low, high):
        out.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(value)}" y2="{y(value)}"/>')
        out.append(f'<text x="{_LEFT - 6}" y="{y(value)}" dy="4" text-anchor="end">{value:g}</text>')
    for step in _ticks(first, max(last, first + 1)):
        if step == int(step):
            out.append(f'<text x="{x(step)}" y="{bottom + 18}" text-anchor="middle">{int(step)}</text>')
    out.append(f'<text x="{(_LEFT + right) / 2:.0f}" y="{bottom + 34}" text-anchor="middle">step</text>')
    for step, what in marks:
        if first <= step <= last:
            line = f'<line class="mark" x1="{x(step)}" x2="{x(step)}" y1="{_TOP}" y2="{bottom}">'
            out.append(f"{line}<title>step {step}: {escape(what)}</title></line>")
    for number, (name, part) in enumerate(series):
        path = " ".join(f"{x(step)},{y(value)}" for step, value in _thinned(part))
        colour = _colour(number, len(series))
        out.append(f'<polyline stroke="{colour}" points="{path}"><title>{escape(name)}</title></polyline>')
    out.append("</svg>")
    if len(series) > 1:
        keys = (
            f'<span><i style="color:{_colour(number, len(series))}">■</i> {escape(name)}</span>'
            for number, (name, _) in enumerate(series)
        )
        out.append(f'<p class="keys">{" ".join(keys)}</p>')
    return "\n".join(out)

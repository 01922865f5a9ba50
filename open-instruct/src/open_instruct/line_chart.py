"""Curves over steps as inline SVG."""

import math
from collections.abc import Sequence
from html import escape

from .page import Axis, colour, element, frame, keys

__all__ = ["Curve", "line_chart"]

Curve = tuple[str, Sequence[tuple[float, float]]]
"""A name, and (x, y) by rising x."""


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The smallest and the largest value of each of 400 buckets: a spike is never lost."""
    size = math.ceil(len(points) / 400)
    groups = [points[i : i + size] for i in range(0, len(points), size)] if len(points) > 800 else [points]
    ends = {end(group, key=lambda point: point[1]) for group in groups for end in (min, max)}
    return sorted(ends | {points[0], points[-1]}) if len(points) > 800 else list(points)


def line_chart(title: str, curves: Sequence[Curve], x_label: str, marks: Sequence[tuple[float, str]] = ()) -> str:
    """Curves, and a dashed line at each mark (x, text); empty without finite points."""
    curves = [(name, [point for point in points if math.isfinite(point[1])]) for name, points in curves]
    if not any(points for _, points in curves):
        return ""
    across = Axis((x for _, points in curves for x, _ in points))
    up = Axis((y for _, points in curves for _, y in points), 0.06)
    back, lines, dots, spoken = [frame(across, up, x_label)], [], [], []
    for x, text in marks:
        if 0 <= (at := across.at(x)) <= 100:
            what = f"<title>{escape(x_label)} {x:,.10g}: {escape(text)}</title>"
            back.append(f'<line class="mark" x1="{at:.2f}%" x2="{at:.2f}%" y2="100%">{what}</line>')
    for number, (name, points) in enumerate(curves):
        paint, label = colour(number, len(curves)), escape(name)
        path = " ".join(f"{across.at(x):.2f},{100 - up.at(y):.2f}" for x, y in _thinned(points))
        lines.append(f'<polyline stroke="{paint}" points="{path}"><title>{label}</title></polyline>')
        spoken += [f"{label} from {points[0][1]:.4g} to {points[-1][1]:.4g}"] if points else []
        for x, y in points if len(points) <= 60 else ():
            at_of = f'cx="{across.at(x):.2f}%" cy="{100 - up.at(y):.2f}%" r="3.5" fill="{paint}"'
            dots.append(f"<circle {at_of}><title>{label}: {y:.4g} at {x:,.10g}</title></circle>")
    stretched = f'<svg viewBox="0 0 100 100" preserveAspectRatio="none">{"".join(lines)}</svg>'
    about = f"{escape(title)} by {escape(x_label)}: {', '.join(spoken)}"
    drawn = f'<svg class="lines" role="img" aria-label="{about}">{"".join(back)}{stretched}{"".join(dots)}</svg>'
    return f"<figure>{element('figcaption', title)}{drawn}{keys([name for name, _ in curves])}</figure>"

"""A run on one HTML page: its curves, what went wrong, config, data, lineage, energy. A pure function of its files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..formats.errors import FormatError
from ..formats.lineage import lineage
from .record import whole_rows

__all__ = ["render_report"]


# ---- charts

Series = tuple[str, Sequence[tuple[int, float]]]
"""A name, and (step, value) by rising step."""

_COLOURS = ("#2f7ed8", "#d9812f", "#3a9d5d", "#b0489c", "#c0443c", "#7a6fd0", "#8a8a2a", "#2a9a9a")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 900, 270, 70, 24, 10, 40
_BUCKETS = 400


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The smallest and the largest value of each bucket of steps: a spike is never lost."""
    if len(points) <= 2 * _BUCKETS:
        return list(points)
    kept: set[tuple[int, float]] = {points[0], points[-1]}
    for bucket in range(_BUCKETS):
        part = points[bucket * len(points) // _BUCKETS : (bucket + 1) * len(points) // _BUCKETS]
        kept |= {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
    return sorted(kept)


def _ticks(low: float, high: float) -> list[float]:
    """Four to ten round values between two bounds."""
    step = 10 ** math.floor(math.log10(high - low))
    step *= next(part for part in (0.2, 0.5, 1.0, 2.0) if (high - low) / (step * part) <= 9)
    return [round(number * step, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _colour(number: int, count: int) -> str:
    """A distinct colour for each of `count` curves; beyond the palette, evenly spaced hues."""
    return _COLOURS[number] if count <= len(_COLOURS) else f"hsl({330 * number // count} 65% 48%)"


def chart(series: Sequence[Series], marks: Sequence[tuple[int, str]] = ()) -> str:
    """Curves over steps in one chart, with a line and a title at each marked step; empty without points."""
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


# ---- page

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --soft: #666; --line: #ddd; --back: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --soft: #a0a0a0; --line: #3a3a3a; --back: #181818 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); margin: 2rem auto;
  max-width: 62rem; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem }
p.note, p.keys { color: var(--soft); margin: .2rem 0; font-size: .9rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem }
td { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line) } td + td { text-align: right }
pre { font-size: .8rem; overflow-x: auto; border: 1px solid var(--line); padding: .6rem }
svg { width: 100%; height: auto } svg text { fill: var(--soft); font: 11px system-ui, sans-serif }
p.keys span { display: inline-block; margin-right: 1rem } p.keys i { font-style: normal }
svg .grid { stroke: var(--line) } svg .mark { stroke: #c0443c; stroke-width: 2; stroke-dasharray: 3 3 }
svg polyline { fill: none; stroke-width: 1.5 }
"""
_SUMMARY = (  # (metric, label)
    ("throughput/total_tokens", "tokens"),
    ("throughput/total_training_Gflops", "FLOPs (10⁹)"),
    ("time_s", "seconds of run time"),
    ("train/CrossEntropyLoss", "loss of the last step"),
    ("eval/bpb", "bits per byte at the end"),
    ("optim/skipped_steps", "skipped steps"),
    ("stability/rewinds", "rewinds"),
    ("throughput/device/MFU", "MFU (% of the device's peak)"),
    ("energy/kWh_machines", "kWh, machines"),
    ("energy/kWh_data_center", "kWh, data centre (after PUE)"),
    ("energy/kgCO2e", "kg CO₂e"),
    ("energy/joules_per_token", "joules a token"),
)


def render_report(directory: Path) -> str:
    """The page of a run directory, whether the run is finished or not.

    Raises: FormatError: metrics.jsonl is damaged.
    """
    found = whole_rows(directory / "metrics.jsonl")
    marks = _marks(found)
    out = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(directory.name)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(directory.name)}</h1>",
        _table(_summary(found)),
    ]
    if marks:
        out.append('<p class="note">A dashed red line marks a skipped step or a rewind; see below.</p>')
    for title, names in _charts(found):
        picture = chart([_series(found, name) for name in names], marks)
        if picture:
            out += [f"<h2>{escape(title)}</h2>", picture]
    if marks:
        listed = "\n".join(f"step {step}: {what}" for step, what in marks)
        out += ["<h2>What went wrong</h2>", f"<pre>{escape(listed)}</pre>"]
    out += ["<h2>Lineage and data</h2>", f"<pre>{escape(_lineage(directory))}</pre>"]
    for name in ("order.json", "config.yaml"):
        if (directory / name).is_file():
            out += [f"<h2>{name}</h2>", f"<pre>{escape((directory / name).read_text(encoding='utf-8'))}</pre>"]
    return "\n".join([*out, "</body></html>"]) + "\n"


def _charts(found: Sequence[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """(title, names of metrics) of each chart, in the order of the page."""
    names = sorted({name for row in found for name in row}, key=_natural)
    return [
        ("Loss (nats a token)", ["train/CrossEntropyLoss"]),
        ("Learning rate", [name for name in names if name.startswith("optim/learning_rate_group")]),
        ("Norm of the gradient, before clipping", ["optim/total_grad_norm"]),
        ("Tokens a second, each device", ["throughput/device/tokens_per_second"]),
        ("Bits per byte", [name for name in names if name.startswith("eval/") and name.endswith("bpb")]),
        ("Tasks", [name for name in names if name.startswith("eval/downstream/") and "_acc_" in name]),
        ("Norm of each block's output", [n for n in names if n.startswith("activation/") and n.endswith(".norm")]),
        ("Energy (kWh, machines)", ["energy/kWh_machines"]),
    ]


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts block 2 before block 10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _series(found: Sequence[dict[str, Any]], name: str) -> Series:
    return name, [(row["step"], float(row[name])) for row in found if row.get(name) is not None]


def _marks(found: Sequence[dict[str, Any]]) -> list[tuple[int, str]]:
    """Steps that were skipped or rewound to, found by the counters that increased."""
    marks: list[tuple[int, str]] = []
    skipped = rewinds = 0
    for row in found:
        if (now := row.get("optim/skipped_steps") or 0) > skipped:
            marks.append((row["step"], f"{now - skipped} skipped"))
        if (times := row.get("stability/rewinds") or 0) > rewinds:
            first, last = row["stability/left_out_first"], row["stability/left_out_last"]
            marks.append((row["step"], f"rewound to before it; positions {first} to {last} of the data skipped"))
        skipped, rewinds = now, times
    return marks


def _summary(found: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    last = found[-1] if found else {}
    rows = [("last step", f"{last.get('step', 0)}")]
    rows += [(what, _figure(last[name])) for name, what in _SUMMARY if last.get(name) is not None]
    return rows


def _figure(value: float) -> str:
    """A number with at least four digits, without exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _table(cells: Sequence[tuple[str, str]]) -> str:
    body = "\n".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in cells)
    return f"<table>{body}</table>"


def _lineage(directory: Path) -> str:
    """The last checkpoint's chain of inputs; without a checkpoint, the sources of order.json."""
    folders = [path for path in directory.glob("checkpoints/step-*") if (path / "manifest.json").is_file()]
    if not folders:
        order = directory / "order.json"
        sources = json.loads(order.read_text(encoding="utf-8")).get("sources", []) if order.is_file() else []
        return "\n".join(["no checkpoint yet", *(json.dumps(source) for source in sources)])
    lines = []
    try:
        for line in lineage(max(folders, key=lambda path: int(path.name.removeprefix("step-")))):
            lines.append(line)
    except FormatError as error:
        lines.append(f"broken here: {error.message}")
    return "\n".join(lines)

"""Tables as Markdown, and as one self-contained HTML page without scripts, fonts or pictures from elsewhere."""

import math
from collections.abc import Sequence
from html import escape

from catwalk.tables import Table

__all__ = ["render_markdown", "render_page"]

# ---- Markdown


def render_markdown(tables: Sequence[Table]) -> str:
    """Headings, tables and notes."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    lines: list[str] = []
    for table in tables:
        rule = ["---"] * (len(table.columns) - table.numeric) + ["---:"] * table.numeric
        lines += [f"## {table.title}", "", line(table.columns), line(rule), *map(line, table.rows), ""]
        if table.note:
            lines += [table.note, ""]
    return "\n".join(lines)


# ---- HTML

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --soft: #666; --line: #ddd; --back: #fff; --band: #f6f6f4 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --soft: #a0a0a0; --line: #3a3a3a; --back: #181818; --band: #222 }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); margin: 2rem auto;
  max-width: 76rem; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin: 2.4rem 0 .4rem }
p.note { color: var(--soft); margin: .3rem 0; max-width: 60rem }
div.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem }
th, td { padding: .28rem .7rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap }
th { font-weight: 600; border-bottom: 2px solid var(--soft) } td.n, th.n { text-align: right }
tbody tr:nth-child(even) { background: var(--band) }
svg { max-width: 100%; height: auto } svg text { fill: var(--ink); font: 12px system-ui, sans-serif }
svg .grid { stroke: var(--line) } svg .soft { fill: var(--soft) }
"""
# dark enough on white, light enough on black
_COLOURS = ("#2f7ed8", "#d9812f", "#3a9d5d", "#b0489c", "#c0443c", "#7a6fd0", "#8a8a2a", "#2a9a9a")
_LABEL_WIDTH, _PLOT_WIDTH, _ROW_HEIGHT = 190, 560, 15


def render_page(title: str, tables: Sequence[Table]) -> str:
    """The whole document."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
    ]
    for table in tables:
        parts.append(f"<h2>{escape(table.title)}</h2>")
        if table.note:
            parts.append(f'<p class="note">{escape(table.note).replace("`", "")}</p>')
        if any(points for _, points in table.plot):
            parts.append(_plot(table.plot))
        parts.append(_table(table))
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _table(table: Table) -> str:
    first_numeric = len(table.columns) - table.numeric

    def cells(tag: str, values: Sequence[str]) -> str:
        marks = (' class="n"' if index >= first_numeric else "" for index in range(len(values)))
        return "".join(f"<{tag}{mark}>{escape(value)}</{tag}>" for mark, value in zip(marks, values, strict=True))

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in table.rows)
    head = f"<thead><tr>{cells('th', table.columns)}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def _plot(rows: Sequence[tuple[str, list[tuple[str, float, float, float]]]]) -> str:
    """A chart of points with their intervals: a group for each row of the table, a line for each model."""
    series = list(dict.fromkeys(name for _, points in rows for name, *_ in points))
    lows = [low for _, points in rows for _, _, low, _ in points]
    highs = [high for _, points in rows for _, _, _, high in points]
    least, most = min(lows), max(highs)
    span = (most - least) or 1.0
    least, most = least - 0.04 * span, most + 0.04 * span

    def x_of(value: float) -> float:
        return _LABEL_WIDTH + _PLOT_WIDTH * (value - least) / (most - least)

    legend_height = 22 * len(series)
    height = legend_height + 30 + sum(_ROW_HEIGHT * len(points) + 8 for _, points in rows)
    width = _LABEL_WIDTH + _PLOT_WIDTH + 20
    parts = [f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">']
    for index, name in enumerate(series):
        base = 14 + 22 * index
        parts.append(f'<circle cx="{_LABEL_WIDTH}" cy="{base - 4}" r="4" fill="{_colour(index)}"/>')
        parts.append(f'<text x="{_LABEL_WIDTH + 10}" y="{base}">{escape(name)}</text>')
    for value in _ticks(least, most):
        x = x_of(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{legend_height}" y2="{height - 20}"/>')
        parts.append(f'<text class="soft" x="{x:.1f}" y="{height - 4}" text-anchor="middle">{value:g}</text>')
    y = legend_height + 10.0
    for label, points in rows:
        middle = y + _ROW_HEIGHT * (len(points) - 1) / 2 + 4
        parts.append(f'<text x="{_LABEL_WIDTH - 10}" y="{middle:.1f}" text-anchor="end">{escape(label[:28])}</text>')
        for name, value, low, high in points:
            colour = _colour(series.index(name))
            line = f'x1="{x_of(low):.1f}" x2="{x_of(high):.1f}" y1="{y:.1f}" y2="{y:.1f}"'
            parts.append(f'<line {line} stroke="{colour}" stroke-width="2"/>')
            parts.append(f'<circle cx="{x_of(value):.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
            y += _ROW_HEIGHT
        y += 8
    return "".join([*parts, "</svg>"])


def _ticks(least: float, most: float) -> list[float]:
    """Four to nine round numbers within the limits: steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((most - least) / 5))
    step = next(factor * power for factor in (1, 2, 5, 10) if (most - least) / (factor * power) <= 9)
    first = math.ceil(least / step)
    return [round(count * step, 10) for count in range(first, math.floor(most / step) + 1)]


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]

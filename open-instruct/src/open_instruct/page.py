"""A self-contained HTML page: its style sheet, its tables, and the axes of its charts. No scripts, no network.

Each package that writes pages has a copy of this file.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["Axis", "Html", "cards", "colour", "document", "element", "frame", "keys", "table"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #596273; --line: #d9dee7; --back: #fff }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e7ebf3; --soft: #a3adbd; --line: #39414f; --back: #14181f } }
* { box-sizing: border-box } :focus-visible { outline: 2px solid #3b7dd8; outline-offset: 2px } figure { margin: 0 }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); overflow-wrap: anywhere }
main { max-width: 74rem; margin: 0 auto; padding: .5rem .5rem 3rem } p { margin: .4rem 0; max-width: 80ch }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0 } h2 { font-size: 1.25rem; margin: 2rem 0 .4rem }
h3, figcaption { font-size: 1rem; font-weight: 600; margin: 0 0 .5rem } b { display: block; font-size: 1.3rem }
.note, .keys { color: var(--soft); font-size: .9rem } .keys span { display: inline-block; margin-right: 1rem }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(var(--width), 100%), 1fr)); gap: 1rem;
  align-items: start; margin: .8rem 0 } pre, table { font-size: .88rem } pre { white-space: pre-wrap; margin: .4rem 0 }
.cards > div { border: 1px solid var(--line); border-radius: 8px; padding: .7rem 1rem; min-width: 0 }
.scroll { overflow-x: auto; margin: .4rem 0 } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem 0; border-bottom: 1px solid var(--line); text-align: left; overflow-wrap: break-word }
:is(th, td) + * { padding-left: 1.2rem } th { color: var(--soft); font-weight: 600; vertical-align: bottom }
td + td { white-space: nowrap } td:has(svg) { padding-block: 0 } table:has(svg) { width: 100% }
th:has(svg) { width: 50%; min-width: 12rem } th:first-child { min-width: 9rem }
.n { text-align: right } .total { font-weight: 600 } .bar { display: block; height: .7em; background: #3b7dd8 }
svg { display: block; width: 100%; overflow: visible } svg text { font: 12px system-ui, sans-serif; fill: var(--soft) }
.grid { stroke: var(--line) } .mark { stroke: #d0504a; stroke-width: 2; stroke-dasharray: 3 3 }
.lines { height: 15rem; padding: .5rem 1.2rem 2.4rem 3.2rem }
polyline { fill: none; stroke-width: 1.8; vector-effect: non-scaling-stroke }
@media print { .bar { print-color-adjust: exact } .scroll { overflow: visible } .cards { display: block }
  .cards > div { margin-bottom: 1rem } .cards > div, figure, tr { break-inside: avoid } h2, h3 { break-after: avoid } }
"""
# dark enough on white, light enough on black
_COLOURS = ("#3b7dd8", "#d0702a", "#2f9660", "#a65bb5", "#d0504a", "#1f93a0", "#8f8420", "#85858f")


class Html(str):
    """Text that is HTML, which `table` does not escape."""


def document(title: str, *parts: str) -> str:
    """The whole file."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    body = "\n".join([element("h1", title), *parts])
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><main>\n{body}\n</main></body></html>\n'


def element(tag: str, text: str, kind: str = "") -> str:
    """Text in a tag, with the class `kind`."""
    return f'<{tag} class="{kind}">{escape(text)}</{tag}>' if kind else f"<{tag}>{escape(text)}</{tag}>"


def cards(*parts: str, width_rem: int = 27) -> str:
    """A box around each part, in as many columns of at least that width as fit."""
    return f'<div class="cards" style="--width: {width_rem}rem">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def table(columns: Sequence[object], rows: Sequence[Sequence[object]], *, text: int = 1, total: bool = False) -> str:
    """A table: `text` columns, then numbers, which are right-aligned; the last row may be a `total`."""

    def line(tag: str, values: Sequence[object], kind: str = "") -> str:
        shown = [f"{v:,}" if isinstance(v, int) else v if isinstance(v, Html) else escape(str(v)) for v in values]
        cells = [f"<{tag}>{c}</{tag}>" if i < text else f'<{tag} class="n">{c}</{tag}>' for i, c in enumerate(shown)]
        return f"<tr{kind}>{''.join(cells)}</tr>\n"

    head = f"<thead>{line('th', columns)}</thead>" if columns else ""
    body = [line("td", row, ' class="total"' if total and row is rows[-1] else "") for row in rows]
    return f'<div class="scroll" tabindex="0"><table>{head}<tbody>{"".join(body)}</tbody></table></div>'


class Axis:
    """The range of some values, extended by a share of it at each end; positions on it are per cents."""

    def __init__(self, values: Iterable[float], room: float = 0.0, *, log: bool = False) -> None:
        found = sorted(filter(math.isfinite, values)) or [0.0]
        self.log, self.whole = log, all(value == int(value) for value in found)
        low, high = (math.log10(value) if log else value for value in (found[0], found[-1]))
        extra = room * (high - low) if high > low else 0.3 if log else abs(high) / 2 or 0.5
        self.low, self.high = low - extra, high + extra

    def at(self, value: float) -> float:
        """The position of a value."""
        return 100 * ((math.log10(value) if self.log else value) - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Positions and labels of about five round values; k, M and B are thousands, millions and billions."""
        low, high = (10**self.low, 10**self.high) if self.log else (self.low, self.high)
        least = (high - low) / 6.5
        power = 10.0 ** math.floor(math.log10(least))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))
        step = max(1.0, step) if self.whole else step
        values = [step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
        if self.log and (span := self.high - self.low) > 1:
            powers, factors = range(math.floor(self.low), math.ceil(self.high) + 1), (1, 2, 5) if span < 2 else (1,)
            values = [value for n in powers for f in factors if low <= (value := f * 10.0**n) <= high]
        return [(self.at(value), self._label(value, max(map(abs, values)))) for value in values]

    def _label(self, value: float, largest: float) -> str:
        size = abs(value) if self.log else largest
        units = (1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k"), (0, 1, "")
        _, unit, letter = next(unit for unit in units if size >= unit[0])
        return f"{value / unit:.6g}{letter if value else ''}".replace("e-0", "e-").replace("-", "−")


def frame(across: Axis, up: Axis, x_label: str) -> str:
    """The grid and labels of a chart's axes. Positions are per cents, so that text keeps its size at every width."""
    out = []
    for y, text in up.ticks():
        out.append(f'<line class="grid" x2="100%" y1="{100 - y:.2f}%" y2="{100 - y:.2f}%"/>')
        out.append(f'<text x="-8" y="{100 - y:.2f}%" dy="4" text-anchor="end">{text}</text>')
    for x, text, dy in [(*tick, 18) for tick in across.ticks()] + [(50.0, x_label, 34)]:
        out.append(f'<text x="{x:.2f}%" y="100%" dy="{dy}" text-anchor="middle">{escape(text)}</text>')
    return "".join(out)


def colour(number: int, count: int) -> str:
    """A distinct colour for each of `count` series: from the palette, beyond it evenly spaced hues."""
    return _COLOURS[number] if count <= len(_COLOURS) else f"oklch(60% 0.14 {330 * number // count})"


def keys(names: Sequence[str]) -> str:
    """The names of series next to their colours; empty for a single one."""
    shown = [f'<span><i style="color:{colour(i, len(names))}">■</i> {escape(n)}</span>' for i, n in enumerate(names)]
    return f'<p class="keys">{" ".join(shown)}</p>' if len(names) > 1 else ""

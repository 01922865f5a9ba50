"""`paloma report`: one self-contained HTML page of aggregates, without scripts or anything from the network."""

import math
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from paloma.aggregate import difference_text, obstacles, read_aggregate
from paloma.configuration import ConfigError
from paloma.formats.manifest import describe_input
from paloma.metrics import frontier
from paloma.output import format_number, write_artifact

__all__ = ["report"]

_PAGE = "index.html"
_WIDTH, _HEIGHT, _MARGIN = 720, 320, 56
_STYLE = """
:root { color-scheme: light dark; --line: #8886; --mark: #2563eb; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; width: 100%; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; }
td { font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
tr.all td { font-weight: 600; }
.wide { overflow-x: auto; }
.bar { display: inline-block; height: .7em; background: var(--mark); opacity: .6; vertical-align: baseline; }
small { opacity: .75; }
svg { max-width: 100%; height: auto; }
svg text { font-size: 12px; fill: currentColor; }
"""


def report(paths: list[Path], output: Path, title: str, *, overwrite: bool) -> str:
    """Write `index.html` about the models of the aggregates into `output`; returns its path.

    Raises:
        FormatError: a directory that is not an aggregate.
        ConfigError: a model in two aggregates, or an output that is not empty.
    """
    values = [read_aggregate(path) for path in paths]
    write_artifact(
        output,
        {_PAGE: _page(values, title).encode()},
        overwrite=overwrite,
        format="report",
        config={"title": title},
        counts={"models": sum(len(value["models"]) for value in values)},
        details={},
        inputs=[entry for path in paths for entry in describe_input("table", path, output)],
    )
    return str(output / _PAGE)


def _page(values: list[dict[str, Any]], title: str) -> str:
    models = [model for value in values for model in value["models"]]
    labels = [model["label"] for model in models]
    if len(set(labels)) < len(labels):
        twice = sorted({label for label in labels if labels.count(label) > 1})
        problems = [f"{label}: is in more than one aggregate; expected each model once" for label in twice]
        raise ConfigError(problems, "aggregate the results together")
    differences = [difference for value in values if value["ranking"] for difference in value["ranking"]["differences"]]
    compared = "".join(f"<p>{escape(difference_text(difference))}</p>" for difference in differences)
    sections = [_models(models), _notes(models), compared, _pareto(models), _sources(models), _domains(models)]
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(sections)
        + "</html>\n"
    )


def _table(head: list[str], rows: list[list[str]], last_is_total: bool = False) -> str:
    """Cells are HTML."""
    parts = ['<div class="wide"><table><tr>', *(f"<th>{cell}</th>" for cell in head), "</tr>"]
    for number, row in enumerate(rows, start=1):
        total = ' class="all"' if last_is_total and number == len(rows) else ""
        parts.append(f"<tr{total}>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
    return "".join(parts) + "</table></div>"


def _estimate(estimate: dict[str, Any] | None) -> str:
    if estimate is None:
        return "–"
    error = "" if estimate["stderr"] is None else f" <small>± {format_number(estimate['stderr'])}</small>"
    return format_number(estimate["value"]) + error


def _models(models: list[dict[str, Any]]) -> str:
    rows = []
    for model in models:
        about, inference, every = model["model"], model["inference"], model["all"]
        held = ", ".join(f["guideline"] for f in model["findings"] if f["holds"])
        rows.append(
            [
                escape(model["label"]),
                f"{about['parameters']:,}",
                escape(f"{model['tier']} ({held})"),
                escape(f"{inference['windowing']}, {inference['max_length_tokens']}, {inference['prefix']}"),
                f"{every['documents']:,}",
                f"{every['bytes']:,}",
                _estimate(every["pooled"]["bits_per_byte"]),
                _estimate(every["macro"]["bits_per_byte"]),
            ]
        )
    head = ["model", "parameters", "tier (guidelines that hold)", "windows", "documents", "bytes", "bpb", "macro bpb"]
    return "<h2>Models</h2>" + _table(head, rows)


def _notes(models: list[dict[str, Any]]) -> str:
    texts = [
        "Bits per byte (bpb): −log₂ p of the texts over their UTF-8 bytes; lower is better. Pooled takes all documents "
        "of a source as one text, macro is the mean over its domains. ± is one standard error over documents, the "
        "domains being fixed."
    ]
    texts += [f"{model['label']}: {note}." for model in models for note in model["notes"]]
    for metric in ("bits_per_byte", "perplexity"):
        texts += [f"{metric} is not to be compared: {reason}." for reason in obstacles(models, metric)]
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def _sources(models: list[dict[str, Any]]) -> str:
    by_model = [{source["source"]: source for source in model["sources"]} for model in models]
    names = sorted({name for sources in by_model for name in sources})
    head = ["source", "domains", "documents"]
    metrics = {"bits_per_byte": "bpb"}
    if not obstacles(models, "perplexity"):
        metrics["perplexity"] = "ppl"
    titles = [f"{mean}{title}" for title in metrics.values() for mean in ("", "macro ")]
    head += [f"{title} {escape(model['label'])}" for model in models for title in titles]
    rows = []
    for name in [*names, None]:
        groups = [
            model["all"] if name is None else sources.get(name) for model, sources in zip(models, by_model, strict=True)
        ]
        first = next(group for group in groups if group is not None)
        row = ["all" if name is None else escape(name), f"{first['domains']:,}", f"{first['documents']:,}"]
        for group in groups:
            for metric in metrics:
                row += [_estimate(group[mean][metric] if group else None) for mean in ("pooled", "macro")]
        rows.append(row)
    return "<h2>Sources</h2>" + _table(head, rows, last_is_total=True)


def _domains(models: list[dict[str, Any]]) -> str:
    """Domains from hard to easy by their median bits per byte over the models."""
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for model in models:
        for domain in model["domains"]:
            found.setdefault((domain["source"], domain["subdomain"]), {})[model["label"]] = domain

    def middle(key: tuple[str, str]) -> float:
        values = [d["bits_per_byte"]["value"] for d in found[key].values() if d["bits_per_byte"]["value"] is not None]
        return median(values) if values else 0.0

    ordered = sorted(found, key=lambda key: (-middle(key), key))
    largest = max((middle(key) for key in ordered), default=0.0) or 1.0
    head = ["domain", "", "documents", "bytes", *(f"bpb {escape(model['label'])}" for model in models)]
    rows = []
    for key in ordered:
        by_label = found[key]
        first = next(iter(by_label.values()))
        bar = f'<span class="bar" style="width:{8 * middle(key) / largest:.2f}em"></span>'
        name = escape("/".join(part for part in key if part))
        row = [name, bar, f"{first['documents']:,}", f"{first['bytes']:,}"]
        rows.append(row + [_estimate((by_label.get(m["label"]) or {}).get("bits_per_byte")) for m in models])
    return f"<h2>Domains ({len(ordered):,}), hardest first</h2>" + _table(head, rows)


def _pareto(models: list[dict[str, Any]]) -> str:
    """A chart of parameters against macro bits per byte; efficient models are filled."""
    values = [(m["label"], m["model"]["parameters"], m["all"]["macro"]["bits_per_byte"]["value"]) for m in models]
    points = [(label, float(cost), loss) for label, cost, loss in values if loss is not None]
    if len(points) < 2 or obstacles(models, "bits_per_byte"):
        return ""
    efficient = frontier([(cost, loss) for _, cost, loss in points])
    left, right = _bounds([cost for _, cost, _ in points])
    low, high = _bounds([loss for _, _, loss in points])

    def point_of(cost: float, loss: float) -> tuple[float, float]:
        x = _MARGIN + (cost - left) / (right - left) * (_WIDTH - 2 * _MARGIN)
        return x, _HEIGHT - _MARGIN - (loss - low) / (high - low) * (_HEIGHT - 2 * _MARGIN)

    marks = []
    for (label, cost, loss), best in zip(points, efficient, strict=True):
        x, y = point_of(cost, loss)
        fill = "var(--mark)" if best else "none"
        anchor, shift = ("end", -10) if x > _WIDTH / 2 else ("start", 10)
        marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="var(--mark)"/>')
        marks.append(f'<text x="{x + shift:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">{escape(label)}</text>')
    line = sorted((cost, loss) for (_, cost, loss), best in zip(points, efficient, strict=True) if best)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (point_of(*point) for point in line))
    corner = f"{_MARGIN},{_HEIGHT - _MARGIN}"
    axes = (
        f'<polyline points="{_MARGIN},{_MARGIN} {corner} {_WIDTH - _MARGIN},{_HEIGHT - _MARGIN}" fill="none" '
        'stroke="var(--line)"/>'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 12}" text-anchor="middle">parameters</text>'
        f'<text x="{_MARGIN}" y="{_MARGIN - 16}">macro bits per byte</text>'
    )
    for value in sorted({min(p[1] for p in points), max(p[1] for p in points)}):
        x, _ = point_of(value, low)
        axes += f'<text x="{x:.1f}" y="{_HEIGHT - _MARGIN + 18}" text-anchor="middle">{value:,.0f}</text>'
    digits = max(3, 2 - math.floor(math.log10(high - low)))  # enough to distinguish the two
    for value in sorted({min(p[2] for p in points), max(p[2] for p in points)}):
        _, y = point_of(left, value)
        axes += f'<text x="{_MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.{digits}f}</text>'
    return (
        "<h2>Size against loss</h2><p>Filled: no other model is at most as large and as lossy, and better in one.</p>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="parameters against macro bits per byte">{axes}'
        f'<polyline points="{path}" fill="none" stroke="var(--mark)" stroke-dasharray="4 3"/>{"".join(marks)}</svg>'
    )


def _bounds(values: list[float]) -> tuple[float, float]:
    """The range, extended by a tenth at each end; never empty."""
    low, high = min(values), max(values)
    room = (high - low) * 0.1 or abs(high) * 0.1 or 1.0
    return low - room, high + room

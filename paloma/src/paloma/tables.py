"""An aggregate as tables: Markdown for the terminal, CSV for a spreadsheet."""

import csv
import io
from collections.abc import Sequence
from typing import Any

__all__ = ["csv_table", "difference_text", "domain_rows", "format_number", "markdown_table", "overview", "source_rows"]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned table; the first column to the left, the others to the right."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in [head, *rows]]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(head))]
    lines = []
    for row in cells:
        first, *others = row
        padded = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("| " + " | ".join(padded) + " |")
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join(lines)


def csv_table(rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows with the columns of the first; numbers in full, what is unknown empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def domain_rows(value: dict[str, Any]) -> list[dict[str, Any]]:
    """A flat row for each model and domain."""
    return [
        {
            "model": model["label"],
            **{name: d[name] for name in ("source", "subdomain", "documents", "tokens", "bytes", "words", "nll_nats")},
            "bits_per_byte": d["bits_per_byte"]["value"],
            "bits_per_byte_stderr": d["bits_per_byte"]["stderr"],
            "perplexity": d["perplexity"]["value"],
            "perplexity_stderr": d["perplexity"]["stderr"],
            "log_perplexity": d["log_perplexity"]["value"],
        }
        for model in value["models"]
        for d in model["domains"]
    ]


def source_rows(value: dict[str, Any]) -> list[dict[str, Any]]:
    """A flat row for each model and source, and one over all with the source `*`."""
    rows = []
    for model in value["models"]:
        for group in [*model["sources"], {"source": "*"} | model["all"]]:
            row = {"model": model["label"], "tier": model["tier"]}
            row |= {name: group[name] for name in ("source", "domains", "documents", "tokens", "bytes", "nll_nats")}
            for mean in ("pooled", "macro"):
                for metric, estimate in group[mean].items():
                    row |= {f"{mean}_{metric}": estimate["value"], f"{mean}_{metric}_stderr": estimate["stderr"]}
            rows.append(row | {f"median_{metric}": number for metric, number in group["median"].items()})
    return rows


def overview(value: dict[str, Any]) -> str:
    """A table of the sources, then what may be ranked."""
    models = value["models"]
    show_perplexity = value["comparable"]["perplexity"]["allowed"]
    head = ["source", "domains", "documents", "bytes"]
    marks = [model["label"] for model in models] if len(models) > 1 else [""]
    metrics = [("pooled", "bits_per_byte", "bpb"), ("macro", "bits_per_byte", "macro bpb")]
    if show_perplexity:
        metrics += [("pooled", "perplexity", "ppl"), ("macro", "perplexity", "macro ppl")]
    head += [f"{title} {mark}".strip() for _, _, title in metrics for mark in marks]
    names = sorted({source["source"] for model in models for source in model["sources"]})
    rows = []
    for name in [*names, "*"]:
        groups = [_group(model, name) for model in models]
        first = next(group for group in groups if group is not None)
        cells = ["**all**" if name == "*" else name, *(f"{first[key]:,}" for key in ("domains", "documents", "bytes"))]
        rows.append(cells + [_cell(g[mean][metric]) if g else "–" for mean, metric, _ in metrics for g in groups])
    lines = [
        markdown_table(head, rows),
        "± is one standard error over documents (docs/design/paloma.md says how derived).",
    ]
    for model in models:
        held = ", ".join(f["guideline"] for f in model["findings"] if f["holds"]) or "none"
        notes = "".join(f"; {note}" for note in model["notes"])
        lines.append(f"{model['label']}: tier {model['tier']} (guidelines that hold: {held}){notes}.")
    if len(models) > 1:
        for metric, verdict in value["comparable"].items():
            lines += [f"{metric} is not compared: {reason}." for reason in verdict["reasons"]]
        if value["ranking"]:
            lines.append(
                f"Ranked by {value['ranking']['by']}: " + " < ".join(value["ranking"]["models"]) + " (best first)."
            )
            lines += [difference_text(difference) for difference in value["ranking"]["differences"]]
        else:
            lines.append("No ranking: these results are not comparable.")
    return "\n".join(lines)


def difference_text(difference: dict[str, Any]) -> str:
    """One sentence about a pair of neighbours in the ranking."""
    error = "" if difference["stderr"] is None else f" ± {difference['stderr']:.2g}"
    return (
        f"{difference['worse']} is {difference['mean']:.3g}{error} above {difference['better']} (mean over domains, "
        "paired; one standard error over domains) and above it in "
        f"{difference['domains_better']:,} of {difference['domains']:,} domains."
    )


def _group(model: dict[str, Any], name: str) -> dict[str, Any] | None:
    if name == "*":
        group: dict[str, Any] = model["all"]
        return group
    return next((source for source in model["sources"] if source["source"] == name), None)


def _cell(estimate: dict[str, Any]) -> str:
    if estimate["stderr"] is None:
        return format_number(estimate["value"])
    return f"{format_number(estimate['value'])} ± {format_number(estimate['stderr'])}"


def format_number(value: float | None) -> str:
    """Three decimals, none from a thousand on; a dash for what is unknown."""
    if value is None:
        return "–"
    return f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"

"""report.html: a run on one page, next to its metrics.jsonl. What went in, how the losses went, and the settings."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .chat.encode import IGNORED
from .data import Examples, PairExample, SftExample
from .line_chart import line_chart
from .page import cards, document, element, table

__all__ = ["count_sources", "write_report"]

Example = SftExample | PairExample
# title of a chart -> its curves: name in metrics.jsonl and on the page
_CHARTS = {
    "Loss": {"train/loss": "training", "eval/loss": "held out"},
    "Bits per byte of held-out answers": {"eval/bits_per_byte": "held out"},
    "Accuracy of the rewards": {"train/rewards/accuracies": "training", "eval/rewards/accuracies": "held out"},
    "Margin of the rewards": {"train/rewards/margins": "training", "eval/rewards/margins": "held out"},
    "Log-probability of an answer": {"train/logps/chosen": "chosen", "train/logps/rejected": "rejected"},
    "Norm of the gradient": {"train/grad_norm": "training"},
    "Learning rate": {"train/lr": "training"},
    "Tokens per second": {"train/tokens_per_s": "training"},
}
# the same in every evaluation
_COUNTS = ("eval/rows", "eval/tokens", "eval/bytes")


def count_sources(rows: Sequence[Example]) -> dict[str, tuple[int, int, int]]:
    """Return the rows, tokens and trained tokens of each source, in the order in which they appear.

    A pair's tokens are those of both sequences; its answers are trained.
    """
    found: dict[str, tuple[int, int, int]] = {}
    for row in rows:
        count, tokens, trained = found.get(row.source, (0, 0, 0))
        if isinstance(row, PairExample):
            answers = len(row.chosen_ids) + len(row.rejected_ids)
            more = (2 * len(row.prompt_ids) + answers, answers)
        else:
            more = (len(row.input_ids), sum(label != IGNORED for label in row.labels))
        found[row.source] = (count + 1, tokens + more[0], trained + more[1])
    return found


def write_report(
    path: Path,
    title: str,
    settings: str,
    metrics: Sequence[dict[str, Any]],
    examples: Examples[Any],
    evaluation: Examples[Any],
) -> None:
    """Write the page; `metrics` are the rows of metrics.jsonl and `settings` is YAML."""
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in metrics:
        for name, value in row.items():
            if "/" in name:
                curves[name].append((row["step"], value))
    charts = [
        line_chart(chart, [(shown, curves[name]) for name, shown in names.items() if name in curves], "step")
        for chart, names in _CHARTS.items()
    ]
    parts = [cards(*filter(None, charts))]
    evaluations = [row for row in metrics if "eval/loss" in row]
    if evaluations:
        first, last = evaluations[0], evaluations[-1]
        names = [name for name in last if name.startswith("eval/") and name not in _COUNTS]
        rows = [[name.removeprefix("eval/"), f"{first[name]:.5g}", f"{last[name]:.5g}"] for name in names]
        parts += [element("h2", f"Held out ({last['eval/rows']:,} rows)"), table(["", "before", "after"], rows)]
    parts.append(element("h2", "Data"))
    for name, some in (("Training", examples), ("Held out", evaluation)):
        if some.rows:
            parts += [element("h3", name), _data(some)]
    parts += [element("h2", "Settings"), element("pre", settings)]
    path.write_text(document(title, *parts), encoding="utf-8")


def _data(examples: Examples[Any]) -> str:
    sources = count_sources(examples.rows)
    rows = [[name or "(no source)", *counts] for name, counts in sources.items()]
    total = ["all", *(sum(counts) for counts in zip(*sources.values(), strict=True))]
    parts = [table(["source", "rows", "tokens", "trained tokens"], [*rows, total], total=True)]
    left_out = {"truncated": examples.truncated, **{f"left out: {why}": n for why, n in examples.dropped.items()}}
    parts += [element("p", f"{count:,} rows {what}", "note") for what, count in left_out.items() if count]
    return "".join(parts)

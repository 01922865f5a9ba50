"""A run on one HTML page: its curves, what went wrong, config, data, lineage, energy. A pure function of its files."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..formats.contract import FormatError
from ..formats.manifest import lineage
from ..line_chart import line_chart
from ..page import cards, document, element, table
from .record import whole_rows

__all__ = ["render_report"]


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
    parts = [table([], _summary(found))]
    if marks:
        parts.append(element("p", "A dashed red line marks a skipped step or a rewind; see below.", "note"))
    drawn = [
        line_chart(title, [_series(found, n) for n in names], "step", marks=marks) for title, names in _charts(found)
    ]
    parts.append(cards(*filter(None, drawn)))
    if marks:
        parts += [element("h2", "What went wrong"), element("pre", "\n".join(f"step {s}: {what}" for s, what in marks))]
    parts += [element("h2", "Lineage and data"), element("pre", _lineage(directory))]
    for name in ("order.json", "config.yaml"):
        if (directory / name).is_file():
            parts += [element("h2", name), element("pre", (directory / name).read_text(encoding="utf-8"))]
    return document(directory.name, *parts)


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


def _series(found: Sequence[dict[str, Any]], name: str) -> tuple[str, list[tuple[float, float]]]:
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

"""The results as Markdown and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Row", "write_report"]


@dataclass
class Row:
    """One line of the table; values that the peer does not have stay 0."""

    name: str
    bar: float
    """how many times as fast as the peer this should be; 0: no target"""
    text_mb: float
    mb_s: float
    mb_cpu_s: float
    peak_rss_mb: float = 0.0
    peer_text_mb: float = 0.0
    peer_mb_s: float = 0.0
    peer_mb_cpu_s: float = 0.0
    peer_peak_rss_mb: float = 0.0
    too_short: bool = False
    """one of the runs was mostly start-up, so the row means nothing"""

    @property
    def ratio(self) -> float:
        """The ratio of CPU time, which other work on the machine affects least."""
        return self.mb_cpu_s / self.peer_mb_cpu_s if self.peer_mb_cpu_s else 0.0

    def cells(self) -> list[str]:
        """The cells of the table."""
        peer = [f"{self.peer_mb_s:.2f}", f"{self.peer_mb_cpu_s:.2f}", f"{self.peer_text_mb:.1f}", f"{self.ratio:.1f}×"]
        bar = f"{self.bar:g}×" if self.bar else ""
        met = ("yes" if self.ratio >= self.bar else "no") if self.bar and self.ratio else ""
        met = "too short" if self.too_short else met
        memory = f"{self.peak_rss_mb:.0f}" if self.peak_rss_mb else ""
        mine = [self.name, f"{self.mb_s:.1f}", f"{self.mb_cpu_s:.1f}", memory]
        return [*mine, *(peer if self.peer_mb_s else [""] * 4), bar, met]


HEADINGS = (
    *("work, one process", "ours, MB/s", "ours, MB per CPU second", "peak MB"),
    *("peer, MB/s", "peer, MB per CPU second", "peer read MB", "ratio", "target", "met"),
)


def write_report(folder: Path, rows: list[Row], details: dict[str, object], machine: dict[str, object]) -> str:
    """Write results.json and results.md; return the text of results.md."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    size = max((row.text_mb for row in rows), default=0.0)
    named = ", ".join(f"{name} {value}" for name, value in machine.items())
    note = (
        f"MB are megabytes of text, {size:.0f} of them unless a row says otherwise. The ratio is of CPU seconds. Times "
        "exclude start-up: the time that each command takes for one document is subtracted. The peer is dolma 1.2.1, "
        "for language identification fastText's Python binding, and for whole paths in one run datatrove. "
        f"Measured on: {named}."
    )
    more = [f"- {name}: {worded(value)}" for name, value in details.items() if value]
    text = "\n".join(["# dolma-toolkit compared with its peers", "", note, "", *lines, "", *more, ""])
    found = {"machine": machine, "rows": [{**asdict(row), "ratio": row.ratio} for row in rows], "details": details}
    (folder / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "results.md").write_text(text, encoding="utf-8")
    return text


def worded(value: object) -> str:
    """A value as text, for the list below the table."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {worded(inner)}" for name, inner in value.items())
    return f"{value:.2f}" if isinstance(value, float) else str(value)

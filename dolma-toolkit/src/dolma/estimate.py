"""What a run will cost: reads, memory, disk and time, from the rates that ``make bench`` measures."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dolma.files.paths import PACKINGS, Source
from dolma.records import bytes_text, duration_text

__all__ = ["Estimate", "filter_bytes", "text_bytes"]

RATES = {
    "tag": 12.7,
    "dedupe": 95.0,
    "mix": 63.0,
    "tokens": 46.0,
}
"""MB of text per CPU second of each command alone, reading and writing included (dolma-toolkit/bench/results.md)."""

READ_RATE = 98.5
"""MB of text per CPU second to read, parse and write documents and nothing else: the bench's floor."""

WORKER_BYTES = 40 << 20
"""Memory of a thread: a batch of rows, what is made of it, and the buffers of open files."""

BASE_BYTES = 100 << 20
"""Memory of the process before the first row: models and tables."""

PACKED_EXPANSION = 2.6
"""Bytes of text for each byte of a packed document file, on the English web and Wikipedia text of the bench."""


@dataclass(frozen=True)
class Estimate:
    """Of one pass."""

    commands: Sequence[str]
    files: int
    stored_bytes: int
    text_bytes: int
    filters_bytes: int
    threads: int

    @property
    def cpu_s(self) -> float:
        """CPU seconds. Stages of one pass share its read."""
        text_mb = self.text_bytes / 1e6
        alone_s = sum(text_mb / RATES[command] for command in self.commands)
        shared_s = max(0, len(self.commands) - 1) * text_mb / READ_RATE
        return max(alone_s - shared_s, text_mb / READ_RATE)

    def lines(self) -> list[str]:
        """The page's lines about it."""
        memory_bytes = BASE_BYTES + self.threads * WORKER_BYTES + self.filters_bytes
        text = f"{bytes_text(self.stored_bytes)}, about {bytes_text(self.text_bytes)} of text"
        filters = f", {bytes_text(self.filters_bytes)} of it filters" if self.filters_bytes else ""
        duration_s = self.cpu_s / self.threads
        return [
            f"reads {self.files} files ({text}) once",
            f"memory about {bytes_text(memory_bytes)}{filters}",
            f"time about {duration_text(duration_s)} with {self.threads} threads ({self.cpu_s / 3600:.2g} CPU-hours)",
        ]


def text_bytes(sources: Iterable[Source]) -> int:
    """Bytes of text in document files, by their sizes and packings."""
    return int(sum(os.path.getsize(source.path) * _expansion(source.name) for source in sources))


def _expansion(name: str) -> float:
    return PACKED_EXPANSION if name.rsplit(".", 1)[-1] in (*PACKINGS, "parquet") else 1.0


def filter_bytes(settings: Mapping[str, int | float]) -> int:
    """Bytes of a Bloom filter: -n ln p / (ln 2)^2 bits for n keys and the false-positive rate p (Bloom 1970)."""
    size_bytes = int(settings.get("size_in_bytes") or 0)
    if size_bytes:
        return size_bytes
    keys, rate = settings["estimated_doc_count"], settings["desired_false_positive_rate"]
    return math.ceil(-keys * math.log(rate) / math.log(2) ** 2 / 8) if keys and rate else 0

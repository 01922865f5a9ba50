"""What a run will cost: reads, memory, disk, time and money, from the rates that ``make bench`` measures."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dolma.files.paths import PACKINGS, Source
from dolma.records import bytes_text, duration_text

__all__ = ["Estimate", "filter_bytes", "size_bytes", "sizes_table", "text_bytes"]

READ_RATE = 98.5
"""MB of text per CPU second to read, parse and write documents and nothing else: the bench's floor."""

WORK_RATES = {"dedupe": 450.0, "mix": 160.0, "tokens": 53.0}
"""MB of text per CPU second of a command without reading and writing (dolma-toolkit/bench/results.md)."""

TAGGER_RATES = {"gopher_": 112.0, "c4_": 112.0, "ft_lang_id": 24.0, "pii_": 184.0, "repetitions_": 430.0}
"""MB of text per CPU second of taggers, by the beginning of their names."""

OTHER_TAGGER_RATE = 200.0

WORKER_BYTES = 40 << 20
"""Memory of a thread: a batch of rows, what is made of it, and the buffers of open files."""

BASE_BYTES = 100 << 20
"""Memory of the process before the first row: models and tables."""

PACKED_EXPANSION = 2.6
"""Bytes of text for each byte of a packed document file, on the English web and Wikipedia text of the bench."""

TEXT_BYTES_PER_TOKEN = 4.4
"""English text in a vocabulary of 50,000 to 100,000."""

TEXT_BYTES_PER_KEY = {"documents": 3000.0, "paragraphs": 250.0, "ngrams": 6.0}
"""Text for each key of a filter: a web document, one of its paragraphs, a word."""


@dataclass(frozen=True)
class Estimate:
    """Of one pass over documents."""

    stages: Sequence[tuple[str, Sequence[str]]]
    """Commands; `tag` with its taggers."""
    files: int
    stored_bytes: int
    text_bytes: int
    filters_bytes: int
    threads: int

    @property
    def cpu_s(self) -> float:
        """CPU seconds. The stages share one read."""
        seconds_per_mb = 1 / READ_RATE
        for command, taggers in self.stages:
            rates = [_tagger_rate(name) for name in taggers] if command == "tag" else [WORK_RATES[command]]
            seconds_per_mb += sum(1 / rate for rate in rates)
        return self.text_bytes / 1e6 * seconds_per_mb

    @property
    def memory_bytes(self) -> int:
        """Of the process."""
        return BASE_BYTES + self.threads * WORKER_BYTES + self.filters_bytes

    @property
    def written_bytes(self) -> int:
        """Results if every document is kept: token ids of four bytes, or documents packed like the input."""
        if any(command == "tokens" for command, _ in self.stages):
            return int(self.text_bytes / TEXT_BYTES_PER_TOKEN * 4)
        return self.stored_bytes

    def lines(self) -> list[str]:
        """The plan's lines about it."""
        text = f"{bytes_text(self.stored_bytes)}, about {bytes_text(self.text_bytes)} of text"
        filters = f", {bytes_text(self.filters_bytes)} of it filters" if self.filters_bytes else ""
        duration = duration_text(self.cpu_s / self.threads)
        return [
            f"reads {self.files} files ({text})",
            f"memory about {bytes_text(self.memory_bytes)}{filters}",
            f"disk up to {bytes_text(self.written_bytes)} of results",
            f"time about {duration} with {self.threads} threads ({self.cpu_s / 3600:.2g} CPU-hours)",
        ]


def sizes_table(
    passes: Sequence[Estimate], keys: Sequence[Mapping[str, Any]], sizes: Sequence[int], price: float
) -> list[str]:
    """What the passes would cost at other sizes. ``keys`` has settings of dedupe, ``price`` is that of a core-hour."""
    lines = ["text      CPU-hours  cores for a day  filters   read      written   cost"]
    for size in sizes:
        filters = sum(_filter_bytes_for(settings, size) for settings in keys)
        scaled = [replace(one, text_bytes=size, stored_bytes=int(size / PACKED_EXPANSION)) for one in passes]
        hours = sum(one.cpu_s for one in scaled) / 3600
        read, written = sum(one.stored_bytes for one in scaled), scaled[-1].written_bytes
        cells = [bytes_text(filters), bytes_text(read), bytes_text(written)]
        lines.append(
            f"{bytes_text(size):<9} {hours:>9,.0f}  {math.ceil(hours / 24):>15,}  "
            + "".join(f"{cell:<10}" for cell in cells)
            + f"${hours * price:,.0f}"
        )
    return lines


def _filter_bytes_for(settings: Mapping[str, Any], text_size: int) -> int:
    [(unit, compared)] = settings["unit"].items()
    kind = "ngrams" if compared.get("by_ngram") else unit
    bloom_filter = settings["bloom_filter"]
    if bloom_filter["read_only"]:
        return filter_bytes(bloom_filter)
    rate = bloom_filter["desired_false_positive_rate"] or 1e-5
    keys = int(text_size / TEXT_BYTES_PER_KEY[kind])
    return filter_bytes({"estimated_doc_count": keys, "desired_false_positive_rate": rate})


def _tagger_rate(name: str) -> float:
    return next((rate for prefix, rate in TAGGER_RATES.items() if name.startswith(prefix)), OTHER_TAGGER_RATE)


def text_bytes(sources: Iterable[Source]) -> int:
    """Bytes of text in document files, by their sizes and packings."""
    return int(sum(os.path.getsize(source.path) * _expansion(source.name) for source in sources))


def _expansion(name: str) -> float:
    return PACKED_EXPANSION if name.rsplit(".", 1)[-1] in (*PACKINGS, "parquet") else 1.0


def filter_bytes(settings: Mapping[str, Any]) -> int:
    """Bytes of a Bloom filter: -n ln p / (ln 2)^2 bits for n keys and the false-positive rate p (Bloom 1970)."""
    size = int(settings.get("size_in_bytes") or 0)
    if size:
        return size
    keys, rate = settings["estimated_doc_count"], settings["desired_false_positive_rate"]
    return math.ceil(-keys * math.log(rate) / math.log(2) ** 2 / 8) if keys and rate else 0


def size_bytes(text: str) -> int | None:
    """``10TB``, ``500 GB``, ``1PB`` in bytes; None if it is not a size."""
    found = re.fullmatch(r"\s*([\d.]+)\s*([KMGTP]?)B\s*", text, re.IGNORECASE)
    if not found:
        return None
    return int(float(found[1]) * 1000 ** " KMGTP".index(found[2].upper() or " "))

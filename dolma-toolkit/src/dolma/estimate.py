"""What a run will cost: reads, memory, disk, time and money, from measured rates (docs/guide/planning.md)."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dolma.files.paths import PACKINGS, Source
from dolma.records import bytes_text, duration_text

__all__ = ["Estimate", "compared", "filter_bytes", "size_bytes", "sizes_table", "text_bytes"]

READ_RATE = 150.0
"""MB of text per CPU second to read and parse documents and nothing else.

This rate and the others are those of an Intel Xeon (Sapphire Rapids), from bench/results.md."""

WORK_RATES = {"documents": 590.0, "paragraphs": 590.0, "ngrams": 85.0, "mix": 73.0, "tokens": 54.0}
"""MB of text per CPU second without reading: of a command, for `dedupe` by what it compares."""

TAGGER_RATES = {"gopher_": 57.0, "c4_": 430.0, "ft_lang_id": 112.0, "pii_": 500.0, "repetitions_": 250.0}
"""MB of text per CPU second of taggers, by the beginning of their names."""

OTHER_TAGGER_RATE = 150.0

WORKER_BYTES = 40 << 20
"""Memory of a thread: a batch of rows, what is made of it, and the buffers of open files."""

BASE_BYTES = 100 << 20
"""Memory of the process before the first row: models and tables."""

PACKED_EXPANSION = 2.6
"""Bytes of text for each byte of a packed document file, on the English web and Wikipedia text of the bench."""

DAY_S = 24 * 3600

TEXT_BYTES_PER_TOKEN = 4.4
"""English text in a vocabulary of 50,000 to 100,000."""

TEXT_BYTES_PER_KEY = {"documents": 3000.0, "paragraphs": 250.0, "ngrams": 6.0}
"""Text for each key of a filter: a web document, one of its paragraphs, a word."""


@dataclass(frozen=True)
class Estimate:
    """Of one pass over documents."""

    work: Sequence[str]
    """Taggers, what a dedupe compares, and other commands."""
    files: int
    stored_bytes: int
    text_bytes: int
    filters_bytes: int
    threads: int

    @property
    def cpu_s(self) -> float:
        """CPU seconds. The stages share one read."""
        return self.text_bytes / 1e6 * (1 / READ_RATE + sum(1 / _rate(name) for name in self.work))

    @property
    def memory_bytes(self) -> int:
        """Of the process."""
        return BASE_BYTES + self.threads * WORKER_BYTES + self.filters_bytes

    @property
    def written_bytes(self) -> int:
        """Results if every document is kept: token ids of four bytes, or documents packed like the input."""
        if "tokens" in self.work:
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
    lines = ["text      CPU-hours  cores for a day  filters   read      written   network for a day  cost"]
    for size in sizes:
        filters = sum(_filter_bytes_for(settings, size) for settings in keys)
        scaled = [replace(one, text_bytes=size, stored_bytes=int(size / PACKED_EXPANSION)) for one in passes]
        hours = sum(one.cpu_s for one in scaled) / 3600
        read, written = sum(one.stored_bytes for one in scaled), scaled[-1].written_bytes
        cells = [bytes_text(filters), bytes_text(read), bytes_text(written)]
        lines.append(
            f"{bytes_text(size):<9} {hours:>9,.0f}  {math.ceil(hours * 3600 / DAY_S):>15,}  "
            + "".join(f"{cell:<10}" for cell in cells)
            + f"{_gigabits_per_s(read + written, DAY_S):>10,.2f} Gbit/s  "
            + f"${hours * price:,.0f}"
        )
    return lines


def _gigabits_per_s(amount_bytes: int, time_s: float) -> float:
    return amount_bytes * 8 / 1e9 / time_s


def _filter_bytes_for(settings: Mapping[str, Any], text_size: int) -> int:
    bloom_filter = settings["bloom_filter"]
    if bloom_filter["read_only"]:
        return filter_bytes(bloom_filter)
    rate = bloom_filter["desired_false_positive_rate"] or 1e-5
    keys = int(text_size / TEXT_BYTES_PER_KEY[compared(settings)])
    return filter_bytes({"estimated_doc_count": keys, "desired_false_positive_rate": rate})


def _rate(name: str) -> float:
    if name in WORK_RATES:
        return WORK_RATES[name]
    return next((rate for prefix, rate in TAGGER_RATES.items() if name.startswith(prefix)), OTHER_TAGGER_RATE)


def compared(settings: Mapping[str, Any]) -> str:
    """What a dedupe compares, from its settings for the core."""
    [(unit, details)] = settings["unit"].items()
    return "ngrams" if details.get("by_ngram") else str(unit)


def text_bytes(sources: Iterable[Source]) -> int:
    """Bytes of text in document files, by their sizes and packings."""
    return int(sum(os.path.getsize(source.path) * _expansion(source.name) for source in sources))


def _expansion(name: str) -> float:
    return PACKED_EXPANSION if name.rsplit(".", 1)[-1] in (*PACKINGS, "parquet") else 1.0


def filter_bytes(settings: Mapping[str, Any]) -> int:
    """Bytes of a new filter, as the core sizes it (docs/formats/filter.md)."""
    size = int(settings.get("size_in_bytes") or 0)
    keys, rate = settings["estimated_doc_count"], settings["desired_false_positive_rate"]
    if size or not (keys and rate):
        return size
    blocks_per_key = min(max(math.ceil(math.log(rate) / math.log(1e-5) - 1e-9), 1), 4)
    positions = min(max(math.ceil(-math.log2(rate) / blocks_per_key / 2) + 1, 2), 14)
    load = _highest_load(positions, rate ** (1 / blocks_per_key))
    blocks = math.ceil(float(keys) * blocks_per_key / load)
    return 64 * max(1, blocks)


def _highest_load(positions: int, rate: float) -> float:
    """The mean number of keys in a block of 512 bits at which a new key is called seen with probability ``rate``."""
    import numpy as np

    share = np.arange(513) / 512
    chances = np.zeros(513)  # of each number of set bits
    chances[0] = 1.0
    rates = [0.0]  # by the number of keys in the block
    while rates[-1] < 0.99:
        for _ in range(positions):
            grows = chances * (1 - share)
            chances *= share
            chances[1:] += grows[:-1]
        rates.append(float(chances @ share**positions))
    keys = np.arange(len(rates))
    log_factorials = np.cumsum(np.log(np.maximum(keys, 1)))
    fits, exceeds = 0.0, float(len(rates))
    for _ in range(60):
        load = (fits + exceeds) / 2
        poisson = np.exp(keys * math.log(load) - load - log_factorials)
        if poisson @ rates + max(0.0, 1 - poisson.sum()) <= rate:
            fits = load
        else:
            exceeds = load
    return fits


def size_bytes(text: str) -> int | None:
    """``10TB``, ``500 GB``, ``1PB`` in bytes; None if it is not a size."""
    found = re.fullmatch(r"\s*([\d.]+)\s*([KMGTP]?)B\s*", text, re.IGNORECASE)
    if not found:
        return None
    return int(float(found[1]) * 1000 ** " KMGTP".index(found[2].upper() or " "))

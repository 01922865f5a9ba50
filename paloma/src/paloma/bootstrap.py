"""Intervals by a block bootstrap: the documents of each domain are drawn with replacement, the domains stay.

Tokens of one document are not independent, so documents are the blocks. The draws of a domain depend only on the seed,
its name and its number of documents. Models that were scored on the same documents therefore get the same draws, and
differences between them are paired.

A domain of one document is the same in every draw. It adds nothing to an interval, and their number is reported.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paloma.metrics import LARGEST
from paloma.submission import DocumentRow

__all__ = ["Replicates", "interval", "resample"]

Array = np.ndarray[Any, np.dtype[np.float64]]
_DRAWS_AT_ONCE = 2_000_000
_LEVEL = (0.025, 0.975)


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """Sums of each domain (row) in each draw (column); `single` counts domains of one document."""

    keys: tuple[tuple[str, str], ...]
    nll_nats: Array
    tokens: Array
    bytes: Array
    single: int

    def of(self, contains: Callable[[tuple[str, str]], bool]) -> "Replicates":
        """Some of the domains."""
        rows = [index for index, key in enumerate(self.keys) if contains(key)]
        parts = (self.nll_nats[rows], self.tokens[rows], self.bytes[rows])
        keys = tuple(self.keys[row] for row in rows)
        return Replicates(keys=keys, nll_nats=parts[0], tokens=parts[1], bytes=parts[2], single=self.single)

    def domains(self, metric: str) -> Array:
        """A metric of every domain with text, in every draw."""
        units = self.bytes * math.log(2) if metric == "bits_per_byte" else self.tokens
        known = units.min(axis=1) > 0
        ratio: Array = self.nll_nats[known] / units[known]
        return _perplexity(ratio) if metric == "perplexity" else ratio

    def pooled(self, metric: str) -> Array:
        """A metric of all domains as one text, in every draw."""
        units = (self.bytes * math.log(2) if metric == "bits_per_byte" else self.tokens).sum(axis=0)
        ratio: Array = self.nll_nats.sum(axis=0) / np.maximum(units, 1e-300)
        return _perplexity(ratio) if metric == "perplexity" else ratio

    def macro(self, metric: str) -> Array:
        """The mean over domains, in every draw."""
        return np.asarray(self.domains(metric).mean(axis=0), dtype=np.float64)

    def median(self, metric: str) -> Array:
        """The median over domains, in every draw."""
        return np.asarray(np.median(self.domains(metric), axis=0), dtype=np.float64)


def _perplexity(log: Array) -> Array:
    return np.exp(np.minimum(log, math.log(LARGEST)))


def interval(values: Array) -> list[float]:
    """The central 95 % of the draws."""
    low, high = np.quantile(values, _LEVEL)
    return [float(low), float(high)]


def resample(rows: Sequence[DocumentRow], count: int, seed: int) -> Replicates:
    """Draw the documents of each domain `count` times."""
    found: dict[tuple[str, str], list[DocumentRow]] = {}
    for row in rows:
        found.setdefault((row.source, row.subdomain), []).append(row)
    keys = tuple(sorted(found))
    sums = np.empty((3, len(keys), count))
    for index, key in enumerate(keys):
        documents = sorted(found[key], key=lambda row: row.id)
        values = np.array([(row.nll_nats, row.tokens, row.bytes) for row in documents]).T
        sums[:, index] = _draw(np.ascontiguousarray(values), count, _generator(seed, key))
    single = sum(len(documents) == 1 for documents in found.values())
    return Replicates(keys=keys, nll_nats=sums[0], tokens=sums[1], bytes=sums[2], single=single)


def _generator(seed: int, key: tuple[str, str]) -> np.random.Generator:
    digest = hashlib.sha256("\0".join((str(seed), *key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8]))


def _draw(values: Array, count: int, generator: np.random.Generator) -> Array:
    """Sums of draws of as many columns as `values` has: an array of its rows by draws."""
    columns = values.shape[1]
    if columns == 1:
        return np.repeat(values, count, axis=1)
    parts = []
    step = max(1, _DRAWS_AT_ONCE // columns)
    for start in range(0, count, step):
        drawn = generator.integers(0, columns, (min(step, count - start), columns), dtype=np.uint32)
        parts.append(np.stack([row[drawn].sum(axis=1) for row in values]))
    return np.concatenate(parts, axis=1)

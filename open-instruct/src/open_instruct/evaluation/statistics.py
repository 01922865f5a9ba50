"""Means of rows, with standard errors and 95 % intervals."""

import math
from collections import defaultdict
from collections.abc import Sequence

__all__ = ["Estimate", "estimate", "wilson"]

from dataclasses import dataclass

_Z95 = 1.959963984540054  # two-sided 95 % point of the normal distribution


@dataclass(frozen=True)
class Estimate:
    """A mean, its standard error and 95 % interval (both None for one value), and the number of values."""

    value: float
    stderr: float | None
    interval: tuple[float, float] | None
    n: int


def estimate(values: Sequence[float], clusters: Sequence[str] | None = None) -> Estimate:
    """Estimate the mean. Values of one cluster count as one observation.

    The interval of a share, which has only the values 0 and 1, is Wilson's (1927), which is sensible near 0 and 1;
    otherwise, and with clusters, it is that of the normal distribution.
    """
    n = len(values)
    mean = math.fsum(values) / n
    groups: dict[str, list[float]] = defaultdict(list)
    for index, value in enumerate(values):
        groups[clusters[index] if clusters else str(index)].append(value - mean)
    if len(groups) < 2:
        return Estimate(mean, None, None, n)
    squares = math.fsum(math.fsum(group) ** 2 for group in groups.values())
    stderr = math.sqrt(squares * len(groups) / (len(groups) - 1)) / n
    if clusters is None and all(value in (0, 1) for value in values):
        return Estimate(mean, stderr, wilson(mean, n), n)
    return Estimate(mean, stderr, (mean - _Z95 * stderr, mean + _Z95 * stderr), n)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of n observations (Wilson 1927)."""
    square = _Z95 * _Z95
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = _Z95 / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)

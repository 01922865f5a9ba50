"""Standard errors, intervals and paired tests. One implementation for results, verify and report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "Z95",
    "Paired",
    "interval",
    "mcnemar_p",
    "mean_and_stderr",
    "paired_difference",
    "paired_ratio_difference",
    "ratio_stderr",
    "wilson",
]

Z95 = 1.959963984540054  # two-sided 95 % point of the normal distribution


def mean_and_stderr(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and s / √n with the unbiased s; no standard error for one value."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return mean, math.sqrt(variance / n)


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927): sensible near 0 and 1, where ± 1.96 standard errors is not."""
    square = Z95 * Z95
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = Z95 / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def interval(metric: str, value: float, stderr: float | None, n: int) -> tuple[float, float] | None:
    """95 % interval: Wilson for an accuracy, normal otherwise; None without a standard error."""
    if metric.startswith("acc_"):
        return wilson(value, n)
    return None if stderr is None else (value - Z95 * stderr, value + Z95 * stderr)


def ratio_stderr(numerators: Sequence[float], denominators: Sequence[float]) -> float | None:
    """Standard error of Σa / Σb over documents by the delta method: √(n/(n−1) · Σ(a − R·b)²) / Σb; None for one."""
    n, total = len(numerators), math.fsum(denominators)
    if n < 2 or total == 0:
        return None
    ratio = math.fsum(numerators) / total
    squares = math.fsum((a - ratio * b) ** 2 for a, b in zip(numerators, denominators, strict=True))
    return math.sqrt(squares * n / (n - 1)) / total


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The difference second − first on the same items; `p` is two-sided."""

    difference: float
    stderr: float | None
    p: float | None
    n: int


def _normal_p(difference: float, stderr: float | None) -> float | None:
    if stderr is None:
        return None
    if stderr == 0:
        return 1.0 if difference == 0 else 0.0
    return math.erfc(abs(difference / stderr) / math.sqrt(2))


def mcnemar_p(first_only: int, second_only: int) -> float:
    """Exact two-sided McNemar test: the chance of a split at least as uneven among the items that differ."""
    n, smaller = first_only + second_only, min(first_only, second_only)
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, count) for count in range(smaller + 1))
    chance: float = 2 * tail / 2**n
    return min(1.0, chance)


def paired_difference(first: Sequence[float], second: Sequence[float], *, binary: bool) -> Paired:
    """Mean difference with the standard error of the differences; McNemar's p for right-or-wrong values."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    mean, stderr = mean_and_stderr(differences)
    if binary:
        p: float | None = mcnemar_p(sum(value < 0 for value in differences), sum(value > 0 for value in differences))
    else:
        p = _normal_p(mean, stderr)
    return Paired(difference=mean, stderr=stderr, p=p, n=len(differences))


def paired_ratio_difference(first: Sequence[float], second: Sequence[float], sizes: Sequence[float]) -> Paired:
    """Σ(second − first) / Σsizes over the same documents, standard error by the delta method."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    difference = math.fsum(differences) / math.fsum(sizes)
    stderr = ratio_stderr(differences, sizes)
    return Paired(difference=difference, stderr=stderr, p=_normal_p(difference, stderr), n=len(differences))

"""Every metric of a multiple-choice item, how numbers are rounded, and their standard errors and paired tests.

With L_k = Σ ln p(choice k | context) in nats, the chosen k has the largest L_k (raw), L_k per token, per character or
per byte of the continuation with its leading space (Catwalk, OLMES), or L_k − Σ ln p(choice k | "Answer:")
(unconditional). Results, `verify` and the report all use these functions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from catwalk.types import ItemScore

__all__ = [
    "Z95",
    "Paired",
    "holm",
    "interval",
    "item_metrics",
    "mcnemar_p",
    "mean_and_stderr",
    "paired_difference",
    "paired_ratio_difference",
    "predicted",
    "ratio_stderr",
    "round_logprob",
    "round_significant",
    "task_metrics",
    "wilson",
]

Z95 = 1.959963984540054  # two-sided 95 % point of the normal distribution
_ABOVE_ZERO = 1e-2  # nats of slack for other kernels: float32 on a CPU never rounds a token above 0


# ---- rounding: stored numbers are rounded, and everything derived is derived from the rounded numbers


def round_logprob(value: float) -> float:
    """Six decimals: finer than float32 noise of a sum, coarse enough to be equal from run to run. Never −0.0.

    Raises:
        ValueError: for NaN, infinity, or a value further above 0 than rounding explains.
    """
    if not math.isfinite(value) or value > _ABOVE_ZERO:
        raise ValueError(f"the log-probability is {value}; expected a finite number of at most 0")
    return min(round(float(value), 6), 0.0) + 0.0


def round_significant(value: float) -> float:
    """Ten significant digits.

    Raises:
        ValueError: for NaN and infinity.
    """
    if not math.isfinite(value):
        raise ValueError(f"a result is {value}; expected a finite number")
    return float(f"{value:.10g}") if value else 0.0


# ---- multiple choice


def predicted(score: ItemScore) -> dict[str, int]:
    """The chosen index under each normalisation, the first of equal ones."""
    raw = score.sum_logprobs
    values = {
        "acc_raw": raw,
        "acc_per_token": [value / length for value, length in zip(raw, score.tokens, strict=True)],
        "acc_per_char": [value / length for value, length in zip(raw, score.chars, strict=True)],
        "acc_per_byte": [value / length for value, length in zip(raw, score.bytes, strict=True)],
        "acc_unconditional": [a - b for a, b in zip(raw, score.sum_logprobs_unconditional, strict=True)],
    }
    return {name: list(found).index(max(found)) for name, found in values.items()}


def item_metrics(score: ItemScore) -> dict[str, float]:
    """Every metric of one item; a task's metric is their mean.

    `bits_per_byte_gold` is −L_gold / (bytes · ln 2). `probability_mass` is Σ exp(L_k); it approaches 0 when the model
    expects something other than any of the choices.
    """
    values = {name: float(index == score.label) for name, index in predicted(score).items()}
    gold = score.label
    values["bits_per_byte_gold"] = -score.sum_logprobs[gold] / (score.bytes[gold] * math.log(2))
    values["probability_mass"] = math.fsum(math.exp(value) for value in score.sum_logprobs)
    return values


def task_metrics(scores: Sequence[ItemScore]) -> dict[str, dict[str, Any]]:
    """`{name: {value, stderr, n}}` as docs/formats/results.md stores it."""
    rows = [item_metrics(score) for score in scores]
    metrics: dict[str, dict[str, Any]] = {}
    for name in rows[0]:
        mean, stderr = mean_and_stderr([row[name] for row in rows])
        metrics[name] = {
            "value": round_significant(mean),
            "stderr": None if stderr is None else round_significant(stderr),
            "n": len(rows),
        }
    return metrics


# ---- standard errors and intervals


def mean_and_stderr(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and s / √n with the unbiased s; no standard error for one value."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return mean, math.sqrt(variance / n)


def ratio_stderr(numerators: Sequence[float], denominators: Sequence[float]) -> float | None:
    """Standard error of Σa / Σb over documents by the delta method: √(n/(n−1) · Σ(a − R·b)²) / Σb; None for one."""
    n, total = len(numerators), math.fsum(denominators)
    if n < 2 or total == 0:
        return None
    ratio = math.fsum(numerators) / total
    squares = math.fsum((a - ratio * b) ** 2 for a, b in zip(numerators, denominators, strict=True))
    return math.sqrt(squares * n / (n - 1)) / total


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


# ---- two models on the same items: paired differences see smaller effects than two separate intervals


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The difference second − first on the same items; `p` is two-sided."""

    difference: float
    stderr: float | None
    p: float | None
    n: int


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


def mcnemar_p(first_only: int, second_only: int) -> float:
    """Exact two-sided McNemar test: the chance of a split at least as uneven among the items that differ."""
    n, smaller = first_only + second_only, min(first_only, second_only)
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, count) for count in range(smaller + 1))
    chance: float = 2 * tail / 2**n
    return min(1.0, chance)


def _normal_p(difference: float, stderr: float | None) -> float | None:
    if stderr is None:
        return None
    if stderr == 0:
        return 1.0 if difference == 0 else 0.0
    return math.erfc(abs(difference / stderr) / math.sqrt(2))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for their number (Holm 1979); None stays None."""
    order = sorted((index for index, p in enumerate(ps) if p is not None), key=lambda index: ps[index] or 0.0)
    adjusted: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * (ps[index] or 0.0)))
        adjusted[index] = highest
    return adjusted

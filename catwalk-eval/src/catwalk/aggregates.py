"""Metrics of a task that are not means over its items: those of lm-evaluation-harness, under its names.

Each takes the parts of all items. A part is one number, or two; null stands for an item that does not count.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["AGGREGATES"]

Parts = Sequence[Sequence[float]]
Array = np.ndarray[Any, np.dtype[np.float64]]


def _nanmean(parts: Sequence[Sequence[float | None]]) -> float | None:
    """The mean over the items that count, or None."""
    values = [part[0] for part in parts if part[0] is not None]
    return math.fsum(values) / len(values) if values else None


def _perplexity(parts: Parts) -> float:
    """exp of the mean negative log-likelihood."""
    return math.exp(-math.fsum(part[0] for part in parts) / len(parts))


def _nats_per_unit(parts: Parts) -> float:
    """From log-likelihoods and the numbers of words or bytes."""
    return -math.fsum(part[0] for part in parts) / math.fsum(part[1] for part in parts)


def _weighted_perplexity(parts: Parts) -> float:
    return math.exp(_nats_per_unit(parts))


def _bits_per_byte(parts: Parts) -> float:
    return _nats_per_unit(parts) / math.log(2)


def _f1_score(parts: Parts) -> float:
    """F1 of the label 1, from pairs of label and prediction in either order."""
    both = sum(a == b == 1 for a, b in parts)
    wrong = sum((a == 1) != (b == 1) for a, b in parts)
    return 2 * both / (2 * both + wrong) if both else 0.0


def _matthews_corrcoef(parts: Parts) -> float:
    """Of labels and predictions, with any number of classes."""
    classes = sorted({value for part in parts for value in part})
    first, second = (np.array([[part[i] == one for one in classes] for part in parts], dtype=float) for i in (0, 1))

    def covariance(x: Array, y: Array) -> float:
        return float(np.sum((x - x.mean(axis=0)) * (y - y.mean(axis=0))))

    scale = math.sqrt(covariance(first, first) * covariance(second, second))
    return covariance(first, second) / scale if scale else 0.0


AGGREGATES: dict[str, Callable[[Any], float | None]] = {
    "nanmean": _nanmean,
    "perplexity": _perplexity,
    "weighted_perplexity": _weighted_perplexity,
    "bits_per_byte": _bits_per_byte,
    "f1_score": _f1_score,
    "matthews_corrcoef": _matthews_corrcoef,
}

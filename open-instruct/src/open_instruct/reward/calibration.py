"""How often a reward model prefers the better answer, and whether it knows how sure it can be."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..evaluation.statistics import wilson

__all__ = ["Bin", "Calibration", "calibrate"]

_BINS = 10


@dataclass(frozen=True)
class Bin:
    """Pairs whose confidence is in [low, high): how many, their mean confidence and their accuracy."""

    low: float
    high: float
    pairs: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Accuracy with its 95 % interval, the expected calibration error, and the reliability table (bins with pairs)."""

    pairs: int
    accuracy: float
    interval: tuple[float, float]
    expected_error: float
    bins: tuple[Bin, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def calibrate(margins: Sequence[float]) -> Calibration:
    """Judge margins r_chosen − r_rejected, at least one; a tie counts as half right.

    The confidence in the answer with the higher reward is σ(|margin|), between 0.5 and 1, in ten bins of equal width.
    The expected error is Σ pairs/all · |accuracy − confidence| (Guo et al. 2017, arXiv:1706.04599, equation 3).
    """
    right = [0.5 if margin == 0 else float(margin > 0) for margin in margins]
    confidences = [1 / (1 + math.exp(-abs(margin))) for margin in margins]
    width = 0.5 / _BINS
    members: list[list[int]] = [[] for _ in range(_BINS)]
    for index, confidence in enumerate(confidences):
        members[min(int((confidence - 0.5) / width), _BINS - 1)].append(index)
    bins = tuple(
        Bin(
            low=round(0.5 + number * width, 6),
            high=round(0.5 + (number + 1) * width, 6),
            pairs=len(inside),
            confidence=math.fsum(confidences[index] for index in inside) / len(inside),
            accuracy=math.fsum(right[index] for index in inside) / len(inside),
        )
        for number, inside in enumerate(members)
        if inside
    )
    count = len(margins)
    accuracy = math.fsum(right) / count
    error = math.fsum(one.pairs * abs(one.accuracy - one.confidence) for one in bins) / count
    return Calibration(count, accuracy, wilson(accuracy, count), error, bins)

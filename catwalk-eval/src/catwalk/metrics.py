"""Every metric of a multiple-choice item, and how numbers are rounded.

With L_k = Σ ln p(choice k | context) in nats, the chosen k has the largest L_k (raw), L_k per token, per character or
per byte of the continuation with its leading space (Catwalk, OLMES), or L_k − Σ ln p(choice k | "Answer:")
(unconditional; absent from items without such a context). Results, `verify` and the report all use these functions.
"""

import math
from collections.abc import Sequence

from catwalk.types import ItemScore

__all__ = [
    "choice_values",
    "item_metrics",
    "predicted",
    "round_logprob",
    "round_significant",
]

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


def choice_values(score: ItemScore) -> dict[str, Sequence[float]]:
    """What is compared between the choices, under each normalisation."""
    raw = score.sum_logprobs
    values: dict[str, Sequence[float]] = {
        "acc_raw": raw,
        "acc_per_token": [value / length for value, length in zip(raw, score.tokens, strict=True)],
        "acc_per_char": [value / length for value, length in zip(raw, score.chars, strict=True)],
        "acc_per_byte": [value / length for value, length in zip(raw, score.bytes, strict=True)],
    }
    if score.sum_logprobs_unconditional is not None:
        values["acc_unconditional"] = [a - b for a, b in zip(raw, score.sum_logprobs_unconditional, strict=True)]
    return values


def predicted(score: ItemScore) -> dict[str, int]:
    """The chosen index under each normalisation, the first of equal ones."""
    return {name: list(found).index(max(found)) for name, found in choice_values(score).items()}


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

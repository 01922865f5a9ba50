"""Multiple choice: every normalisation from one set of log-probabilities.

With L_k = Σ ln p(choice k | context): raw L_k; per token L_k / tokens; per character and per byte L_k / length of the
continuation with its leading space (Catwalk, OLMES); unconditional L_k − Σ ln p(choice k | "Answer:").
"""

import math
from collections.abc import Sequence
from typing import Any

from catwalk.scoring.numbers import round_significant
from catwalk.scoring.uncertainty import mean_and_stderr
from catwalk.types import ItemScore

__all__ = ["ACCURACIES", "item_metrics", "predicted", "task_metrics"]

ACCURACIES = ("acc_raw", "acc_per_token", "acc_per_char", "acc_per_byte", "acc_unconditional")


def _best(values: Sequence[float]) -> int:
    """Index of the largest value, the first of equal ones."""
    return max(range(len(values)), key=lambda index: (values[index], -index))


def predicted(score: ItemScore) -> dict[str, int]:
    """The chosen index under each normalisation."""
    raw, free = score.sum_logprobs, score.sum_logprobs_unconditional
    return {
        "acc_raw": _best(raw),
        "acc_per_token": _best([value / length for value, length in zip(raw, score.tokens, strict=True)]),
        "acc_per_char": _best([value / length for value, length in zip(raw, score.chars, strict=True)]),
        "acc_per_byte": _best([value / length for value, length in zip(raw, score.bytes, strict=True)]),
        "acc_unconditional": _best([value - base for value, base in zip(raw, free, strict=True)]),
    }


def item_metrics(score: ItemScore) -> dict[str, float]:
    """Every metric of one item; a task's metric is their mean.

    `bits_per_byte_gold` is −L_gold / (bytes · ln 2); `probability_mass` is Σ exp(L_k), which falls towards 0 when the
    model expects something else than any of the choices.
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

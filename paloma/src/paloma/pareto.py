"""Efficient models: those that no other model beats in both cost and loss, and how sure that is.

The probability is the share of the bootstrap's draws in which a model is efficient. Draws are paired (bootstrap.py).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from paloma.bootstrap import Array
from paloma.metrics import frontier

__all__ = ["efficiency"]


def efficiency(
    labels: Sequence[str],
    costs: Sequence[float],
    losses: Sequence[float],
    draws: Sequence[Array] | None,
    domains: Sequence[dict[str, float]],
) -> list[dict[str, Any]]:
    """A row for each model: `efficient`, its `probability` in the draws, and its share of domains where it is so.

    `domains` has the losses of each model by domain, the same domains for all.
    """
    efficient = frontier(list(zip(costs, losses, strict=True)))
    chances = None if draws is None else _probabilities(np.array(costs), np.stack(draws))
    per_domain = [
        frontier([(cost, found[name]) for cost, found in zip(costs, domains, strict=True)]) for name in domains[0]
    ]
    return [
        {
            "model": label,
            "cost": costs[index],
            "loss": losses[index],
            "efficient": efficient[index],
            "probability": None if chances is None else float(chances[index]),
            "domains_efficient": sum(flags[index] for flags in per_domain),
        }
        for index, label in enumerate(labels)
    ]


def _probabilities(costs: Array, losses: Array) -> Array:
    """Share of draws (columns) in which each model (row) is efficient."""
    beaten = np.zeros(losses.shape, dtype=bool)
    for other in range(len(costs)):
        no_worse = (costs[other] <= costs)[:, None] & (losses[other] <= losses)
        better = (costs[other] < costs)[:, None] | (losses[other] < losses)
        beaten |= no_worse & better
    return np.asarray(1.0 - beaten.mean(axis=1), dtype=np.float64)

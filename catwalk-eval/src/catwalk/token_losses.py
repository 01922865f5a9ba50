"""The loss by vocabulary type: how often each token id occurs, and its −Σ ln p. `types.jsonl.gz` of results.

Ids, and not strings: different ids may decode to the same string, such as parts of a character. No torch.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from catwalk.metrics import round_significant
from catwalk.types import DocumentScore

__all__ = ["TYPES", "type_losses", "type_rows"]

TYPES = "types.jsonl.gz"


def type_losses(
    owners: npt.NDArray[np.int64], ids: npt.NDArray[np.int64], logprobs: npt.NDArray[np.float32], count: int
) -> list[tuple[tuple[int, int, float], ...]]:
    """For each of `count` owners of scored tokens: the ids that occur, ascending, with their counts and −Σ ln p."""
    size = int(ids.max()) + 1 if len(ids) else 1
    keys, index = np.unique(owners * size + ids, return_inverse=True)
    counts = np.bincount(index, minlength=len(keys))
    losses = np.bincount(index, weights=-logprobs.astype(np.float64), minlength=len(keys))
    found: list[list[tuple[int, int, float]]] = [[] for _ in range(count)]
    for key, number, loss in zip(keys.tolist(), counts.tolist(), losses.tolist(), strict=True):
        found[key // size].append((key % size, number, max(0.0, round_significant(loss))))
    return [tuple(rows) for rows in found]


def type_rows(documents: Iterable[DocumentScore]) -> list[dict[str, Any]]:
    """A row for each (source, subdomain), sorted, with parallel arrays: ids in ascending order, counts, losses."""
    domains: dict[tuple[str, str], dict[int, tuple[int, float]]] = {}
    for document in documents:
        sums = domains.setdefault((document.source, document.subdomain), {})
        for token, count, loss in document.types:
            before = sums.get(token, (0, 0.0))
            sums[token] = (before[0] + count, before[1] + loss)
    return [
        {
            "source": source,
            "subdomain": subdomain,
            "tokens": (ids := sorted(sums)),
            "counts": [sums[token][0] for token in ids],
            "nll_nats": [round_significant(sums[token][1]) for token in ids],
        }
        for (source, subdomain), sums in sorted(domains.items())
    ]

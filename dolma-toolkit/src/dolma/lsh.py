"""Locality-sensitive hashing: with which probability documents of a similarity get a key in common."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Banding", "banding"]

MOST_VALUES = 256
"""Of a sketch. More make the curve steeper, and cost time and disk in proportion."""

RECALL = 0.99
"""Probability at the target similarity, at least. The test of the whole asks for 0.98 at this similarity and above."""


@dataclass(frozen=True)
class Banding:
    """How a sketch of ``bands * rows`` values is divided into keys."""

    bands: int
    rows: int

    def probability(self, similarity: float) -> float:
        """That two documents whose n-grams have this Jaccard similarity share a key.

        Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", 3rd edition, section 3.4.2.
        """
        return 1 - (1 - similarity**self.rows) ** self.bands

    def curve(self) -> str:
        """The probabilities as one line of text."""
        steps = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
        return "  ".join(f"{step:g}: {self.probability(step):.3f}" for step in steps)


def banding(similarity: float) -> Banding:
    """The steepest curve that documents of this similarity, more than 0 and less than 1, pass."""
    found = Banding(MOST_VALUES, 1)
    for rows in range(1, MOST_VALUES + 1):
        miss = -math.log1p(-(similarity**rows)) if similarity**rows < 1 else math.inf
        bands = math.ceil(-math.log(1 - RECALL) / miss) if miss else MOST_VALUES + 1
        if bands * rows > MOST_VALUES:
            break
        found = Banding(max(bands, 1), rows)
    return found

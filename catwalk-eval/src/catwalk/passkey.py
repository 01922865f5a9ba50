"""Passkey retrieval (arXiv:2305.16300; used in Mixtral's report, arXiv:2401.04088), made from a seed.

A five-digit number is hidden in repeated filler sentences, at several depths of prompts of several lengths.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["passkey_rows"]

_FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "


def passkey_rows(
    lengths: Sequence[int] = (512, 2048, 8192), depths: int = 5, seed: int = 1234
) -> Iterator[dict[str, Any]]:
    """A row for each length (in characters of filler) and depth (0 is the beginning, 100 the end)."""
    for length in lengths:
        sentences = max(1, length // len(_FILLER))
        for step in range(depths):
            depth = round(100 * step / max(1, depths - 1))
            key = str(random.Random(f"{seed} {length} {depth}").randrange(10_000, 100_000))
            before = sentences * depth // 100
            yield {
                "id": f"{length}-{depth}",
                "length": str(length),
                "depth": str(depth),
                "before": _FILLER * before,
                "after": _FILLER * (sentences - before),
                "key": key,
            }

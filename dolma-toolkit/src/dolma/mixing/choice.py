"""Settings of ``dolma mix`` that choose among the documents that the rules keep: sample, budget, split, order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from dolma.config import REQUIRED, setting
from dolma.errors import Problem

__all__ = [
    "BudgetConfig",
    "SampleConfig",
    "ShuffleConfig",
    "SplitConfig",
    "check_choice",
    "check_seed",
    "recorded_choice",
]

UNITS = ("bytes", "documents", "tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """A share of the documents, or several copies of them."""

    rate: float = setting(REQUIRED, "how many of each document on average; above 1 documents are repeated")
    seed: int = setting(0, "another number, another choice")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """As many documents as fit, taken in a random order."""

    bytes: int | None = setting(None, "bytes of text (UTF-8) as it is written")
    documents: int | None = setting(None, "documents")
    tokens: int | None = setting(None, "tokens, as `attribute` counts them")
    attribute: str | None = setting(None, "key of the attribute that holds a document's tokens")
    seed: int = setting(0, "another number, another choice")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Parts by the score of an attribute's first span."""

    attribute: str = setting(REQUIRED, "key of the attribute")
    ranges: list[float] = setting([], "rising scores at which the second, third, … part begins")
    percentiles: list[float] = setting([], "or rising percentiles of the documents that are written")
    weight: str | None = setting(None, "key of the attribute with what a document counts in percentiles, e.g. tokens")
    missing: float | None = setting(None, "score of documents without the attribute; if not set, they are an error")

    @property
    def parts(self) -> int:
        """How many there are."""
        return 1 + len(self.ranges or self.percentiles)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShuffleConfig:
    """A random order of documents."""

    seed: int = setting(0, "another number, another order")


def check_choice(
    sample: SampleConfig | None, budget: BudgetConfig | None, split: SplitConfig | None, key: str
) -> Iterator[Problem]:
    """What is wrong in a stream's choice; ``key`` is where the stream stands."""
    if sample is not None:
        yield from check_seed(sample.seed, f"{key}.sample.seed")
        if not (0 <= sample.rate <= 1000 and math.isfinite(sample.rate)):
            yield Problem(f"{key}.sample.rate", f"is {sample.rate}; expected 0 to 1000")
    if budget is not None:
        yield from check_seed(budget.seed, f"{key}.budget.seed")
        given = [unit for unit in UNITS if getattr(budget, unit) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            yield Problem(f"{key}.budget", f"gives {found} of bytes, documents and tokens; expected one of them")
        for unit in given:
            if getattr(budget, unit) < 0:
                yield Problem(f"{key}.budget.{unit}", f"is {getattr(budget, unit)}; expected at least 0")
        if "tokens" in given and budget.attribute is None:
            hint = "run a tagger that counts tokens, and name its attribute"
            expected = "expected the key of the attribute that holds a document's tokens"
            yield Problem(f"{key}.budget.attribute", f"is missing; {expected}", hint)
        if "tokens" not in given and budget.attribute is not None:
            yield Problem(f"{key}.budget.attribute", f'is "{budget.attribute}"; expected with tokens only')
    if split is not None:
        yield from _check_split(split, f"{key}.split")


def _check_split(split: SplitConfig, key: str) -> Iterator[Problem]:
    if bool(split.ranges) == bool(split.percentiles):
        what = "gives both" if split.ranges else "gives neither"
        yield Problem(key, f"{what} ranges and percentiles; expected one of them")
    for name in ("ranges", "percentiles"):
        values = getattr(split, name)
        if any(low >= high for low, high in pairwise(values)):
            yield Problem(f"{key}.{name}", f"is {values}; expected rising numbers")
    if any(not 0 < percentile < 100 for percentile in split.percentiles):
        yield Problem(f"{key}.percentiles", f"is {split.percentiles}; expected numbers between 0 and 100")
    if split.weight is not None and not split.percentiles:
        yield Problem(f"{key}.weight", f'is "{split.weight}"; expected with percentiles only')
    if split.parts > 100:
        yield Problem(key, f"makes {split.parts} parts; expected at most 100, since all are open at once")


def check_seed(seed: int, key: str) -> Iterator[Problem]:
    """Seeds are what 64 bits hold."""
    if not 0 <= seed < 2**64:
        yield Problem(key, f"is {seed}; expected 0 to 2^64 - 1")


def recorded_choice(
    sample: SampleConfig | None, budget: BudgetConfig | None, split: SplitConfig | None, shuffle: ShuffleConfig | None
) -> dict[str, Any]:
    """As the core takes it; what is not asked for is left out, so that manifests stay as they were without it."""
    found: dict[str, Any] = {}
    if sample is not None:
        found["sample"] = dataclasses.asdict(sample)
    if budget is not None:
        [unit] = [unit for unit in UNITS if getattr(budget, unit) is not None]
        limit = getattr(budget, unit)
        found["budget"] = {"unit": unit, "limit": limit, "attribute": budget.attribute, "seed": budget.seed}
    if split is not None:
        found["split"] = dataclasses.asdict(split)
    if shuffle is not None:
        found["shuffle_documents"] = dataclasses.asdict(shuffle)
    return found

"""From scored answers to the best one, or to the best and the worst. Pure functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Candidate", "Dropped", "choose_best", "choose_pair"]


@dataclass(frozen=True)
class Candidate:
    """An answer with its number among the prompt's answers, its seed and its score."""

    sample: int
    seed: int
    text: str
    score: float


class Dropped(ValueError):
    """Why a prompt gives no row."""


def _check(candidates: Sequence[Candidate]) -> None:
    if not candidates:
        raise Dropped("no answer was finished")
    for one in candidates:
        if not math.isfinite(one.score):
            raise ValueError(f"a score is {one.score}; expected a finite number")


def choose_best(candidates: Sequence[Candidate], least: float | None) -> Candidate:
    """Return the candidate with the highest score, the first of several. Raises Dropped if that is below `least`."""
    _check(candidates)
    best = max(candidates, key=lambda one: (one.score, -one.sample))
    if least is not None and best.score < least:
        raise Dropped(f"no score is at least {least:g}")
    return best


def choose_pair(
    candidates: Sequence[Candidate], least: float | None, least_margin: float
) -> tuple[Candidate, Candidate]:
    """Return the best and the worst candidate, the first of each. Raises Dropped if they do not differ enough."""
    best = choose_best(candidates, least)
    worst = min(candidates, key=lambda one: (one.score, one.sample))
    if len(candidates) == 1:
        raise Dropped("all answers are the same")
    if best.score == worst.score:
        raise Dropped("all scores are equal")
    if best.score - worst.score < least_margin:
        raise Dropped(f"the scores differ by less than {least_margin:g}")
    return best, worst

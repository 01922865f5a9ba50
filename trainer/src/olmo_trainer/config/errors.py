"""The user's mistakes in a request, gathered so that all are told at once."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ConfigError", "Problem"]


@dataclass(frozen=True)
class Problem:
    """One mistake: `<where>: <what> is <got>; expected <expected>` and, on a line of its own, a hint."""

    message: str
    hint: str | None = None


class ConfigError(ValueError):
    """A request that cannot be carried out as it stands; `problems` holds every mistake found."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("; ".join(problem.message for problem in problems))

"""The user's mistakes, and how they are told.

Every message reads ``<where>: <what> is <got>; expected <expected>``, and ``hint: <one action>`` where one mends it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import wraps
from typing import ParamSpec, TypeVar

from dolma import _native
from dolma.core.errors import DolmaConfigError, DolmaRustPipelineError, DolmaShardError
from dolma.formats.error import FormatError

__all__ = ["ConfigError", "FormatError", "Problem", "ProblemsError", "errors_of_native", "nearest", "translated"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a request: a dotted key (or a path that a key names), a sentence, one action."""

    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" + (f"\nhint: {self.hint}" if self.hint else "")


class ConfigError(DolmaConfigError, DolmaRustPipelineError, ValueError):
    """The request was wrong (exit code 2). Carries every problem that was found, not the first alone."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Problem, ...]]]:
        """Errors cross process borders with all their parts."""
        return type(self), (self.problems,)


class ProblemsError(DolmaShardError, DolmaRustPipelineError, ValueError):
    """Several errors of one run over many files, in the order of the input (exit code 1)."""

    def __init__(self, errors: Iterable[Exception]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in self.errors))


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint for a name that is none of ``known``."""
    known = sorted(known)
    if not known:
        return ""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"known names: {', '.join(known)}" if len(known) <= 20 else ""


def errors_of_native(error: _native.NativeError) -> Exception:
    """The exception of this package for one of the core's."""
    rows = json.loads(error.args[0])
    problems = [Problem(row["key"], row["message"], row["hint"] or "") for row in rows if row["kind"] == "config"]
    others: list[Exception] = []
    for row in rows:
        if row["kind"] == "format":
            others.append(FormatError(row["path"], row["line"], row["field"], row["code"], row["message"]))
        elif row["kind"] == "io":
            reason = row["message"].split(" (os error")[0]
            others.append(OSError(row["errno"], reason, row["path"]) if row["errno"] else OSError(reason))
    if problems and not others:
        return ConfigError(problems)
    if problems:
        others.append(ConfigError(problems))
    return others[0] if len(others) == 1 else ProblemsError(others)


def translated(function: Callable[P, R]) -> Callable[P, R]:
    """Lets a function that calls the core raise this package's errors."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except _native.NativeError as error:
            raise errors_of_native(error) from None

    return call

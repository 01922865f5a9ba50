"""The errors that users see, under the names of this package and those of dolma 1.x.

Every message reads ``<where>: <what> is <got>; expected <expected>``, then ``hint: <one action>`` if one action helps.

``ConfigError`` (a wrong request) is a ``DolmaConfigError``. ``FormatError`` and ``ProblemsError`` (bad rows) are a
``DolmaShardError``. All are a ``DolmaRustPipelineError``, which is what ``dolma.mixer`` and ``dolma.deduper`` raise in
1.x.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import wraps
from typing import ParamSpec, TypeVar

from dolma import _native

__all__ = [
    "ConfigError",
    "DolmaConfigError",
    "DolmaError",
    "DolmaFatalError",
    "DolmaRetryableFailure",
    "DolmaRustPipelineError",
    "DolmaShardError",
    "FormatError",
    "Problem",
    "ProblemsError",
    "dolma_errors",
    "errors_of_native",
    "nearest",
    "raise_all",
    "raises_dolma_errors",
]

P = ParamSpec("P")
R = TypeVar("R")


class DolmaError(Exception):
    """The base of all errors."""


class DolmaFatalError(DolmaError):
    """The whole run has to end."""


class DolmaShardError(DolmaError):
    """A file cannot be finished."""


class DolmaRetryableFailure(DolmaError):
    """A file may be tried again, as ``BaseParallelProcessor`` does."""


class DolmaRustPipelineError(DolmaError):
    """Deduplication or mixing failed."""


class DolmaConfigError(DolmaError):
    """A setting is wrong."""


class FormatError(DolmaShardError, DolmaRustPipelineError, ValueError):
    """A file does not follow its format (docs/formats/README.md, "Error codes").

    ``message`` is the sentence without the place. The error of that name in ``dolma.formats`` is the one that all
    packages share and has none of these bases; commands raise this one for it.
    """

    def __init__(self, path: str, line: int | None, field: str | None, code: str, message: str) -> None:
        self.path, self.line, self.field, self.code, self.message = path, line, field, code, message
        super().__init__(f"{path}:{line}: {message}" if line is not None else f"{path}: {message}")

    def __reduce__(self) -> tuple[type[FormatError], tuple[str, int | None, str | None, str, str]]:
        """Errors cross process borders with all their parts."""
        return type(self), (self.path, self.line, self.field, self.code, self.message)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a request: a dotted key (or a path that a key names), a sentence, one action."""

    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" + (f"\nhint: {self.hint}" if self.hint else "")


class ConfigError(DolmaConfigError, DolmaRustPipelineError, ValueError):
    """The request was wrong (exit code 2). Carries every problem found, not just the first."""

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

    def __reduce__(self) -> tuple[type[ProblemsError], tuple[tuple[Exception, ...]]]:
        """Errors cross process borders with all their parts."""
        return type(self), (self.errors,)


def raise_all(errors: Sequence[Exception]) -> None:
    """Raises the only error as it is, several as a ``ProblemsError``, and nothing if there are none."""
    if errors:
        found = [_of_formats(error) for error in errors]
        raise found[0] if len(found) == 1 else ProblemsError(found)


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
    """The exception of this package for one from the core."""
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


def _of_formats(error: Exception) -> Exception:
    """The exception of this package for one of ``dolma.formats``; others stay as they are."""
    if not isinstance(error, ValueError) or isinstance(error, DolmaError):
        return error
    from dolma.formats import contract  # it needs msgspec, which not every command loads

    if not isinstance(error, contract.FormatError):
        return error
    return FormatError(error.path, error.line, error.field, error.code, error.message)


@contextmanager
def dolma_errors() -> Iterator[None]:
    """Raises this package's errors for those of the core and of ``dolma.formats``."""
    try:
        yield
    except _native.NativeError as error:
        raise errors_of_native(error) from None
    except ValueError as error:
        if (found := _of_formats(error)) is error:
            raise
        raise found from None


def raises_dolma_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function raise this package's errors, as ``dolma_errors`` does."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with dolma_errors():
            return function(*args, **kwargs)

    return call

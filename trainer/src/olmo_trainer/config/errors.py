"""The user's mistakes in a request, collected so that all are reported at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ConfigError", "Problem", "SettingError", "in_file"]


@dataclass(frozen=True)
class Problem:
    """One mistake: `<where>: <what> is <got>; expected <expected>`, and a hint on its own line."""

    message: str
    hint: str | None = None


class ConfigError(ValueError):
    """A request that cannot be carried out; `problems` has every mistake found."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("; ".join(problem.message for problem in problems))


class SettingError(ConfigError):
    """Problems with settings, whose messages begin with the key; `in_file` adds the file that the settings are from."""


@contextmanager
def in_file(path: Path) -> Iterator[None]:
    """Name the file in the messages of a SettingError raised in the block."""
    try:
        yield
    except SettingError as error:
        problems = (Problem(f"{path}: {problem.message}", problem.hint) for problem in error.problems)
        raise ConfigError(*problems) from error

"""Errors that end a command, except those of files that break their format (formats/errors.py)."""

__all__ = ["ConfigError", "Problem", "RequestError", "WorkError"]

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing to fix: `sentence` is `<where>: <what> is <got>; expected <expected>`, `hint` one action or empty."""

    sentence: str
    hint: str = ""


class RequestError(ValueError):
    """The request was wrong (exit code 2): a path that does not exist, a value that is not allowed."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        """Report one problem."""
        super().__init__(sentence)
        self.problems = [Problem(sentence, hint)]


class ConfigError(RequestError):
    """A configuration with all of its problems (exit code 2)."""

    def __init__(self, problems: list[Problem]) -> None:
        """Report all problems, at least one."""
        super().__init__(problems[0].sentence, problems[0].hint)
        self.problems = problems


class WorkError(ValueError):
    """The request was fine but the work cannot be done (exit code 1), such as data in which no row is usable."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        """Report one problem."""
        super().__init__(sentence)
        self.problems = [Problem(sentence, hint)]

"""Errors of a request and of the work. Errors in files are `formats.contract.FormatError`."""

from collections.abc import Sequence

__all__ = ["ConfigError", "DataError", "first_line"]


class ConfigError(ValueError):
    """A request that cannot be carried out: every problem at once, then one action. Exit code 2."""

    def __init__(self, problems: str | Sequence[str], *, hint: str | None = None) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.hint = hint
        super().__init__("\n".join(self.problems))


class DataError(ValueError):
    """Work that failed because of its inputs, where no single file is to blame. Exit code 1."""

    def __init__(self, problem: str, *, hint: str | None = None) -> None:
        self.hint = hint
        super().__init__(problem)


def first_line(error: BaseException) -> str:
    """The first line of a library's message, or the name of the error if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

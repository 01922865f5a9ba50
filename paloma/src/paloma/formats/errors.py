"""The error that says where a file breaks the contract."""

from pathlib import Path

__all__ = ["FormatError"]


class FormatError(ValueError):
    """A file that breaks the contract: a `code` of docs/formats/README.md, the `line` from 1, the dotted `field`."""

    def __init__(
        self,
        code: str,
        path: Path,
        message: str,
        *,
        line: int | None = None,
        field: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.path = path
        self.line = line
        self.field = field
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line is not None else f"{self.path}"
        return f"{place}: {self.message}"

"""What is wrong with a file, and where (docs/formats/README.md, "Error codes")."""

from __future__ import annotations

from typing import Any

from dolma.core.errors import DolmaRustPipelineError, DolmaShardError

__all__ = ["FormatError", "kind"]


class FormatError(DolmaShardError, DolmaRustPipelineError, ValueError):
    """A file does not follow its format; ``message`` is the sentence without the place."""

    def __init__(self, path: str, line: int | None, field: str | None, code: str, message: str) -> None:
        self.path, self.line, self.field, self.code, self.message = path, line, field, code, message
        super().__init__(f"{path}:{line}: {message}" if line is not None else f"{path}: {message}")

    def __reduce__(self) -> tuple[type[FormatError], tuple[str, int | None, str | None, str, str]]:
        """Errors cross process borders with all their parts."""
        return type(self), (self.path, self.line, self.field, self.code, self.message)


def kind(value: Any) -> str:
    """What kind of JSON value it is, with its article."""
    if value is None:
        return "null"
    names = ((bool, "a boolean"), (int | float, "a number"), (str, "a string"), (list, "an array"), (dict, "an object"))
    return next((name for cls, name in names if isinstance(value, cls)), type(value).__name__)

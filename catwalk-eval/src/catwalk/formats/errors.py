"""The one error of damaged or foreign data, with the stable codes of docs/formats/README.md."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it imports tokenizers, which --help does not need
    from catwalk.formats.inspection import InspectionError

__all__ = ["FormatError", "from_inspection"]


class FormatError(ValueError):
    """A file breaks its format.

    `code` is stable, the sentence is not. `line` is 1-based; `field` is dotted (`files.0.sha256`).
    """

    def __init__(
        self,
        code: str,
        path: str | Path,
        message: str,
        *,
        line: int | None = None,
        field: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.code = code
        self.path = str(path)
        self.line = line
        self.field = field
        self.message = message
        self.hint = hint
        where = self.path if line is None else f"{self.path}:{line}"
        super().__init__(f"{where}: {message}")


def from_inspection(error: "InspectionError") -> FormatError:
    """An error of a model directory as this package's own."""
    return FormatError(error.code, error.path, error.message, field=error.field, hint=error.hint)

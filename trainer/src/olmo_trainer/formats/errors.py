"""The one exception for data that breaks a format, with the stable codes of docs/formats/README.md."""

from __future__ import annotations

from pathlib import Path

from .inspection import InspectionError

__all__ = ["CODES", "FormatError", "shown"]

CODES = frozenset(
    "not_json not_object missing_field wrong_type invalid_value truncated missing_file wrong_size checksum_mismatch "
    "unknown_format unsupported_version unsafe_path misaligned out_of_range wrong_dtype bad_boundary missing_tensor "
    "wrong_shape".split()
)


class FormatError(ValueError):
    """Data that breaks a format: where, which field, what it is, what was expected, and a stable code."""

    def __init__(
        self,
        path: str | Path,
        code: str,
        got: str,
        expected: str,
        *,
        line: int | None = None,
        field: str | None = None,
        hint: str | None = None,
    ) -> None:
        assert code in CODES, code
        self.path, self.line, self.field, self.code, self.hint = str(path), line, field, code, hint
        subject = f'"{field}"' if field is not None else ("line" if line is not None else "file")
        self.sentence = f"{subject} is {got}; expected {expected}"
        super().__init__(f"{self.where}: {self.sentence}")

    @classmethod
    def of(cls, error: InspectionError) -> FormatError:
        """What the inspection of a checkpoint found, as an error of its format."""
        subject = "" if error.message.startswith('"') else "file "
        sentence = subject + error.message
        found = cls(error.path, error.code, "", "", field=error.field, hint=error.hint)
        found.sentence = sentence
        found.args = (f"{error.path}: {sentence}",)
        return found

    @property
    def where(self) -> str:
        """`path` or `path:line`."""
        return self.path if self.line is None else f"{self.path}:{self.line}"


def shown(value: object) -> str:
    """A JSON value as an error sentence names it: its kind, and the value where that is short."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"
        case str():
            return f'"{value}"' if len(value) <= 40 else f'a string of {len(value)} characters ("{value[:20]}…")'
        case list():
            return "an array"
        case _:
            return "an object"

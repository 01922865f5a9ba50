"""The one error for data that breaks a format, with the stable codes of docs/formats/README.md.

Every Python package that reads the formats carries this file, byte for byte.
"""

from pathlib import Path
from typing import Any

__all__ = ["CODES", "FormatError", "MissingFlagError", "mismatch"]

CODES = frozenset(
    "not_json not_object missing_field wrong_type invalid_value truncated missing_file wrong_size checksum_mismatch "
    "unknown_format unsupported_version unsafe_path misaligned out_of_range wrong_dtype bad_boundary missing_tensor "
    "wrong_shape unknown_role role_order empty_messages prompt_mismatch identical_answers".split()
)


class FormatError(ValueError):
    """A file breaks its format. Its text is `path:line: message`.

    `code` is stable, `message` is not. `path` is as it was given to the reader; `line` is 1-based; `field` is dotted
    (`files.0.sha256`); `hint` is one thing to do.
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
        assert code in CODES, code
        self.code, self.path, self.message = code, str(path), message
        self.line, self.field, self.hint = line, field, hint
        super().__init__(f"{self.where}: {message}")

    def __reduce__(self) -> Any:
        """Keep every part when an error crosses to another process."""
        return _rebuilt, (type(self), self.code, self.path, self.message, self.line, self.field, self.hint)

    @property
    def where(self) -> str:
        """`path` or `path:line`."""
        return self.path if self.line is None else f"{self.path}:{self.line}"


def _rebuilt(
    kind: type[FormatError], code: str, path: str, message: str, line: int | None, field: str | None, hint: str | None
) -> FormatError:
    return kind(code, path, message, line=line, field=field, hint=hint)


class MissingFlagError(ValueError):
    """Files without a manifest do not say something; its text is the flag that does."""


def mismatch(
    code: str,
    path: str | Path,
    got: str,
    expected: str,
    *,
    line: int | None = None,
    field: str | None = None,
    hint: str | None = None,
) -> FormatError:
    """The error `"field" is <got>; expected <expected>`; without a field, of the line or the file."""
    subject = "" if field is None else f'"{field}" '
    return FormatError(code, path, f"{subject}is {got}; expected {expected}", line=line, field=field, hint=hint)

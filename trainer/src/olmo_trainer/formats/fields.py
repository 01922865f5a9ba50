"""Typed fields of a JSON object, and the error of one that is not what the format says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import FormatError

__all__ = ["field_of", "mismatch", "shown"]

_KINDS: dict[str, tuple[type, ...]] = {
    "a string": (str,),
    "an integer": (int,),
    "a number": (int, float),
    "an object": (dict,),
    "an array": (list,),
    "true or false": (bool,),
}


def mismatch(
    path: str | Path,
    code: str,
    got: str,
    expected: str,
    *,
    line: int | None = None,
    field: str | None = None,
    hint: str | None = None,
) -> FormatError:
    """The error `"field" is <got>; expected <expected>`; of the line or the file where there is no field."""
    subject = f'"{field}"' if field is not None else ("line" if line is not None else "file")
    return FormatError(code, path, f"{subject} is {got}; expected {expected}", line=line, field=field, hint=hint)


def field_of(
    row: dict[str, Any],
    name: str,
    kind: str,
    path: Path | str,
    *,
    line: int | None = None,
    prefix: str = "",
    optional: bool = False,
    default: Any = None,
) -> Any:
    """The value of a field after its type is checked; `kind` is one of the phrases an error uses ("a string", …).

    Raises: FormatError: `missing_field`, `wrong_type`.
    """
    field = prefix + name
    if name not in row or (optional and row[name] is None):
        if optional:
            return default
        raise mismatch(path, "missing_field", "missing", kind, line=line, field=field)
    value = row[name]
    is_bool = isinstance(value, bool)
    if not isinstance(value, _KINDS[kind]) or (is_bool and kind != "true or false"):
        raise mismatch(path, "wrong_type", shown(value), kind, line=line, field=field)
    return value


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

"""Typed fields of a JSON object, with the contract's errors when they are not what they should be."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from paloma.formats.errors import FormatError

__all__ = ["Fields"]

_HASH = re.compile("[0-9a-f]{64}")
_NAMES = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    dict: "an object",
    list: "an array",
    type(None): "null",
}
_ABSENT = object()


class Fields:
    """An object of a file at `path` and `line`; `prefix` is its own dotted place within the row or file."""

    def __init__(self, value: Any, path: Path, line: int | None = None, prefix: str = "") -> None:
        self.path, self.line, self.prefix = path, line, prefix
        if not isinstance(value, dict):
            code = "wrong_type" if prefix else "not_object"
            raise FormatError(
                code,
                path,
                f"{self._quoted(prefix)}is {_NAMES[type(value)]}; expected an object",
                line=line,
                field=prefix or None,
            )
        self.value: dict[str, Any] = value

    @staticmethod
    def _quoted(place: str) -> str:
        return f'"{place}" ' if place else ""

    def place(self, name: str | int) -> str:
        """Dotted place of one of this object's fields."""
        return f"{self.prefix}.{name}" if self.prefix else str(name)

    def error(self, code: str, name: str, got: str, expected: str) -> FormatError:
        """An error about one field."""
        place = self.place(name)
        message = f'"{place}" is {got}; expected {expected}'
        return FormatError(code, self.path, message, line=self.line, field=place)

    def _typed(self, name: str, kinds: tuple[type, ...], expected: str, optional: bool) -> Any:
        value = self.value.get(name, _ABSENT)
        if value is _ABSENT:
            if optional:
                return None
            raise self.error("missing_field", name, "absent", expected)
        if value is None and optional:
            return None
        if type(value) not in kinds:
            raise self.error("wrong_type", name, _NAMES[type(value)], expected)
        return value

    def text(self, name: str, *, not_empty: bool = False) -> str:
        """A required string."""
        value: str = self._typed(name, (str,), "a string", False)
        if not_empty and not value:
            raise self.error("invalid_value", name, '""', "a string that is not empty")
        return value

    def optional_text(self, name: str) -> str | None:
        """A string, or none where the field is absent or null."""
        value: str | None = self._typed(name, (str,), "a string", True)
        return value

    def one_of(self, name: str, allowed: Iterable[str], code: str = "invalid_value") -> str:
        """A required string out of a list."""
        value, allowed = self.text(name), list(allowed)
        if value not in allowed:
            raise self.error(code, name, f'"{value}"', " or ".join(f'"{one}"' for one in allowed))
        return value

    def integer(self, name: str, *, minimum: int = 0) -> int:
        """A required integer of at least `minimum`."""
        value: int = self._typed(name, (int,), "an integer", False)
        if value < minimum:
            raise self.error("invalid_value", name, str(value), f"at least {minimum}")
        return value

    def number(self, name: str, *, minimum: float | None = None) -> float:
        """A required number, as floating point."""
        value = float(self._typed(name, (int, float), "a number", False))
        if not math.isfinite(value):
            raise self.error("invalid_value", name, str(value), "a finite number")
        if minimum is not None and value < minimum:
            raise self.error("invalid_value", name, str(value), f"at least {minimum}")
        return value

    def nullable_number(self, name: str, *, minimum: float | None = None) -> float | None:
        """A required field that is a number or null."""
        if name in self.value and self.value[name] is None:
            return None
        return self.number(name, minimum=minimum)

    def hash(self, name: str, *, nullable: bool = False) -> str | None:
        """A required sha256 of 64 lower-case digits, or null where that is allowed."""
        if nullable and name in self.value and self.value[name] is None:
            return None
        value = self.text(name)
        if _HASH.fullmatch(value) is None:
            raise self.error("invalid_value", name, f'"{value}"', "64 lower-case hexadecimal digits")
        return value

    def object(self, name: str) -> "Fields":
        """A required object."""
        value = self._typed(name, (dict,), "an object", False)
        return Fields(value, self.path, self.line, self.place(name))

    def optional_object(self, name: str) -> "Fields":
        """An object, an empty one where the field is absent or null."""
        value = self._typed(name, (dict,), "an object", True)
        return Fields(value or {}, self.path, self.line, self.place(name))

    def array(self, name: str) -> list[Any]:
        """A required array."""
        value: list[Any] = self._typed(name, (list,), "an array", False)
        return value

    def objects(self, name: str) -> list["Fields"]:
        """A required array of objects."""
        place = self.place(name)
        return [Fields(v, self.path, self.line, f"{place}.{i}") for i, v in enumerate(self.array(name))]

"""Fields of a JSON object, with the place for messages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from dolma.errors import FormatError

__all__ = ["Fields", "kind"]

_HASH = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Fields:
    """An object at ``prefix`` (dotted, ends with a dot unless empty) of a line of a file."""

    value: dict[str, Any]
    path: str
    line: int | None = None
    prefix: str = ""

    def error(self, name: str, code: str, message: str) -> FormatError:
        """An error of the field ``name``; the message begins with the name."""
        field = self.prefix + name
        return FormatError(self.path, self.line, field, code, f'"{field}" {message}')

    def wrong_type(self, name: str, value: object, expected: str) -> FormatError:
        """``"name" is <kind>; expected <expected>``"""
        return self.error(name, "wrong_type", f"is {kind(value)}; expected {expected}")

    def get(self, name: str, expected: str = "it") -> Any:
        """A field that has to be there."""
        if name not in self.value:
            raise self.error(name, "missing_field", f"is missing; expected {expected}")
        return self.value[name]

    def string(self, name: str) -> str:
        """A required string."""
        value = self.get(name, "a string")
        if not isinstance(value, str):
            raise self.wrong_type(name, value, "a string")
        return value

    def optional_string(self, name: str) -> str | None:
        """A string; null is the same as no field."""
        return self.string(name) if self.value.get(name) is not None else None

    def integer(self, name: str, least: int = 0) -> int:
        """A required integer, not below ``least``; ``true`` and ``1.0`` are none."""
        value = self.get(name, "an integer")
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong_type(name, value, "an integer")
        if value < least:
            raise self.error(name, "invalid_value", f"is {value}; expected at least {least}")
        return value

    def object(self, name: str) -> Fields:
        """A required object."""
        value = self.get(name, "an object")
        if not isinstance(value, dict):
            raise self.wrong_type(name, value, "an object")
        return Fields(value, self.path, self.line, f"{self.prefix}{name}.")

    def optional_object(self, name: str) -> Fields:
        """An object; null or no field is the empty one."""
        if self.value.get(name) is None:
            return Fields({}, self.path, self.line, f"{self.prefix}{name}.")
        return self.object(name)

    def array(self, name: str) -> list[Any]:
        """A required array."""
        value = self.get(name, "an array")
        if not isinstance(value, list):
            raise self.wrong_type(name, value, "an array")
        return value

    def objects(self, name: str) -> list[Fields]:
        """A required array of objects."""
        rows = []
        for index, item in enumerate(self.array(name)):
            if not isinstance(item, dict):
                raise self.wrong_type(f"{name}.{index}", item, "an object")
            rows.append(Fields(item, self.path, self.line, f"{self.prefix}{name}.{index}."))
        return rows

    def hash(self, name: str) -> str:
        """64 lower-case hexadecimal digits."""
        value = self.string(name)
        if not _HASH.match(value):
            raise self.error(name, "invalid_value", f'is "{value}"; expected 64 lower-case hexadecimal digits')
        return value


def kind(value: Any) -> str:
    """What kind of JSON value it is, with its article."""
    if value is None:
        return "null"
    names = ((bool, "a boolean"), (int | float, "a number"), (str, "a string"), (list, "an array"), (dict, "an object"))
    return next((name for cls, name in names if isinstance(value, cls)), type(value).__name__)

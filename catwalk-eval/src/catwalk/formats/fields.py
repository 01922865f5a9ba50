"""Typed access to the fields of a JSON object, raising FormatError with path, line and dotted field name."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catwalk.formats.errors import FormatError
from catwalk.formats.json_lines import type_name

__all__ = ["Record"]

_HASH = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, kw_only=True)
class Record:
    """A JSON object together with where it stands."""

    value: dict[str, Any]
    path: Path
    line: int | None = None
    prefix: str = ""

    def name(self, key: str) -> str:
        """Dotted name of a field."""
        return self.prefix + key

    def error(self, code: str, key: str, message: str) -> FormatError:
        """An error at this field; the message follows the field's name."""
        name = self.name(key)
        return FormatError(code, self.path, f'"{name}" {message}', line=self.line, field=name)

    def wrong_type(self, key: str, expected: str, value: Any) -> FormatError:
        """The error of a value of another JSON type."""
        return self.error("wrong_type", key, f"is {type_name(value)}; expected {expected}")

    def get(self, key: str) -> Any:
        """A required value of any type."""
        if key not in self.value:
            raise self.error("missing_field", key, "is absent; expected a value")
        return self.value[key]

    def text(self, key: str, *, choices: tuple[str, ...] = (), empty: bool = True) -> str:
        """A required string."""
        value = self.get(key)
        if not isinstance(value, str):
            raise self.wrong_type(key, "a string", value)
        if choices and value not in choices:
            raise self.error("invalid_value", key, f'is "{value}"; expected one of {", ".join(choices)}')
        if not empty and not value:
            raise self.error("invalid_value", key, "is empty; expected at least one character")
        return value

    def optional_text(self, key: str) -> str:
        """A string that may be absent or null: then empty."""
        return "" if self.value.get(key) is None else self.text(key)

    def integer(self, key: str, *, minimum: int | None = 0) -> int:
        """A required integer, not a boolean and not 1.0."""
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong_type(key, "an integer", value)
        if minimum is not None and value < minimum:
            raise self.error("invalid_value", key, f"is {value}; expected at least {minimum}")
        return value

    def number(self, key: str) -> float:
        """A required finite number."""
        value = self.get(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self.wrong_type(key, "a number", value)
        if not math.isfinite(value):
            raise self.error("invalid_value", key, f"is {value}; expected a finite number")
        return float(value)

    def number_or_null(self, key: str) -> float | None:
        """A required number or null."""
        return None if self.get(key) is None else self.number(key)

    def hash(self, key: str, *, or_null: bool = False) -> str | None:
        """A required sha256: 64 lower-case hexadecimal digits."""
        if or_null and self.get(key) is None:
            return None
        value = self.text(key)
        if not _HASH.match(value):
            raise self.error("invalid_value", key, f'is "{value}"; expected 64 lower-case hexadecimal digits')
        return value

    def record(self, key: str) -> "Record":
        """A required object."""
        value = self.get(key)
        if not isinstance(value, dict):
            raise self.wrong_type(key, "an object", value)
        return Record(value=value, path=self.path, line=self.line, prefix=f"{self.name(key)}.")

    def array(self, key: str) -> list[Any]:
        """A required array."""
        value = self.get(key)
        if not isinstance(value, list):
            raise self.wrong_type(key, "an array", value)
        return value

    def records(self, key: str) -> Iterator["Record"]:
        """A required array of objects."""
        for index, value in enumerate(self.array(key)):
            if not isinstance(value, dict):
                raise self.wrong_type(f"{key}.{index}", "an object", value)
            yield Record(value=value, path=self.path, line=self.line, prefix=f"{self.name(key)}.{index}.")

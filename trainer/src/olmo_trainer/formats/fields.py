"""Typed fields of a JSON object; a field that is missing or of another type is an error with its place.

Every Python package that reads the formats carries this file, byte for byte.
"""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FormatError
from .json_lines import type_name

__all__ = ["Fields"]

_HASH = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Fields:
    """A JSON object with its place: the file, the line, and the dotted name of the object (`prefix`).

    `string` and the like raise FormatError: `missing_field`, `wrong_type`, `invalid_value`. The optional ones return
    None, or an empty object, for a field that is missing or null.
    """

    value: dict[str, Any]
    path: Path | str
    line: int | None = None
    prefix: str = ""

    def name(self, key: str) -> str:
        """The dotted name of a field."""
        return f"{self.prefix}.{key}" if self.prefix else key

    def error(self, code: str, key: str, message: str, hint: str | None = None) -> FormatError:
        """The error of a field; the message follows the quoted name: `is 3; expected 4`."""
        name = self.name(key)
        return FormatError(code, self.path, f'"{name}" {message}', line=self.line, field=name, hint=hint)

    def wrong_type(self, key: str, expected: str) -> FormatError:
        """The error of a field of another type."""
        return self.error("wrong_type", key, f"is {type_name(self.value[key])}; expected {expected}")

    def get(self, key: str, expected: str = "a value") -> Any:
        """A field of any type."""
        if key not in self.value:
            raise self.error("missing_field", key, f"is missing; expected {expected}")
        return self.value[key]

    def string(self, key: str, *, choices: Collection[str] = (), not_empty: bool = False) -> str:
        """A string, out of `choices` if there are any."""
        value = self.get(key, "a string")
        if not isinstance(value, str):
            raise self.wrong_type(key, "a string")
        if choices and value not in choices:
            raise self.error("invalid_value", key, f'is "{value}"; expected {" or ".join(choices)}')
        if not_empty and not value:
            raise self.error("invalid_value", key, "is empty; expected at least one character")
        return value

    def optional_string(self, key: str) -> str | None:
        """A string or None."""
        return None if self.value.get(key) is None else self.string(key)

    def integer(self, key: str, *, minimum: int | None = 0) -> int:
        """An integer; `true` and `1.0` are not."""
        value = self.get(key, "an integer")
        if type(value) is not int:
            raise self.wrong_type(key, "an integer")
        if minimum is not None and value < minimum:
            raise self.error("invalid_value", key, f"is {value}; expected at least {minimum}")
        return value

    def optional_integer(self, key: str, *, minimum: int | None = 0) -> int | None:
        """An integer or None."""
        return None if self.value.get(key) is None else self.integer(key, minimum=minimum)

    def number(self, key: str, *, minimum: float | None = None) -> float:
        """A finite number."""
        value = self.get(key, "a number")
        if type(value) not in (int, float):
            raise self.wrong_type(key, "a number")
        if not math.isfinite(value) or (minimum is not None and value < minimum):
            expected = "a finite number" if minimum is None else f"at least {minimum:g}"
            raise self.error("invalid_value", key, f"is {value}; expected {expected}")
        return float(value)

    def number_or_null(self, key: str, *, minimum: float | None = None) -> float | None:
        """A finite number or null; the field has to be there."""
        return None if self.get(key, "a number or null") is None else self.number(key, minimum=minimum)

    def hash(self, key: str) -> str:
        """A sha256: 64 lower-case hexadecimal digits."""
        value = self.string(key)
        if not _HASH.match(value):
            raise self.error("invalid_value", key, f'is "{value}"; expected 64 lower-case hexadecimal digits')
        return value

    def hash_or_null(self, key: str) -> str | None:
        """A sha256 or null; the field has to be there."""
        return None if self.get(key, "a sha256 or null") is None else self.hash(key)

    def object(self, key: str) -> "Fields":
        """An object."""
        value = self.get(key, "an object")
        if not isinstance(value, dict):
            raise self.wrong_type(key, "an object")
        return Fields(value, self.path, self.line, self.name(key))

    def optional_object(self, key: str) -> "Fields":
        """An object, empty if the field is missing or null."""
        return self.object(key) if self.value.get(key) is not None else Fields({}, self.path, self.line, self.name(key))

    def array(self, key: str) -> list[Any]:
        """An array."""
        value = self.get(key, "an array")
        if not isinstance(value, list):
            raise self.wrong_type(key, "an array")
        return value

    def objects(self, key: str) -> list["Fields"]:
        """An array of objects."""
        rows = []
        for index, value in enumerate(self.array(key)):
            if not isinstance(value, dict):
                raise self.error("wrong_type", f"{key}.{index}", f"is {type_name(value)}; expected an object")
            rows.append(Fields(value, self.path, self.line, self.name(f"{key}.{index}")))
        return rows

"""Rows of JSON Lines files and their typed fields, with the place of what is wrong."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from .errors import FormatError
from .json_lines import decode_object, read_lines, type_name

__all__ = ["parse_rows", "require"]

Row = TypeVar("Row")


def parse_rows(files: Iterable[Path], parse: Callable[[dict[str, Any], Path, int], Row]) -> Iterator[Row | FormatError]:
    """Yield `parse(row, file, line)` of every line of JSON Lines files, or the error of an invalid line.

    `line` is 1-based. A file that ends early yields `truncated` after its last complete row, and the next file follows.
    """
    for path in files:
        try:
            for number, line in read_lines(path):
                try:
                    yield parse(decode_object(line, path, number), path, number)
                except FormatError as error:
                    yield error
        except FormatError as error:
            yield error


def require(
    value: dict[str, Any],
    key: str,
    types: type | tuple[type, ...],
    path: Path,
    *,
    prefix: str = "",
    line: int | None = None,
) -> Any:
    """Return `value[key]`, of one of `types` (a boolean is not a number).

    Raises:
        FormatError: `missing_field`, `wrong_type`; `field` is `prefix` + `key`.
    """
    names = {str: "a string", int: "an integer", dict: "an object", list: "an array", float: "a number"}
    field = prefix + key
    kinds = types if isinstance(types, tuple) else (types,)
    expected = " or ".join(names[one] for one in kinds)
    if key not in value:
        raise FormatError("missing_field", path, f'"{field}" is missing; expected {expected}', line=line, field=field)
    found = value[key]
    if not isinstance(found, kinds) or isinstance(found, bool):
        message = f'"{field}" is {type_name(found)}; expected {expected}'
        raise FormatError("wrong_type", path, message, line=line, field=field)
    return found

"""A YAML file and `a.b=c` overrides into a RunConfig: strict keys, strict types, every problem told at once."""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml

from ..formats.contract import path_kind, signature
from .errors import ConfigError, Problem

__all__ = ["as_mapping", "build", "read_mapping", "written"]

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """YAML as people write it: `3e-4` is a number (YAML 1.1 wants `3.0e-4`) and a key must not stand twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(None, None, f'the key "{key}" appears twice', key_node.start_mark)
            seen.add(key)
        return typing.cast("dict[Any, Any]", super().construct_mapping(node, deep))


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _load_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # a subclass of SafeLoader: builds plain values only


def read_mapping(path: Path, overrides: list[str]) -> dict[str, Any]:
    """Read a YAML file into nested mappings and apply the overrides (`a.b=c`, list items by number).

    Raises: ConfigError: missing, not YAML, not a mapping, or an override that fits nowhere.
    """
    if not path.is_file():
        raise ConfigError(Problem(f"{path}: {path_kind(path)}; expected a YAML file", "check the path"))
    raw = path.read_bytes()
    if found := signature(raw):
        raise ConfigError(Problem(f"{path}: is {found[0]}; expected YAML in UTF-8"))
    try:
        mapping = _load_yaml(raw.decode("utf-8-sig"))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else f"{path}"
        what = getattr(error, "problem", None) or str(error)
        raise ConfigError(Problem(f"{place}: file is not YAML ({what}); expected a mapping of settings")) from error
    if not isinstance(mapping, dict):
        raise ConfigError(Problem(f"{path}: file is {_kind(mapping)}; expected a mapping of settings"))
    problems = [problem for override in overrides if (problem := _apply(mapping, override)) is not None]
    if problems:
        raise ConfigError(*problems)
    return mapping


def _apply(mapping: dict[str, Any], override: str) -> Problem | None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        return Problem(f'command line: "{override}" is not a setting; expected key.key=value')
    try:
        value = _load_yaml(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return Problem(f'command line: "{override}" is not YAML after "="; expected a value')
    place: Any = mapping
    *parents, last = name.split(".")
    for index, key in enumerate(parents):
        child = _item(place, key)
        if child is None and isinstance(place, dict):
            child = place[key] = {}
        if not isinstance(child, dict | list):
            where = ".".join(parents[: index + 1])
            return Problem(f'command line: "{where}" is {_kind(child)}; expected a group of settings')
        place = child
    if isinstance(place, list):
        if not last.isdigit() or int(last) >= len(place):
            return Problem(f'command line: "{name}" is no item of a list of {len(place)}; expected a number from 0')
        place[int(last)] = value
    else:
        place[last] = value
    return None


def _item(place: Any, key: str) -> Any:
    if isinstance(place, list):
        return place[int(key)] if key.isdigit() and int(key) < len(place) else None
    return place.get(key)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case int() if abs(value) >= 10**40:
            return "a number of more than 40 digits"
        case _:
            return str(value)


def build(kind: type[T], mapping: dict[str, Any], where: str) -> T:
    """Make a frozen dataclass from a mapping, recursively.

    Raises: ConfigError: with every unknown key, missing key and wrong type.
    """
    problems: list[Problem] = []
    value = _dataclass(kind, mapping, "", where, problems)
    if problems:
        raise ConfigError(*problems)
    return typing.cast("T", value)


def _dataclass(kind: type[Any], mapping: Any, prefix: str, where: str, problems: list[Problem]) -> Any:
    if not isinstance(mapping, dict):
        problems.append(Problem(f'{where}: "{prefix[:-1]}" is {_kind(mapping)}; expected a group of settings'))
        return None
    hints = typing.get_type_hints(kind, include_extras=True)
    known = {item.name: item for item in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in mapping.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
            message = f'{where}: "{prefix}{key}" is an unknown key; expected one of {", ".join(known)}'
            problems.append(Problem(message, f'did you mean "{prefix}{near[0]}"?' if near else None))
        else:
            values[key] = _value(hints[key], value, f"{prefix}{key}", where, problems)
    for name, item in known.items():
        missing = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if missing and name not in mapping:
            problems.append(Problem(f'{where}: "{prefix}{name}" is missing; expected {_expected(hints[name])}'))
            values[name] = None
    return kind(**values)


def _value(kind: Any, value: Any, name: str, where: str, problems: list[Problem]) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (inner,) = [item for item in get_args(kind) if item is not type(None)]
        return _value(inner, value, name, where, problems)
    if dataclasses.is_dataclass(kind):
        return _dataclass(typing.cast("type[Any]", kind), value, f"{name}.", where, problems)
    if origin is typing.Annotated:
        if isinstance(value, get_args(kind)[0]):
            return value
    elif origin is tuple:
        if isinstance(value, list):
            item = get_args(kind)[0]
            return tuple(_value(item, part, f"{name}.{index}", where, problems) for index, part in enumerate(value))
    elif origin is Literal:
        if value in get_args(kind):
            return value
    elif kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
            return float(value)
    elif kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            if abs(value) < _TOO_MANY:
                return value
            problems.append(Problem(f'{where}: "{name}" is {_kind(value)}; expected an integer below {_TOO_MANY}'))
            return None
    elif isinstance(value, kind):
        return value
    message = f'{where}: "{name}" is {_kind(value)}; expected {_expected(kind)}'
    problems.append(Problem(message, _suggestion(kind, value)))
    return None


_TOO_MANY = 2**53  # beyond, floats skip integers


def _suggestion(kind: Any, value: Any) -> str | None:
    """A hint at what was probably meant."""
    if get_origin(kind) is typing.Annotated and type(value) is int:
        return f'write "{value} steps"'
    if kind is int and isinstance(value, float) and value.is_integer():
        return f"write {value:.0f}"
    if kind in (int, float) and isinstance(value, str):
        number = re.fullmatch(r"\s*([-+]?\d[\d_,]*(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*[A-Za-z]*\s*", value)
        if number:
            return f"write {number[1].replace('_', '').replace(',', '')}, without quotes or unit"
    return None


def _expected(kind: Any) -> str:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if item is type(None) else _expected(item) for item in get_args(kind))
    if dataclasses.is_dataclass(kind):
        return "a group of settings"
    if origin is typing.Annotated:
        return str(get_args(kind)[1])
    if origin is tuple:
        return "a list"
    if origin is Literal:
        return " or ".join(f'"{item}"' for item in get_args(kind))
    return {int: "an integer", float: "a number", str: "a string", bool: "true or false"}[kind]


def as_mapping(config: Any) -> dict[str, Any]:
    """A config as nested plain mappings and lists, every default filled in."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    return typing.cast("dict[str, Any]", plain(dataclasses.asdict(config)))


def written(config: Any) -> str:
    """A config as YAML that `read_mapping` and `build` read back to an equal config."""
    return yaml.safe_dump(as_mapping(config), sort_keys=False, allow_unicode=True)

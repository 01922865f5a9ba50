"""Settings: a YAML file, `a.b=c` overrides and flags into a dataclass; every problem is reported at once.

Every package with settings carries this file, byte for byte.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import inspect
import logging
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml

from .formats.contract import ConfigError, Problem, path_kind, signature

__all__ = [
    "LocalPath",
    "SettingError",
    "as_mapping",
    "as_yaml",
    "build",
    "field_help",
    "home_path",
    "in_file",
    "load",
    "output_path",
    "read_settings",
    "rename_flags",
]

T = TypeVar("T")
LocalPath = Annotated[str, "a path"]
"""The type of a setting that names a file or directory: `~` is the home directory, as it is for `Path`."""

_LARGEST_INTEGER = 2**53  # beyond, floats skip integers
log = logging.getLogger(__name__)


class SettingError(ConfigError):
    """Problems with settings, whose messages begin with the key; `in_file` adds the file that the settings are from."""


@contextmanager
def in_file(path: Path) -> Iterator[None]:
    """Name the file in the messages of a SettingError raised in the block."""
    try:
        yield
    except SettingError as error:
        problems = (Problem(f"{path}: {problem.message}", problem.hint) for problem in error.problems)
        raise ConfigError(*problems) from error


def load(
    kind: type[T],
    path: Path | None,
    overrides: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    *,
    former_names: Mapping[str, str] | None = None,
) -> T:
    """The settings of a file, of flags (None: not given) and of overrides `a.b=c`; the later wins.

    `former_names` maps the dotted former name of a setting to its name.

    Raises: ConfigError: with every problem.
    """
    where = str(path) if path else "command line"
    mapping = read_settings(path, overrides, flags, former_names=former_names)
    return build(kind, mapping, where, former_names=former_names)


# ---- YAML and overrides into nested mappings


class _Loader(yaml.SafeLoader):
    """YAML as people write it: `3e-4` is a number (YAML 1.1 wants `3.0e-4`), and a key must not appear twice."""

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
_BAD_YAML = (yaml.YAMLError, ValueError, TypeError, RecursionError)


def read_settings(
    path: Path | None,
    overrides: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    *,
    former_names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Nested mappings of a YAML file, with flags (None: not given) and overrides `a.b=c` (list items by number).

    Former names are replaced in the file and in overrides, so that an override wins under either name.

    Raises: ConfigError: missing, not YAML, not a mapping, or an override that fits nowhere.
    """
    problems: list[Problem] = []
    mapping = {} if path is None else _read_yaml(path)
    _rename(mapping, former_names or {}, str(path), problems)
    mapping |= {name: value for name, value in (flags or {}).items() if value is not None}
    given = [override.partition("=") for override in overrides]
    names = {name for name, _, _ in given}
    for former, equals, text in given:
        name = (former_names or {}).get(former, former)
        if name != former:
            log.warning('command line: "%s" is deprecated; use "%s"', former, name)
            if name in names:
                problems.append(_both("command line", former, name))
        if (problem := _apply(mapping, name, equals, text)) is not None:
            problems.append(problem)
    if problems:
        raise ConfigError(*problems)
    return mapping


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path}: {path_kind(path)}; expected a YAML file", hint="check the path")
    raw = path.read_bytes()
    if found := signature(raw):
        raise ConfigError(f"{path}: is {found[0]}; expected YAML in UTF-8")
    try:
        mapping = yaml.load(raw.decode("utf-8-sig"), Loader=_Loader)  # a subclass of SafeLoader: plain values only
    except _BAD_YAML as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else f"{path}"
        what = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ConfigError(f"{place}: is not YAML ({what}); expected settings as `key: value`") from error
    if mapping is None:
        return {}
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path}: is {_shown(mapping)}; expected settings as `key: value`")
    return mapping


def _apply(mapping: dict[str, Any], name: str, equals: str, text: str) -> Problem | None:
    """Set the value of `a.b=c`, or say why not."""
    override = name + equals + text
    if not equals or not name:
        return Problem(f'command line: "{override}" is not a setting; expected key=value', "write seed=1, say")
    try:
        value = yaml.load(text, Loader=_Loader)
    except _BAD_YAML:
        return Problem(f'command line: "{override}" is not YAML after "="; expected a value', "quote the value")
    group: Any = mapping
    *parents, last = name.split(".")
    for index, key in enumerate(parents):
        child = _item(group, key)
        if child is None and isinstance(group, dict):
            child = group[key] = {}
        if not isinstance(child, dict | list):
            where = ".".join(parents[: index + 1])
            return Problem(f'command line: "{where}" is {_shown(child)}; expected a group of settings')
        group = child
    if isinstance(group, list):
        if not last.isdigit() or int(last) >= len(group):
            return Problem(f'command line: "{name}" is not in a list of {len(group)}; expected a number from 0')
        group[int(last)] = value
    else:
        group[last] = value
    return None


def _item(group: Any, key: str) -> Any:
    if isinstance(group, list):
        return group[int(key)] if key.isdigit() and int(key) < len(group) else None
    return group.get(key)


def _rename(mapping: dict[str, Any], former_names: Mapping[str, str], where: str, problems: list[Problem]) -> None:
    """Move values from former names to present ones, with a note in the log."""
    for former, name in former_names.items():
        *parents, old = former.split(".")
        group: Any = mapping
        for key in parents:
            group = group.get(key) if isinstance(group, dict) else None
        if not isinstance(group, dict) or old not in group:
            continue
        log.warning('%s: "%s" is deprecated; use "%s"', where, former, name)
        value = group.pop(old)
        *parents, new = name.split(".")
        group = mapping
        for key in parents:
            group = group.setdefault(key, {})
        if new in group:
            problems.append(_both(where, former, name))
        group.setdefault(new, value)


def _both(where: str, former: str, name: str) -> Problem:
    return Problem(f'{where}: "{former}" is the former name of "{name}", also set; expected one')


# ---- nested mappings into a dataclass


def build(kind: type[T], mapping: dict[str, Any], where: str, *, former_names: Mapping[str, str] | None = None) -> T:
    """A dataclass from a mapping, recursively. `where` is the file that messages name.

    Its method `problems`, if it has one, finds what no single type shows, in messages that begin with the key.

    Raises: ConfigError: with every unknown key, missing key and wrong type, and what `problems` finds.
    """
    problems: list[Problem] = []
    _rename(mapping, former_names or {}, where, problems)
    value = _dataclass(kind, mapping, None, "", where, problems)
    if value is not None and hasattr(value, "problems"):
        problems += [Problem(f"{where}: {problem.message}", problem.hint) for problem in value.problems()]
    if problems:
        raise ConfigError(*problems)
    return typing.cast("T", value)


def _dataclass(kind: Any, mapping: Any, default: Any, prefix: str, where: str, problems: list[Problem]) -> Any:
    """The dataclass; `default`, if given, provides missing settings; a wrong setting gets its own default.

    None if it cannot be made: it is not a mapping, or a setting without a default is missing or wrong.
    """
    if not isinstance(mapping, dict):
        problems.append(Problem(f'{where}: "{prefix[:-1]}" is {_shown(mapping)}; expected a group of settings'))
        return None
    hints = typing.get_type_hints(kind, include_extras=True)
    known = {item.name: item for item in dataclasses.fields(kind)}
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f'did you mean "{prefix}{near[0]}"?' if near else f"known settings: {', '.join(known)}"
            problems.append(Problem(f'{where}: unknown setting "{prefix}{key}"', hint))
    values: dict[str, Any] = {}
    for name, item in known.items():
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if name in mapping:
            before = len(problems)
            value = _value(hints[name], mapping[name], item, f"{prefix}{name}", where, problems)
            if len(problems) == before:
                values[name] = value
        elif default is not None:
            values[name] = getattr(default, name)
        elif required:
            problems.append(Problem(f'{where}: "{prefix}{name}" is missing; expected {_expected(hints[name])}'))
        if required and name not in values:
            kind = None
    return kind and kind(**values)


def _value(
    kind: Any, value: Any, field: dataclasses.Field[Any] | None, name: str, where: str, problems: list[Problem]
) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (inner,) = [item for item in arguments if item is not type(None)]
        return _value(inner, value, None, name, where, problems)
    if dataclasses.is_dataclass(kind):
        factory = field.default_factory if field else dataclasses.MISSING
        default = None if factory is dataclasses.MISSING else factory()
        return _dataclass(typing.cast("type[Any]", kind), value, default, f"{name}.", where, problems)
    if origin in (tuple, list):
        if isinstance(value, str | Path) and arguments[0] in (str, Path, LocalPath):
            value = [value]
        if isinstance(value, list | tuple):
            items = enumerate(value)
            return origin(_value(arguments[0], part, None, f"{name}.{index}", where, problems) for index, part in items)
    elif origin is Annotated and isinstance(value, arguments[0]):
        return str(Path(value).expanduser()) if kind == LocalPath and value.startswith("~") else value
    elif origin is Literal and value in arguments and type(value) in map(type, arguments):
        return value
    elif kind is Path and isinstance(value, str | Path):
        return Path(value).expanduser()
    elif kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
            return float(value)
    elif kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            if abs(value) < _LARGEST_INTEGER:
                return value
            message = f'{where}: "{name}" is {_shown(value)}; expected an integer below {_LARGEST_INTEGER}'
            problems.append(Problem(message))
            return None
    elif origin is None and isinstance(value, kind):
        return value
    problems.append(Problem(f'{where}: "{name}" is {_shown(value)}; expected {_expected(kind)}', _hint(kind, value)))
    return None


def _hint(kind: Any, value: Any) -> str | None:
    """What the user probably meant."""
    if get_origin(kind) is Annotated and kind != LocalPath and type(value) is int:
        return f'write "{value} steps"'
    if kind is str and type(value) in (int, float):
        return f'write "{value}", in quotes'
    if kind is int and isinstance(value, float) and value.is_integer():
        return f"write {value:.0f}"
    if kind in (int, float) and isinstance(value, str):
        number = re.fullmatch(r"\s*([-+]?\d[\d_,]*(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*[A-Za-z]*\s*", value)
        if number:
            return f"write {number[1].replace('_', '').replace(',', '')}, without quotes or unit"
    return None


def _shown(value: Any) -> str:
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
    return str(value)


def _expected(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if item is type(None) else _expected(item) for item in arguments)
    if dataclasses.is_dataclass(kind):
        return "a group of settings"
    if origin is Annotated:
        return str(arguments[1])
    if origin in (tuple, list):
        return "a list"
    if origin is Literal:
        return " or ".join(f'"{item}"' for item in arguments)
    return {int: "an integer", float: "a number", str: "a string", bool: "true or false", Path: "a path"}[kind]


# ---- a dataclass into YAML


def as_mapping(config: Any) -> dict[str, Any]:
    """A config as nested plain mappings and lists, every default filled in."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, Path):
            return str(value)
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    return typing.cast("dict[str, Any]", plain(dataclasses.asdict(config)))


def as_yaml(config: Any) -> str:
    """A config as YAML that `load` reads back to an equal config."""
    return yaml.safe_dump(as_mapping(config), sort_keys=False, allow_unicode=True)


# ---- flags


def field_help(kind: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, followed by its default."""
    (owner,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(owner, ast.ClassDef)
    texts = {
        field.target.id: str(text.value.value)
        for field, text in pairwise(owner.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }
    for field in dataclasses.fields(kind):
        default: Any = field.default
        if default in (None, "", ()) or default is False or default is dataclasses.MISSING:
            continue
        shown = "yes" if default is True else " ".join(default) if isinstance(default, tuple) else default
        texts[field.name] += f" (default: {shown})"
    return texts


def rename_flags(arguments: Sequence[str], former_names: Mapping[str, str]) -> list[str]:
    """The arguments with former names of flags (`--former` -> `--name`) replaced, with a note in the log."""
    renamed = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag in former_names:
            log.warning("%s is deprecated; use %s", flag, former_names[flag])
        renamed.append(former_names.get(flag, flag) + equals + value)
    return renamed


def home_path(text: str) -> Path:
    """The path of an argument; `~` is the home directory, also after `--output=` where no shell expands it."""
    return Path(text).expanduser()


def output_path(text: str) -> Path:
    """A path to write to. A shell passes on a pattern that matches nothing; it would become the name."""
    if "*" in text or "?" in text:
        raise argparse.ArgumentTypeError(f"{text} is a pattern; expected one path")
    return home_path(text)

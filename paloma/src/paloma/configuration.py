"""Settings from a YAML file and the command line into frozen dataclasses; all problems are told at once."""

import difflib
import re
import types
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

__all__ = ["ConfigError", "build", "read_yaml"]

T = TypeVar("T")
_NAMES = {str: "text", int: "an integer", float: "a number", bool: "true or false"}


class _Loader(yaml.SafeLoader):
    """YAML as people write it: `6e-4` is a number, which YAML 1.1 takes for text, and no key stands twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(None, None, f'the key "{key}" stands twice', node.start_mark)
        return cast("dict[Any, Any]", super().construct_mapping(node, deep))


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class ConfigError(ValueError):
    """A request that is wrong: every problem a line, then one hint."""

    def __init__(self, problems: list[str], hint: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.hint = hint


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that is a mapping.

    Raises:
        ConfigError: when it is missing, not YAML or not a mapping.
    """
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a subclass of SafeLoader
    except FileNotFoundError:
        raise ConfigError([f"{path}: not found; expected a YAML file"], "check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError([f"{path}: is not YAML ({detail})"], "correct the file") from None
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError([f"{path}: is {type(value).__name__}; expected keys and values"], "write `key: value` lines")
    return value


def build(kind: type[T], values: dict[str, Any], where: str) -> T:
    """An instance of a dataclass from plain values; `where` names the file or command in messages.

    Raises:
        ConfigError: unknown keys (with the nearest), wrong types, and what the class's own `problems()` finds.
    """
    found: list[str] = []
    instance = _build(kind, values, where, "", found)
    if instance is not None and not found and hasattr(instance, "problems"):
        found += [f"{where}: {problem}" for problem in instance.problems()]
    if found or instance is None:
        raise ConfigError(found, "every problem is listed; see --help for the settings")
    return instance


def _build(kind: type[T], values: dict[str, Any], where: str, prefix: str, found: list[str]) -> T | None:
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            expected = f'did you mean "{near[0]}"?' if near else "expected one of " + ", ".join(known)
            found.append(f'{where}: "{prefix}{key}" is no setting; {expected}')
            continue
        ok, converted = _convert(hints[key], value, where, prefix + key, found)
        if ok:
            arguments[key] = converted
    before = len(found)
    for name, field in known.items():
        required = field.default is MISSING and field.default_factory is MISSING
        if required and name not in values:
            found.append(f'{where}: "{prefix}{name}" is absent; expected {_describe(hints[name])}')
    if len(found) > before or len(arguments) < len([key for key in values if key in known]):
        return None
    return kind(**arguments)


def _describe(hint: Any) -> str:
    options = _options(hint)
    return " or ".join("null" if o is type(None) else _NAMES.get(get_origin(o) or o, "a list of text") for o in options)


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _convert(hint: Any, value: Any, where: str, place: str, found: list[str]) -> tuple[bool, Any]:
    for option in _options(hint):
        if is_dataclass(option) and isinstance(option, type) and isinstance(value, dict):
            return True, _build(option, value, where, f"{place}.", found)
        if get_origin(option) is tuple and isinstance(value, list | tuple) and all(type(v) is str for v in value):
            return True, tuple(value)
        if option is float and type(value) in (int, float):
            return True, float(value)
        if type(value) is option:
            return True, value
    found.append(f'{where}: "{place}" is {value!r}; expected {_describe(hint)}')
    return False, None

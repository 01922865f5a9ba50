"""YAML and `a.b=c` overrides to a configuration dataclass, with every problem named at once."""

import dataclasses
import difflib
import logging
import types
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from .config import FORMER_NAMES
from .errors import ConfigError, Problem, RequestError

__all__ = ["Checked", "load_config", "read_yaml", "to_plain", "write_config"]


class Checked(Protocol):
    """A configuration dataclass that can check its values and expand its paths."""

    def expand_home(self) -> Any:
        """Give the same with `~` expanded."""
        ...

    def check(self) -> list[Problem]:
        """List the problems; none when the configuration is usable."""
        ...


Config = TypeVar("Config", bound=Checked)
log = logging.getLogger(__name__)
_MISSING = object()


def load_config(kind: type[Config], path: Path, overrides: list[str]) -> Config:
    """Read a configuration.

    Raises:
        RequestError: the file is missing or not YAML, or an override has no `=`.
        ConfigError: unknown keys (with the nearest name), wrong types, missing keys, values that are not allowed.
    """
    import yaml

    tree = read_yaml(path)
    problems: list[Problem] = []
    for override in overrides:
        _apply_override(tree, override, yaml.safe_load, problems)
    _accept_former_names(tree, problems)
    config = _build(kind, tree, "", problems)
    if problems:
        raise ConfigError(problems)
    assert isinstance(config, kind)
    config = cast(Config, config.expand_home())
    broken = config.check()
    if broken:
        raise ConfigError(broken)
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the keys and values of a YAML file, unchecked. Raises RequestError: it is missing or not such a file."""
    import yaml

    if not path.is_file():
        raise RequestError(f"{path}: is not a file; expected a YAML configuration")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        what = getattr(error, "problem", None) or "damaged"
        raise RequestError(f"{place}: is not YAML ({what}); expected a YAML configuration") from None
    if not isinstance(tree, dict):
        raise RequestError(f"{path}: is {_type_name(tree)}; expected keys and values")
    return tree


def to_plain(config: Any) -> dict[str, Any]:
    """Give a configuration as plain objects, lists and scalars, for YAML or a manifest."""
    plain: dict[str, Any] = dataclasses.asdict(config)
    return plain


def write_config(config: Any, path: Path) -> None:
    """Save a configuration with every default filled in, as YAML that `load_config` reads."""
    import yaml

    path.write_text(yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True), encoding="utf-8")


def _apply_override(tree: dict[str, Any], override: str, parse: Any, problems: list[Problem]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        sentence = f'"{override}": is not an override; expected key=value'
        problems.append(Problem(sentence, "write training.max_steps=100"))
        return
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        child = node.get(parent)
        if child is None:
            child = node[parent] = {}
        if not isinstance(child, dict):
            problems.append(Problem(f"{key}: {parent} is {_type_name(child)}; expected a section"))
            return
        node = child
    try:
        node[last] = parse(text) if text else ""
    except Exception as error:
        if type(error).__module__.split(".")[0] != "yaml":
            raise
        node[last] = text


def _accept_former_names(tree: dict[str, Any], problems: list[Problem]) -> None:
    """Move the values of settings with former names to their present names, with a note in the log."""
    for former, name in FORMER_NAMES.items():
        section, _, old = former.partition(".")
        new = name.partition(".")[2]
        values = tree.get(section)
        if not isinstance(values, dict) or old not in values:
            continue
        if new in values:
            problems.append(Problem(f"{former}: is the former name of {name}, also set; expected one of them"))
        log.warning("%s: deprecated; use %s", former, name)
        values.setdefault(new, values.pop(old))


def _build(kind: Any, tree: dict[str, Any], prefix: str, problems: list[Problem]) -> Any:
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if key not in fields:
            nearest = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.5)
            hint = f'did you mean "{prefix}{nearest[0]}"?' if nearest else f"known keys: {', '.join(fields)}"
            problems.append(Problem(f"{prefix}{key}: is not a key; expected one of this section's", hint))
            continue
        values[key] = _convert(hints[key], value, f"{prefix}{key}", problems)
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            problems.append(Problem(f"{prefix}{name}: is absent; expected {_expected(hints[name])}"))
            values[name] = _MISSING
        elif not required and name not in values:
            continue
        elif dataclasses.is_dataclass(hints[name]) and isinstance(values[name], _Section):
            # a section that the file gives in part keeps the defaults that its owner gives the rest
            default = field.default_factory() if field.default_factory is not dataclasses.MISSING else None
            values[name] = values[name].build(default)
    if any(value is _MISSING for value in values.values()):
        return _MISSING
    return kind(**values)


class _Section:
    """A section's own values, to be laid over the defaults of the configuration that owns it."""

    def __init__(self, kind: Any, values: Any) -> None:
        self.kind, self.values = kind, values

    def build(self, default: Any) -> Any:
        if self.values is _MISSING:
            return _MISSING
        return dataclasses.replace(default, **self.values) if default is not None else self.kind(**self.values)


def _convert(hint: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        hint = next(one for one in get_args(hint) if one is not type(None))
        origin = get_origin(hint)
        if dataclasses.is_dataclass(hint):
            section = _convert(hint, value, where, problems)
            return section.build(None) if isinstance(section, _Section) else section
    if dataclasses.is_dataclass(hint):
        return _convert_section(hint, value, where, problems)
    if origin is Literal and value in get_args(hint):
        return value
    if origin is list and isinstance(value, str):
        value = [value]
    if origin is list and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    if hint is float:
        number = _as_float(value)
        if number is not None:
            return number
    elif origin is None and isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    shown = f'"{value}"' if isinstance(value, str) else _type_name(value) if isinstance(value, dict | list) else value
    problems.append(Problem(f"{where}: is {shown}; expected {_expected(hint)}"))
    return _MISSING


def _convert_section(hint: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    if not isinstance(value, dict):
        problems.append(Problem(f"{where}: is {_type_name(value)}; expected a section"))
        return _MISSING
    before = len(problems)
    built = _build(hint, value, f"{where}.", problems)
    if built is _MISSING or len(problems) > before:
        return _MISSING
    return _Section(hint, {key: getattr(built, key) for key in value})


def _as_float(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):  # YAML 1.1 reads 2e-5, which has no dot, as a string
        try:
            return float(value)
        except ValueError:
            return None
    return None


def _expected(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(f'"{one}"' for one in get_args(hint))
    if get_origin(hint) is list:
        return "a list of strings"
    names = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}
    return names.get(hint, "a section")


def _type_name(value: object) -> str:
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"
    return "empty" if value is None else f"{value!r}"

"""Settings: frozen dataclasses filled from one file (YAML or JSON) and the command line, as dolma 1.x does.

The command line wins over the file. Unknown keys, missing keys and wrong types are collected and reported together.
``${a.b}`` means another key of the same configuration, ``${oc.env:NAME}`` and ``${oc.env:NAME,default}`` the
environment, ``${d.glob:pattern}`` the matching paths,
``${d.cache:url}`` a copy of a remote file.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from dolma.errors import ConfigError, Problem, nearest
from dolma.files.paths import is_remote, matches, named
from dolma.places import LocalPath, places

__all__ = [
    "GENERATE_IDS",
    "REQUIRED",
    "SKIP_BAD_ROWS",
    "Checked",
    "Compression",
    "WorkDir",
    "at_least",
    "build",
    "load",
    "merge",
    "read_file",
    "setting",
    "shown_and_done",
    "to_yaml",
]

REQUIRED: Any = object()
"""Default of a setting that has to be given."""

T = TypeVar("T")


class Checked(Protocol):
    """Settings may say what is wrong between them; ``load`` calls ``check`` when every key is well typed."""

    def check(self) -> Iterator[Problem]: ...


def setting(default: Any, help: str, positional: bool = False) -> Any:
    """A dataclass field with its help text; lists, dicts and dataclasses as defaults are copied for each instance.

    A positional one has no option: it follows the command, in the order of the fields.
    """
    metadata = {"help": help, "required": default is REQUIRED, "positional": positional}
    if default is REQUIRED:
        return dataclasses.field(default=cast(Any, None), metadata=metadata)
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def load(cls: type[T], file: Mapping[str, Any] | None = None, overrides: Mapping[str, Any] | None = None) -> T:
    """Fills ``cls`` from a file's content and dotted overrides.

    Raises:
        ConfigError: with every problem found.
    """
    problems: list[Problem] = []
    merged = merge(file or {}, overrides or {}, problems)
    resolved = _interpolate(merged, merged, "", problems)
    config = build(cls, resolved, "", problems)
    if not problems:
        config = _at_home(config, "", problems)
    if not problems:
        problems.extend(_wildcards_in_destinations(config, ""))
        if hasattr(config, "check"):
            problems.extend(cast(Checked, config).check())
    if problems:
        raise ConfigError(problems)
    return cast(T, config)


_HOME = re.compile(r"~[\w.-]*(?=/|\Z)")


def _at_home(value: Any, key: str, problems: list[Problem], names_files: bool = False) -> Any:
    """The settings with the home directory for a leading ``~``, which no shell expands in quotes or in files."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {}
        for field in dataclasses.fields(value):
            before, place = getattr(value, field.name), places(type(value)).get(field.name)
            after = _at_home(before, f"{key}.{field.name}" if key else field.name, problems, place is not None)
            if after is not before and after != before:
                changes[field.name] = after
        return dataclasses.replace(value, **changes) if changes else value
    if isinstance(value, list):
        return [_at_home(item, f"{key}.{index}", problems, names_files) for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {name: _at_home(item, f"{key}.{name}", problems, names_files) for name, item in value.items()}
    if not isinstance(value, str) or not names_files or "~" not in value:
        return value
    # `TAGGER=~/path` on the command line, `file://~/path`
    for prefix in (value.partition("=")[0] + "=" if "=~" in value else "", "file://"):
        rest = value.removeprefix(prefix) if prefix and value.startswith(prefix) else value
        if _HOME.match(rest):
            expanded = os.path.expanduser(rest)
            if expanded == rest:
                problems.append(Problem(key, f'is "{value}", the home of an unknown user; expected a path'))
            return value[: len(value) - len(rest)] + expanded
    return value


def _wildcards_in_destinations(value: Any, key: str) -> Iterator[Problem]:
    for field in dataclasses.fields(value):
        found, name = getattr(value, field.name), f"{key}{field.name}"
        place = places(type(value)).get(field.name)
        for index, one in enumerate(found if isinstance(found, list) else [found]):
            where = f"{name}.{index}" if isinstance(found, list) else name
            if dataclasses.is_dataclass(one) and not isinstance(one, type):
                yield from _wildcards_in_destinations(one, f"{where}.")
            elif place is not None and place.is_written and isinstance(one, str) and re.search(r"[*?]|\[.*\]", one):
                message = f'is "{one}", which has a wildcard; expected the name of one directory'
                yield Problem(where, message, "results keep the names of their inputs; give only their directory")


def read_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a YAML or JSON file of settings.

    Raises:
        ConfigError: it is missing, cannot be parsed, repeats a key, or is not a mapping.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a key that appears twice in one mapping: the first would be lost silently."""

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            node = super().compose_mapping_node(anchor)
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                    if key.value in seen:
                        raise yaml.composer.ComposerError(None, None, f'"{key.value}" appears twice', key.start_mark)
                    seen.add(key.value)
            return node

    where = os.fspath(path)
    try:
        text = Path(path).expanduser().read_text("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError([Problem(where, "not found; expected a YAML or JSON settings file")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(where, f"cannot be read: {error}")]) from None
    try:
        content = json.loads(text) if where.endswith(".json") else yaml.load(text, Loader)
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError([Problem(where, f"cannot be parsed ({reason}); expected YAML or JSON")]) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError([Problem(where, f"is {_kind(content)}; expected a mapping of settings")])
    return content


def merge(file: Mapping[str, Any], overrides: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """The file's settings with the dotted overrides laid over them; neither argument changes."""
    merged: dict[str, Any] = json.loads(json.dumps(file, default=str))
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        target = merged
        for parent in parents:
            if not isinstance(target.get(parent), dict):
                target[parent] = {}
            target = target[parent]
        target[last] = value
    return merged


_REFERENCE = re.compile(r"\$\{([^${}]+)\}")


def _interpolate(value: Any, root: Mapping[str, Any], key: str, problems: list[Problem], depth: int = 0) -> Any:
    if isinstance(value, dict):
        return {k: _interpolate(v, root, f"{key}.{k}" if key else str(k), problems, depth) for k, v in value.items()}
    if isinstance(value, list):
        found = [_interpolate(item, root, f"{key}.{i}", problems, depth) for i, item in enumerate(value)]
        # an item that is a reference to a list is replaced by its items
        items: list[Any] = []
        for before, after in zip(value, found, strict=True):
            spread = isinstance(after, list) and not isinstance(before, list)
            items.extend(after if spread else [after])
        return items
    if not isinstance(value, str) or "${" not in value:
        return value
    if depth > 8:
        problems.append(Problem(key, f'is "{value}"; expected a reference that does not lead back to itself'))
        return value
    whole = _REFERENCE.fullmatch(value)
    if whole:
        return _interpolate(_reference(whole[1], root, key, problems), root, key, problems, depth + 1)
    text = _REFERENCE.sub(lambda match: str(_reference(match[1], root, key, problems)), value)
    return _interpolate(text, root, key, problems, depth + 1) if text != value else value


def _reference(name: str, root: Mapping[str, Any], key: str, problems: list[Problem]) -> Any:
    resolver, _, argument = name.partition(":")
    if resolver == "oc.env":
        variable, comma, default = argument.partition(",")
        if variable.strip() in os.environ:
            return os.environ[variable.strip()]
        if comma:
            return None if default.strip() == "null" else default.strip()
        problems.append(Problem(key, f'refers to the environment variable "{variable}", which is not set'))
        return ""
    if resolver == "d.glob":
        return sorted(matches(os.path.expanduser(argument)))
    if resolver == "d.processes":
        return max(1, (os.cpu_count() or 1) - int(argument or 0))
    if resolver == "d.cache":
        return _cached(argument, key, problems)
    found: Any = root
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            problems.append(
                Problem(
                    key,
                    f'refers to "${{{name}}}", which was not found',
                    "oc.env:, d.glob:, d.cache: and keys are known",
                )
            )
            return ""
        found = found[part]
    return found


def _cached(url: str, key: str, problems: list[Problem]) -> str:
    """The copy of a remote file in the user's cache, made if missing; a local path is returned unchanged."""
    if not is_remote(url):
        return url
    import hashlib

    from dolma.files.remote import RemoteError, fetch_url
    from dolma.files.resources import cache_directory

    try:
        return str(fetch_url(url, cache_directory() / "files" / hashlib.sha256(url.encode()).hexdigest()[:32]))
    except RemoteError as error:
        problems.append(Problem(key, f"refers to a file that cannot be read: {error}"))
        return ""


def build(cls: Any, value: Any, key: str, problems: list[Problem]) -> Any:
    """``value`` as ``cls`` (a dataclass, a list, an optional or a plain type); problems are appended, not raised."""
    origin, arguments = typing.get_origin(cls), typing.get_args(cls)
    if origin in (typing.Union, types.UnionType):
        if value is None or value == "null":
            return None
        present = [argument for argument in arguments if argument is not type(None)]
        if len(present) > 1:  # a value or a list of them, say
            chosen = [a for a in present if (typing.get_origin(a) or a) is type(value)]
            return build((chosen or present)[0], value, key, problems)
        return build(present[0], value, key, problems)
    if dataclasses.is_dataclass(cls):
        return _build_dataclass(cast(type, cls), value, key, problems)
    if origin is list:
        items = value if isinstance(value, list) else [value] if isinstance(value, str) else None
        if items is None:
            problems.append(Problem(key, f"is {_kind(value)}; expected a list"))
            return []
        return [build(arguments[0], item, f"{key}.{index}", problems) for index, item in enumerate(items)]
    if origin is dict or cls is dict:
        if not isinstance(value, dict):
            problems.append(Problem(key, f"is {_kind(value)}; expected a mapping"))
            return {}
        return value
    if cls is Any:
        return value
    return _build_plain(cls, value, key, problems)


def _build_dataclass(cls: type, value: Any, key: str, problems: list[Problem]) -> Any:
    if not isinstance(value, dict):
        problems.append(Problem(key or "the configuration", f"is {_kind(value)}; expected a mapping of settings"))
        return None
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    prefix = f"{key}." if key else ""
    for name in value:
        if name not in fields:
            problems.append(Problem(f"{prefix}{name}", "unknown setting", nearest(str(name), fields)))
    arguments = {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = build(hints[name], value[name], f"{prefix}{name}", problems)
        elif field.metadata.get("required"):
            problems.append(Problem(f"{prefix}{name}", f"is missing; expected {_type_name(hints[name])}"))
    return cls(**arguments)


def _build_plain(cls: type, value: Any, key: str, problems: list[Problem]) -> Any:
    expected = f"is {_shown(value)}; expected {_type_name(cls)}"
    if cls is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if cls is bool:
        if isinstance(value, bool):
            return value
        word = str(value).lower()
        if word in ("true", "yes", "on", "1", "false", "no", "off", "0"):
            return word in ("true", "yes", "on", "1")
    elif cls in (int, float) and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value) if cls is float else int(value) if isinstance(value, str) else value
            if cls is float or number == int(number):
                return cls(number)
        except (ValueError, OverflowError):
            pass
    problems.append(Problem(key, expected))
    return None


def _type_name(cls: Any) -> str:
    if cls is dict or typing.get_origin(cls) is dict or dataclasses.is_dataclass(cls):
        return "a mapping"
    if typing.get_origin(cls) is list:
        return "a list"
    arguments = [argument for argument in typing.get_args(cls) if argument is not type(None)]
    if arguments:
        return _type_name(arguments[0])
    return {str: "a string", int: "an integer", float: "a number", bool: "true or false"}.get(cls, str(cls))


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else _shown(value)


def _shown(value: Any) -> str:
    return "null" if value is None else f'"{value}"' if isinstance(value, str) else _kind_or_json(value)


def _kind_or_json(value: Any) -> str:
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else json.dumps(value)


def to_yaml(config: Any) -> str:
    """The resolved settings as YAML, keys sorted; ``load`` reads it back to the same settings."""
    import yaml

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [plain(item) for item in value]
        return named(value) if isinstance(value, str) else value

    return yaml.safe_dump(plain(config), sort_keys=True, allow_unicode=True, width=110)


GENERATE_IDS = "give each row without an id one: its path below `documents`, a colon and its line number"
SKIP_BAD_ROWS = "how many bad rows to skip, over all files; one more ends the run"
"""Help of two settings that `tag`, `dedupe` and `mix` share."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkDir:
    """Where intermediate files go."""

    input: LocalPath | None = setting(None, "directory for copies of remote files (default: work_dir.output)")
    output: LocalPath | None = setting(None, "directory for unfinished results (default: next to the results)")
    max_bytes: int | None = setting(
        None,
        "disk space for copies of remote files and for results that wait to be uploaded, besides the files being read "
        "(default: half of the free space)",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compression:
    """How files are packed, if their names do not say."""

    input: str | None = setting(None, "packing of the inputs: gz, zst, bz2, xz or none (default: by extension)")
    output: str | None = setting(None, "packing of the outputs: gz, zst, bz2, xz or none (default: by extension)")

    def __post_init__(self) -> None:
        for name in ("input", "output"):
            if getattr(self, name) == "none":
                object.__setattr__(self, name, "")

    def check(self, prefix: str = "compression") -> Iterator[Problem]:
        """Problems of the two names."""
        for name in ("input", "output"):
            value = getattr(self, name)
            if value not in (None, "", "gz", "zst", "zstd", "bz2", "xz"):
                yield Problem(f"{prefix}.{name}", f'is "{value}"; expected gz, zst, bz2, xz or none')


def at_least(least: int, **values: int | None) -> Iterator[Problem]:
    """A problem for each value below ``least``; None passes."""
    for key, value in values.items():
        if value is not None and value < least:
            yield Problem(key, f"is {value}; expected at least {least}")


def shown_and_done(config: Any) -> bool:
    """With ``dryrun`` prints the resolved settings to stdout, and says so."""
    if config.dryrun:
        sys.stdout.write(to_yaml(config))
    return bool(config.dryrun)

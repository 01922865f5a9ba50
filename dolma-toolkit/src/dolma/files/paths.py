"""Names of files: patterns to files, documents to the attributes next to them, URLs to their local copies."""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dolma.errors import ConfigError, Problem
from dolma.formats.files import attributes_name

__all__ = [
    "OWN_FILES",
    "PACKINGS",
    "REMOTE_DIRECTORY",
    "SCHEMES",
    "SIDE_DIRECTORY",
    "Source",
    "attributes_root",
    "expand",
    "extension",
    "fixed_part",
    "is_remote",
    "matches",
    "mirror_path",
    "named",
    "select",
    "side_file",
]

log = logging.getLogger(__name__)

REMOTE_DIRECTORY = ".dolma-remote"
"""Local copies of remote files are in a tree below it that has the shape of the buckets. So everything that goes by
paths (attributes next to documents, patterns, the relative paths of manifests) works for copies as for the originals,
and a path in the tree says which URL it is a copy of. The core knows this name too (``formats/manifest/inputs.rs``).
"""

SCHEMES = ("http", "https", "s3", "gs", "hf")

_IN_TEXT = re.compile(r"[^\s\"'`(]*" + re.escape(REMOTE_DIRECTORY) + r"/(" + "|".join(SCHEMES) + r")/")


def is_remote(path: str) -> bool:
    """Whether the path is a URL other than ``file://``."""
    scheme, separator, _ = path.partition("://")
    return bool(separator) and scheme != "file" and "/" not in scheme


def mirror_path(root: Path, url: str) -> Path:
    """The place of ``url`` (a file, a directory, or a pattern) below ``root``."""
    scheme, _, rest = url.partition("://")
    return root / REMOTE_DIRECTORY / scheme / rest


def named(text: str) -> str:
    """``text`` with URLs in place of the copies that it names; a path that is not a copy stays as it is."""
    return _IN_TEXT.sub(r"\1://", text) if REMOTE_DIRECTORY in text else text


OWN_FILES = frozenset({"manifest.json", "metrics.jsonl", "errors.jsonl", "skipped.jsonl", "config.yaml", "funnel.json"})
"""Files next to data that are not data; wildcards skip them. All but the manifest are from earlier releases."""

SIDE_DIRECTORY = ".dolma"
"""Hidden directory next to data. No name in it has ``.json``, so that no pattern for data matches."""


def side_file(directory: Path, name: str) -> Path:
    """Path of a file about a run: its settings, metrics, records or bad rows."""
    return directory / SIDE_DIRECTORY / name


PACKINGS = ("gz", "zst", "zstd", "bz2", "xz")
"""Extensions of packed files."""

_WILDCARDS = "*?["


@dataclass(frozen=True)
class Source:
    """One input file."""

    path: str
    """Where it can be opened: a local path."""
    name: str
    """As it was named to us: the path that the pattern gave, or the URL that the path is a copy of."""
    pattern: str
    """The entry of the configuration that gave it."""


def expand(patterns: Sequence[str], key: str = "documents") -> list[Source]:
    """Files that the patterns match, in the order of the patterns and sorted within each; none twice.

    A pattern is a file, a directory (its files, not those below its directories), or has any number of ``*``, ``?``,
    ``[…]`` and ``**``. Wildcards skip hidden files and ``OWN_FILES``. A file that symbolic links reach again counts
    once, under its own name if that matches. Remote files are found as the copies that ``dolma.staging`` makes.

    Raises:
        ConfigError: no pattern is given, or one matches nothing, is a URL, or names what can be read only once.
    """
    problems = [] if patterns else [Problem(key, "is empty; expected at least one file or pattern")]
    sources: dict[str, Source] = {}
    for index, pattern in enumerate(patterns):
        plain = pattern.removeprefix("file://")
        where = f"{key}.{index}"
        if is_remote(pattern):
            problems.append(Problem(where, f'is "{pattern}"; expected a local path'))
            continue
        stream = _stream(plain)
        if stream:
            message = (
                f'is "{pattern}", {stream}, which can be read only once; expected a file, since files are read twice'
            )
            problems.append(Problem(where, message, "write it to a file first, in a directory `documents`"))
            continue
        names = list(_names(plain))
        streams = [(name, kind) for name in sorted(names) if (kind := _stream(name))]
        for name, kind in streams:
            message = f'is "{pattern}", which matches {name}, {kind} that can be read only once; expected files'
            problems.append(Problem(where, message, "write it to a file first, or list only the files"))
        found = sorted(_files(names), key=_by_directness)
        if not found and not streams:
            problem = "which matches no file" if any(c in plain for c in _WILDCARDS) else "which was not found"
            hint = "patterns are relative to the current directory; `**` matches any number of directories"
            problems.append(Problem(where, f'is "{pattern}", {problem}; expected document files', hint))
        once: dict[str, str] = {}
        for path in found:
            once.setdefault(os.path.realpath(path), path)
        for path in found:
            kept = once[os.path.realpath(path)]
            if kept != path:
                log.info(f"{key}  {path} is {kept}, through a symbolic link; the file is read once")
        for real, path in sorted(once.items(), key=lambda item: item[1]):
            known = sources.setdefault(real, Source(path, named(path), plain))
            if known.path != path:
                hint = "drop one of the entries"
                problems.append(Problem(key, f'lists one file twice: "{known.name}" and "{named(path)}"', hint))
    if problems:
        raise ConfigError(problems)
    return list(sources.values())


def select(sources: Sequence[Source], patterns: Sequence[str], key: str) -> list[Source]:
    """The sources whose names match a pattern, in their order; ``*`` matches any part of a path.

    Raises:
        ConfigError: a pattern matches none.
    """
    problems = []
    for index, pattern in enumerate(patterns):
        if not any(fnmatch.fnmatchcase(source.name, pattern) for source in sources):
            message = f'is "{pattern}", which matches no document of the stage before; expected some of these'
            problems.append(Problem(f"{key}.{index}", message, f'the first is "{sources[0].name}"' if sources else ""))
    if problems:
        raise ConfigError(problems)
    return [source for source in sources if any(fnmatch.fnmatchcase(source.name, pattern) for pattern in patterns)]


def _by_directness(path: str) -> tuple[bool, int, str]:
    """Names without links come first, then short ones."""
    return os.path.realpath(path) != os.path.abspath(path), len(path), path


def _stream(path: str) -> str:
    """What a path is, if neither a file nor a directory; empty for these, and for a missing path."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return ""
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else ""


def matches(pattern: str) -> list[str]:
    """The files that a pattern matches, in no order. Links to directories are followed, each directory once."""
    return _files(_names(pattern))


def _files(names: Iterable[str]) -> list[str]:
    return [name for name in names if os.path.isfile(name) and os.path.basename(name) not in OWN_FILES]


def _names(pattern: str) -> Iterable[str]:
    """What a pattern matches, including directories and pipes."""
    if os.path.isfile(pattern):
        return [pattern]
    if os.path.isdir(pattern):
        return glob.iglob(os.path.join(glob.escape(pattern), "*"))
    return _globbed(pattern) if any(character in pattern for character in _WILDCARDS) else []


def _globbed(pattern: str) -> Iterable[str]:
    """As ``glob.iglob(pattern, recursive=True)``, but without its loops where a link leads back up."""
    before, separator, after = pattern.partition("**")
    # `**` is recursive only as a whole component
    is_whole = (not before or before.endswith("/")) and (not after or after.startswith("/"))
    if not separator or not is_whole:
        return glob.iglob(pattern)
    after = after.lstrip("/") or "*"
    roots = glob.iglob(before) if any(c in before for c in _WILDCARDS) else [before]
    found: dict[str, None] = {}
    for root in roots:
        for directory in _directories(root):
            found.update(dict.fromkeys(_globbed(os.path.join(glob.escape(directory), after) if directory else after)))
    return found


def _directories(root: str) -> Iterable[str]:
    """A directory and those below it, without hidden ones. Those behind links come last, each only once."""
    seen: set[str] = set()
    linked = [root]
    while linked:
        waiting = [linked.pop(0)]
        while waiting:
            directory = waiting.pop()
            real = os.path.realpath(directory or ".")
            if real in seen:
                continue
            seen.add(real)
            yield directory
            try:
                entries = sorted(os.scandir(directory or "."), key=lambda entry: entry.name)
            except OSError:
                continue  # as in `glob`: an unreadable directory counts as empty
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_dir():
                    below = os.path.join(directory, entry.name)
                    (linked if entry.is_symlink() else waiting).append(below)


def fixed_part(pattern: str) -> str:
    """The directory of everything that a pattern can match: what comes before its first wildcard."""
    if os.path.isdir(pattern):
        return pattern
    parts = PurePosixPath(pattern).parts
    fixed = []
    for part in parts[:-1]:
        if any(character in part for character in _WILDCARDS):
            break
        fixed.append(part)
    return str(PurePosixPath(*fixed)) if fixed else "."


def extension(name: str) -> str:
    """How a file is packed, by its name; empty if it is not."""
    last = PurePosixPath(name).suffix.removeprefix(".")
    return {"zstd": "zst"}.get(last, last) if last in PACKINGS else ""


def attributes_root(path: str, name: str, document_dir: str = "documents") -> tuple[Path, Path, str]:
    """For a document file: its document directory, the directory of the attributes ``name``, its attribute file within.

    As in dolma 1.x the first component named ``documents`` counts.

    Raises:
        ValueError: no component has that name.
    """
    parts = PurePosixPath(path).parts
    if document_dir not in parts[:-1]:
        raise ValueError(f'has no directory "{document_dir}"')
    index = parts.index(document_dir)
    above = Path(*parts[:index]) if index else Path()
    relative = attributes_name(str(PurePosixPath(*parts[index + 1 :])))
    return above / document_dir, above / "attributes" / name, relative

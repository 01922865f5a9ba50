"""Lets a command that works on local files work on remote ones: inputs are copied before it, results after it.

The command sees paths below ``files.paths.REMOTE_DIRECTORY``. What a destination already has is copied there too, so
that finished work is found, and a manifest can be added to.
"""

from __future__ import annotations

import dataclasses
import fcntl
import functools
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from dolma.config import WRITTEN_KEYS
from dolma.errors import ConfigError, FormatError, Problem, ProblemsError
from dolma.files.paths import SCHEMES, SIDE_DIRECTORY, attributes_root, is_remote, mirror_path, named, side_file
from dolma.files.remote import Entry, RemoteError, each, fetch, find, head, remove, upload
from dolma.formats.files import sha256_of
from dolma.records import bytes_text

__all__ = ["Written", "staged", "temporary_directory", "with_remote_paths"]

log = logging.getLogger(__name__)

TEMPORARY_PREFIX = "dolma-run-"
LOCK = ".lock"
"""Locked while its run lives; the system releases the lock of a run that is killed."""


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """An empty directory that is removed on leaving; those of killed runs are removed first."""
    _remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX) as name:
        # gets its name when it is locked, so that nobody finds it unlocked
        unnamed = Path(name) / f"{LOCK}.new"
        with unnamed.open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            unnamed.rename(Path(name) / LOCK)
            yield Path(name)


def _remove_abandoned(root: Path) -> None:
    for directory in root.glob(f"{TEMPORARY_PREFIX}*"):
        try:
            if directory.stat().st_uid != os.getuid():
                continue
            with (directory / LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
        except OSError:
            continue  # its run is alive or starting, or another run is removing it


C = TypeVar("C")
R = TypeVar("R")

Written = Callable[[Any, str], Iterable[str]]
"""From the settings and a document file (its copy) to the directories that its attributes are written to."""

READ_KEYS = ("documents", "attributes", "train", "test")
DIRECTORY_KEYS = ("prefix", "sources")
KEPT_FILE_KEYS = ("file",)
"""Settings that may be URLs, by their last name: patterns to read, directories to read, files for both."""

_URL_KEYS = (*READ_KEYS, *DIRECTORY_KEYS, *WRITTEN_KEYS, *KEPT_FILE_KEYS)
_RECORDS = ("funnel.ndjson", "progress.ndjson")
"""Side files from which a run resumes."""


def with_remote_paths(written: Written | None = None) -> Callable[[Callable[[Any], R]], Callable[[Any], R]]:
    """Makes ``run(config)`` take URLs where its settings name documents and destinations."""

    def decorate(run: Callable[[Any], R]) -> Callable[[Any], R]:
        @functools.wraps(run)
        def call(config: Any) -> R:
            with staged(config, written) as local:
                return run(local)

        return call

    return decorate


@contextmanager
def staged(config: C, written: Written | None = None) -> Iterator[C]:
    """The settings with local paths for URLs; on leaving without an error, what was written is uploaded.

    Copies and results share one tree, below ``work_dir.output``, else ``work_dir.input``, else a temporary directory.

    Raises:
        ConfigError: a URL cannot be used or read; it has every problem that was found.
        RemoteError: the upload failed. What was made is kept if ``work_dir.output`` is set.
    """
    if not any(is_remote(value) for _, _, value in _settings(config)):
        yield config
        return
    work_dir = getattr(config, "work_dir", None)
    with temporary_directory() as temporary:
        dry = bool(getattr(config, "dryrun", False))
        kept = getattr(work_dir, "output", None) or getattr(work_dir, "input", None)
        root = temporary if dry or kept is None else Path(kept)
        stage = _Stage(config, root, dry)
        local = stage.local_settings(written)
        if dry:
            yield local
            return
        for url in stage.written:
            _pull(url, mirror_path(root, url))
        try:
            yield local
        except (FormatError, ProblemsError):
            for url in stage.written:
                rows = side_file(mirror_path(root, url), "errors.ndjson")
                if rows.is_file():
                    upload(rows, f"{url}/{SIDE_DIRECTORY}/errors.ndjson")
            raise
        for url in stage.written:
            _push(mirror_path(root, url), url)
        for url in stage.kept_files:
            copy = mirror_path(root, url)
            if copy.is_file() and upload(copy, url):
                log.info("uploaded %s", url)


def _settings(config: Any, key: str = "") -> Iterator[tuple[str, Any, str]]:
    """(dotted key, the settings that have it, value) of every string that may be a URL."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{key}{field.name}"
        if field.name in _URL_KEYS:
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, str):
                    yield name, config, one
        for index, one in enumerate(value if isinstance(value, list) else [value]):
            if dataclasses.is_dataclass(one) and not isinstance(one, type):
                yield from _settings(one, f"{name}.{index}." if isinstance(value, list) else f"{name}.")


class _Stage:
    """One run: what is copied for it, and where to."""

    def __init__(self, config: Any, root: Path, dry: bool) -> None:
        self.config, self.root, self.dry = config, root, dry
        self.written: dict[str, None] = {}
        self.kept_files: dict[str, None] = {}

    def local_settings(self, written: Written | None) -> Any:
        """Copies the inputs, notes the outputs, and gives the settings with local paths."""
        problems: list[Problem] = []
        entries: dict[str, Entry] = {}
        listings: dict[str, dict[str, Entry]] = {}
        for key, owner, value in _settings(self.config):
            if not is_remote(value):
                continue
            last = key.rpartition(".")[2]
            try:
                _check(key, value, writes=last not in (*READ_KEYS, *DIRECTORY_KEYS))
                if last in WRITTEN_KEYS:
                    below = "/documents" if last == "path" and not getattr(self.config, "shuffle", True) else ""
                    self.written[value.rstrip("/") + below] = None
                elif last in KEPT_FILE_KEYS:
                    self.kept_files[value] = None
                    there = head(value)
                    if there is not None and not self.dry:
                        fetch(there, self._local(value))
                else:
                    found = _found(key, f"{value.rstrip('/')}/**" if last in DIRECTORY_KEYS else value)
                    entries.update((entry.url, entry) for entry in found)
                    for entry in found:
                        entries.update(_companions(owner, entry.url, listings))
                        for directory in written(self.config, str(self._local(entry.url))) if written else ():
                            _check(entry.url, named(directory), writes=True)
                            self.written[named(directory)] = None
            except ConfigError as error:
                problems.extend(error.problems)
            except RemoteError as error:
                problems.append(Problem(key, f'is "{value}", which cannot be read: {error}'))
            except ValueError:
                continue  # no directory `documents`: the command reports it in its own words
        if problems:
            raise ConfigError(problems)
        self._copy(list(entries.values()))
        return self._localized(self.config)

    def _local(self, url: str) -> Path:
        return mirror_path(self.root, url)

    def _copy(self, entries: list[Entry]) -> None:
        if self.dry:
            for entry in entries:
                # holes of the right size: a dry run only looks at names and sizes
                path = self._local(entry.url)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    file.truncate(entry.size_bytes or 0)
            return
        self._expect_room(entries)
        copied = sum(each(lambda entry: fetch(entry, self._local(entry.url)), entries))
        if entries:
            log.info("copied %d of %d remote files; the rest was up to date", copied, len(entries))

    def _expect_room(self, entries: list[Entry]) -> None:
        """Checks the disk before the first byte is copied, since all copies stay until the run ends."""

        def to_come(entry: Entry) -> int:
            copy, size_bytes = self._local(entry.url), entry.size_bytes or 0
            return 0 if copy.is_file() and copy.stat().st_size == size_bytes else size_bytes

        needed_bytes = sum(map(to_come, entries))
        if not needed_bytes:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(self.root).free
        if needed_bytes > free_bytes:
            message = f"{self.root} has room for {bytes_text(free_bytes)}; expected {bytes_text(needed_bytes)}"
            hint = "set it to a directory on a larger disk, or give the documents in several runs"
            raise ConfigError([Problem("work_dir.output", f"{message}, for the copies of {len(entries)} files", hint)])

    def _localized(self, config: Any) -> Any:
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            takes_url = field.name in _URL_KEYS

            def local(one: Any, takes_url: bool = takes_url) -> Any:
                if dataclasses.is_dataclass(one) and not isinstance(one, type):
                    return self._localized(one)
                return str(self._local(one)) if takes_url and isinstance(one, str) and is_remote(one) else one

            changes[field.name] = [local(one) for one in value] if isinstance(value, list) else local(value)
        return dataclasses.replace(config, **changes)


def _check(key: str, url: str, *, writes: bool) -> None:
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        names = ", ".join(f"{name}://" for name in SCHEMES)
        raise ConfigError([Problem(key, f'is "{url}"; expected a path or one of {names}')])
    web = scheme in ("http", "https")
    if writes and web:
        message = "is read over http, which cannot be written to; expected a destination for its attributes"
        raise ConfigError([Problem(url, message, "set destination to a directory, s3:// or gs://")])
    if web and any(character in url for character in "*["):
        hint = "name the files one by one"
        raise ConfigError([Problem(key, f'is "{url}"; expected a remote name without wildcards', hint)])
    if any(part in ("", ".", "..") for part in PurePosixPath(rest).parts) or "//" in rest or ".." in rest.split("/"):
        raise ConfigError([Problem(key, f'is "{url}"; expected a URL without empty parts and ".."')])


def _found(key: str, pattern: str) -> list[Entry]:
    if pattern.startswith("http"):
        entry = head(pattern)
        found = [] if entry is None else [entry]
    else:
        found = find(pattern)
    if not found:
        what = "which matches no file" if any(c in pattern for c in "*?[") else "which cannot be read: not found"
        hint = "`*` matches a part of one name, `**` any number of directories"
        raise ConfigError([Problem(key, f'is "{pattern}", {what}; expected document files', hint)])
    for entry in found:
        _check(key, entry.url, writes=False)
    return found


def _companions(owner: Any, document: str, listings: dict[str, dict[str, Entry]]) -> Iterator[tuple[str, Entry]]:
    """The existing files of the attributes that are wanted next to a document."""
    for name in getattr(owner, "attributes", ()) if hasattr(owner, "documents") else ():
        # the path of a URL, with "/" for "://"
        _, directory, relative = attributes_root(document.replace("://", "/", 1), name)
        prefix = str(directory).replace("/", "://", 1)
        if prefix not in listings:
            listings[prefix] = {entry.url: entry for entry in find(f"{prefix}/**")}
        for url, entry in listings[prefix].items():
            if url.endswith(f"/{relative}"):
                yield url, entry


def _pull(url: str, directory: Path) -> None:
    """Copies a finished artifact; an unfinished one is written from scratch."""
    manifest = head(f"{url}/manifest.json")
    if manifest is None:
        return
    target = directory / "manifest.json"
    before = target.read_bytes() if target.is_file() else None
    fetch(manifest, target)
    if before is not None and before == target.read_bytes():
        return
    wanted = {f"{url}/{name}" for name in (*_listed(target), "funnel.json", ".progress.jsonl")}
    wanted |= {f"{url}/{SIDE_DIRECTORY}/{name}" for name in _RECORDS}
    entries = [entry for entry in find(f"{url}/**", hidden=True) if entry.url in wanted]
    for _ in each(lambda entry: fetch(entry, directory / entry.url[len(url) + 1 :]), entries):
        pass


def _listed(manifest: Path) -> list[str]:
    try:
        return [entry["path"] for entry in json.loads(manifest.read_bytes())["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # not one of ours; the command reports it


def _push(directory: Path, url: str) -> None:
    """Uploads the missing files. The manifest is removed first and uploaded last."""
    files = sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())
    files = [name for name in files if name.startswith(f"{SIDE_DIRECTORY}/") or not re.search(r"(^|/)\.", name)]
    data = [name for name in files if PurePosixPath(name).name != "manifest.json"]
    last = [name for name in files if name not in data]
    there = head(f"{url}/manifest.json")
    stale: list[str] = []
    if there is not None and (not last or there.sha256 != sha256_of(directory / "manifest.json")):
        with temporary_directory() as temporary:
            old = temporary / "manifest.json"
            fetch(there, old)
            stale = [name for name in _listed(old) if name not in files]
        remove(f"{url}/manifest.json")
    sent = sum(each(lambda name: upload(directory / name, f"{url}/{name}"), data))
    for name in stale:
        remove(f"{url}/{name}")
    for name in last:
        upload(directory / name, f"{url}/{name}")
    log.info("uploaded %d of %d files to %s; the rest was up to date", sent, len(data), url)

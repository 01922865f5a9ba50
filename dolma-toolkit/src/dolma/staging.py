"""Lets a command that works on local files work on remote ones.

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
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from dolma.errors import ConfigError, FormatError, Problem, ProblemsError
from dolma.files.paths import SCHEMES, SIDE_DIRECTORY, attributes_root, is_remote, mirror_path, named, side_file
from dolma.files.remote import Entry, RemoteError, each, fetch, find, head, remove, upload
from dolma.files.store import Store, is_copy, put_hole, running
from dolma.formats.files import sha256_of
from dolma.places import Place, places
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

_RECORDS = ("funnel.ndjson", "progress.ndjson")
"""Side files from which a run resumes."""


def with_remote_paths(
    written: Written | None = None, *, streams: bool = False
) -> Callable[[Callable[[Any], R]], Callable[[Any], R]]:
    """Makes ``run(config)`` take URLs where its settings name documents and destinations.

    With ``streams`` documents and their attributes are copied when they are read, and results are uploaded when they
    are written; else all inputs are there before ``run``, and results are uploaded after it.
    """

    def decorate(run: Callable[[Any], R]) -> Callable[[Any], R]:
        @functools.wraps(run)
        def call(config: Any) -> R:
            with staged(config, written, streams=streams) as local:
                return run(local)

        return call

    return decorate


@contextmanager
def staged(config: C, written: Written | None = None, *, streams: bool = False) -> Iterator[C]:
    """The settings with local paths for URLs; on leaving without an error, what was written is uploaded.

    Copies and results share one tree, below ``work_dir.output``, else ``work_dir.input``, else a temporary directory.

    Raises:
        ConfigError: a URL cannot be used or read; it has every problem that was found.
        RemoteError: a file cannot be read or written.
    """
    if not any(is_remote(value) for *_, value in _settings(config)):
        yield config
        return
    work_dir = getattr(config, "work_dir", None)
    with temporary_directory() as temporary:
        dry = bool(getattr(config, "dryrun", False))
        kept = getattr(work_dir, "output", None) or getattr(work_dir, "input", None)
        root = temporary if dry or kept is None else Path(kept)
        stage = _Stage(config, root, dry)
        stage.look(written)
        if getattr(config, "shard", None) or getattr(config, "merge", None):
            stage.check_shared()
        if dry:
            for entry in stage.entries.values():
                put_hole(entry, mirror_path(root, entry.url))
            yield stage.local_settings()
        else:
            root.mkdir(parents=True, exist_ok=True)
            with _alone_in(root):
                if streams:
                    with running(Store(root, _max_bytes(work_dir, root))) as store:
                        yield from _streamed(stage, store)
                else:
                    yield from _copied(stage)


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Keeps other runs away from the copies: they would remove each other's."""
    directory = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f'is "{root}", where another run keeps its copies; expected one run at a time'
            hint = "wait until the other run ends, or name another directory"
            raise ConfigError([Problem("work_dir.output", message, hint)]) from None
        yield
    finally:
        os.close(directory)


def _streamed(stage: _Stage, store: Store) -> Iterator[Any]:
    stage.expect_room(max(stage.entries.values(), key=lambda entry: entry.size_bytes or 0, default=None))
    for url in stage.written:
        store.add_destination(url)
    for entry in stage.entries.values():
        store.add(entry)
    stage.fetch_kept_files()
    try:
        yield stage.local_settings()
    except BaseException as error:
        _upload_errors(stage, error)
        with suppress(RemoteError):
            store.settle()  # what is finished need not be made again
        raise
    store.finish(stage.kept_files)


def _copied(stage: _Stage) -> Iterator[Any]:
    stage.copy()
    stage.fetch_kept_files()
    for url in stage.written:
        _pull(url, mirror_path(stage.root, url))
    try:
        yield stage.local_settings()
    except (FormatError, ProblemsError) as error:
        _upload_errors(stage, error)
        raise
    for url in stage.written:
        _push(mirror_path(stage.root, url), url)
    for url in stage.kept_files:
        copy = mirror_path(stage.root, url)
        if copy.is_file() and upload(copy, url):
            log.info("uploaded %s", url)


def _upload_errors(stage: _Stage, error: BaseException) -> None:
    """Uploads the rows that were wrong."""
    if isinstance(error, FormatError | ProblemsError):
        for url in stage.written:
            rows = side_file(mirror_path(stage.root, url), "errors.ndjson")
            if rows.is_file():
                upload(rows, f"{url}/{SIDE_DIRECTORY}/errors.ndjson")


def _max_bytes(work_dir: Any, root: Path) -> int:
    given: int | None = getattr(work_dir, "max_bytes", None)
    if given is not None and given < 1:
        raise ConfigError([Problem("work_dir.max_bytes", f"is {given}; expected at least 1")])
    return given if given is not None else shutil.disk_usage(root).free // 2


def _settings(config: Any, key: str = "") -> Iterator[tuple[str, Place, Any, str]]:
    """(dotted key, what is there, the settings that have it, value) of every string that may be a URL."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{key}{field.name}"
        place = places(type(config)).get(field.name)
        if place is not None and place.may_be_remote:
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, str):
                    yield name, place, config, one
        for index, one in enumerate(value if isinstance(value, list) else [value]):
            if dataclasses.is_dataclass(one) and not isinstance(one, type):
                yield from _settings(one, f"{name}.{index}." if isinstance(value, list) else f"{name}.")


class _Stage:
    """One run: what it reads, and where it writes to."""

    def __init__(self, config: Any, root: Path, dry: bool) -> None:
        self.config, self.root, self.dry = config, root, dry
        self.entries: dict[str, Entry] = {}
        """Documents and what goes along with them."""
        self.written: dict[str, None] = {}
        self.kept_files: dict[str, Entry | None] = {}

    def look(self, written: Written | None) -> None:
        """Finds the inputs and notes the outputs."""
        problems: list[Problem] = []
        listings: dict[str, dict[str, Entry]] = {}
        for key, place, owner, value in _settings(self.config):
            if not is_remote(value):
                continue
            try:
                _check(key, value, writes=place not in (Place.INPUT_PATTERN, Place.INPUT_DIRECTORY))
                if place is Place.OUTPUT_DIRECTORY:
                    is_mixed = key.endswith("output.path")
                    below = "/documents" if is_mixed and not getattr(self.config, "shuffle", True) else ""
                    self.written[value.rstrip("/") + below] = None
                elif place is Place.UPDATED_FILE:
                    self.kept_files[value] = head(value)
                else:
                    found = _found(key, f"{value.rstrip('/')}/**" if place is Place.INPUT_DIRECTORY else value)
                    self.entries.update((entry.url, entry) for entry in found)
                    for entry in found:
                        self.entries.update(_companions(owner, entry.url, listings))
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

    def check_shared(self) -> None:
        """Shards find each other's work in journals, which each would overwrite in a bucket."""
        for url in (*self.written, *self.kept_files):
            message = f'divides a run that writes to "{url}"; expected outputs on a file system that all shards see'
            raise ConfigError([Problem("shard", message)])

    def local_settings(self) -> Any:
        """The settings with local paths."""
        return self._localized(self.config)

    def _local(self, url: str) -> Path:
        return mirror_path(self.root, url)

    def fetch_kept_files(self) -> None:
        """Copies the files that are read as a whole, and written."""
        for url, there in self.kept_files.items():
            if there is not None:
                fetch(there, self._local(url))

    def copy(self) -> None:
        """Copies all inputs."""
        entries = list(self.entries.values())
        self.expect_room(*entries)
        copied = sum(each(lambda entry: fetch(entry, self._local(entry.url)), entries))
        if entries:
            log.info("copied %d of %d remote files; the rest was up to date", copied, len(entries))

    def expect_room(self, *entries: Entry | None) -> None:
        """Checks the disk before the first byte is copied, for files that have to be there together."""

        def to_come(entry: Entry) -> int:
            return 0 if is_copy(self._local(entry.url), entry) else entry.size_bytes or 0

        needed_bytes = sum(to_come(entry) for entry in entries if entry is not None)
        if not needed_bytes:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(self.root).free
        if needed_bytes > free_bytes:
            message = f"{self.root} has room for {bytes_text(free_bytes)}; expected {bytes_text(needed_bytes)}"
            what = "the largest file" if len(entries) == 1 else f"the copies of {len(entries)} files"
            hint = "set it to a directory on a larger disk"
            raise ConfigError([Problem("work_dir.output", f"{message}, for {what}", hint)])

    def _localized(self, config: Any) -> Any:
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            place = places(type(config)).get(field.name)
            takes_url = place is not None and place.may_be_remote

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
    if writes and (web or scheme == "hf"):
        message = f"is read over {scheme}, which cannot be written to; expected a destination for its attributes"
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
            if f"{prefix}/manifest.json" in listings[prefix]:
                yield from listings[prefix].items()  # a manifest says what all of them are
        found = listings[prefix].get(f"{prefix}/{relative}")
        if found is not None:
            yield found.url, found


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

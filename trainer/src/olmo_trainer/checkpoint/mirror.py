"""Copies of a run elsewhere, by fsspec: an object store, another machine; and the way back from there.

    <url>/config.yaml  order.json  metrics.jsonl  checkpoints/step-<n>/

A checkpoint there is whole if it has a manifest, which is copied last; the run's own files are copied before it, so
that the rows up to its step are there too.
"""

import logging
import re
from pathlib import Path
from typing import Any

import fsspec

from ..data.provenance import ORDER
from ..formats.checkpoint import read_checkpoint
from ..formats.contract import ConfigError, FormatError, write_file
from ..formats.manifest import MANIFEST, read_manifest
from ..settings import SettingError
from .save import publish, step_directories

__all__ = ["fetch", "mirror", "restore_from_remote"]

log = logging.getLogger(__name__)

_RUN_FILES = ("config.yaml", ORDER, "metrics.jsonl")


def mirror(checkpoints: Path, url: str) -> None:
    """Copy every checkpoint that the store lacks or has with other content, and the run's current files.

    No checkpoint of another step is touched. What a kill or a failure cut short is copied again by the next call.

    Raises: OSError, or what the file system of the URL raises.
    """
    files, root = _store(url, SettingError)
    files.makedirs(root, exist_ok=True)
    for path in (checkpoints.parent / name for name in _RUN_FILES):
        if path.is_file():
            _put_whole(files, path, f"{root}/{path.name}")
    for _, directory in step_directories(checkpoints):
        copy = f"{root}/checkpoints/{directory.name}"
        if files.exists(f"{copy}/{MANIFEST}"):
            if files.cat_file(f"{copy}/{MANIFEST}") == (directory / MANIFEST).read_bytes():
                continue
            files.rm_file(f"{copy}/{MANIFEST}")
        for path in sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST):
            target = f"{copy}/{path.relative_to(directory).as_posix()}"
            files.makedirs(target.rpartition("/")[0], exist_ok=True)
            files.put_file(str(path), target)
        _put_whole(files, directory / MANIFEST, f"{copy}/{MANIFEST}")
        log.info("copied %s to %s", directory.name, copy)


def _put_whole(files: Any, path: Path, target: str) -> None:
    """Copy a file by another name first: where a store's writes are not atomic, half a file must not count."""
    parent, _, name = target.rpartition("/")
    files.put_file(str(path), f"{parent}/.{name}.writing")
    files.mv(f"{parent}/.{name}.writing", target)


def restore_from_remote(checkpoints: Path, url: str | None) -> None:
    """Fetch the newest whole checkpoint of a run, and the run's files, to a directory that has no checkpoint.

    A copy that differs from its manifest is logged and the one before it is fetched; the damaged copy loses its
    manifest, so that it is copied again when the run reaches its step again.

    Raises: ConfigError; FormatError: none of the copies is whole, where there are some; what the file system raises.
    """
    if url is None or step_directories(checkpoints):
        return
    files, root = _store(url, SettingError)
    copies = _copies(files, root)
    for name in _RUN_FILES if copies else ():  # first: once there is a checkpoint here, nothing more is fetched
        if files.exists(f"{root}/{name}"):
            write_file(checkpoints.parent / name, files.cat_file(f"{root}/{name}"))
    damaged: dict[str, FormatError] = {}
    for copy in copies:
        try:
            with publish(checkpoints / copy.rpartition("/")[2]) as temporary:
                _fetch(files, copy, temporary)
                for other in damaged:
                    files.rm_file(f"{other}/{MANIFEST}")
        except FormatError as error:
            log.warning("%s: incomplete (%s); trying the one before", copy, error.message)
            damaged[copy] = error
            continue
        log.info("fetched %s", copy)
        return
    if damaged:
        raise next(iter(damaged.values()))


def fetch(url: str, destination: Path) -> None:
    """Fetch a checkpoint, or the newest whole one of a run, to a new directory; every file is checked.

    Raises: ConfigError: there is none; FormatError: it is not what its manifest says; what the file system raises.
    """
    files, root = _store(url, ConfigError)
    copies = [root] if files.exists(f"{root}/{MANIFEST}") else _copies(files, root)
    if not copies:
        raise ConfigError(f"{url}: has no {MANIFEST} and no checkpoints; expected a checkpoint, or a run")
    with publish(destination) as temporary:
        _fetch(files, copies[0], temporary)


def _store(url: str, kind: type[ConfigError]) -> tuple[Any, str]:
    """The file system of a URL and the path in it."""
    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        key = '"checkpoint.remote": ' if kind is SettingError else ""
        raise kind(f"{key}{url} cannot be reached ({error}); expected a URL that fsspec knows") from error
    return files, root.rstrip("/")


def _copies(files: Any, root: str) -> list[str]:
    """The checkpoints of a run that have a manifest, the newest first."""
    files.invalidate_cache()
    try:
        names = [path.rstrip("/").rpartition("/")[2] for path in files.ls(f"{root}/checkpoints", detail=False)]
    except FileNotFoundError:
        return []
    steps = sorted((int(name[5:]) for name in names if re.fullmatch(r"step-\d+", name)), reverse=True)
    copies = (f"{root}/checkpoints/step-{step}" for step in steps)
    return [copy for copy in copies if files.exists(f"{copy}/{MANIFEST}")]


def _fetch(files: Any, copy: str, directory: Path) -> None:
    """Fetch the files that a manifest lists into a directory that nobody sees yet, and check them."""
    files.get_file(f"{copy}/{MANIFEST}", str(directory / MANIFEST))
    names = [row["path"] for row in read_manifest(directory, "checkpoint").files]
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
    try:
        files.get([f"{copy}/{name}" for name in names], [str(directory / name) for name in names])
    except FileNotFoundError as error:
        raise FormatError("missing_file", copy, "not found; expected the files that its manifest lists") from error
    read_checkpoint(directory)

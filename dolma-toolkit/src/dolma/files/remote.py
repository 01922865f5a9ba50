"""Copies of remote files, and remote copies of files: tried again where that can help, and checked when they are there.

A copy gets its name when it is whole: its size is that of the original, and so is its MD5 where the store tells one.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import translate
from pathlib import Path
from typing import TypeVar

from dolma.files.mirror import SCHEMES
from dolma.files.stores import Entry, Store, is_lasting, status_of, store_of

__all__ = ["RemoteError", "each", "fetch", "fetch_url", "find", "head", "remove", "sha256_of", "upload"]

log = logging.getLogger(__name__)

ATTEMPTS = 6
"""Tries without any progress, before it is given up."""
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
PARALLEL_COPIES = 8

T = TypeVar("T")
R = TypeVar("R")


class RemoteError(OSError):
    """A remote file cannot be read or written; the text says which, and why."""


def _store(url: str) -> Store:
    try:
        return store_of(url.partition("://")[0])
    except ImportError as error:
        extra = "s3" if url.startswith("s3:") else "gcs"
        message = f'needs a package that is not installed ({error}); install "dolma-toolkit[{extra}]"'
        raise RemoteError(f"{url}: {message}") from error


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


class _Patience:
    """Counts failures in a row, waits longer after each, and gives up in the end."""

    def __init__(self, url: str, doing: str) -> None:
        self.url, self.doing, self.failures = url, doing, 0

    def after(self, error: BaseException) -> None:
        if status_of(error) == 412:
            message = "has changed while it was read; expected a file that stays as it is"
            raise RemoteError(f"{self.url}: {message}") from error
        self.failures += 1
        if is_lasting(error) or self.failures >= ATTEMPTS:
            tries = f" (after {self.failures} tries)" if self.failures > 1 else ""
            raise RemoteError(f"{self.url}: cannot be {self.doing}: {_reason(error)}{tries}") from error
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self.failures - 1))
        log.warning("%s: %s; trying again in %.1f s", self.url, _reason(error), pause_s)
        time.sleep(pause_s)


def _tried(url: str, doing: str, call: Callable[[], R]) -> R:
    patience = _Patience(url, doing)
    while True:
        try:
            return call()
        except Exception as error:
            patience.after(error)


def head(url: str) -> Entry | None:
    """Metadata of a remote file; None if it is missing."""
    store = _store(url)
    return _tried(url, "read", lambda: store.head(url))


def find(pattern: str, *, hidden: bool = False) -> list[Entry]:
    """The remote files that a pattern matches, sorted: ``*`` and ``?`` within a name, ``**`` across any number of them.

    A pattern without wildcards is a file, or else the files directly below it. Names that begin with a dot are passed
    over where a wildcard would match them, unless ``hidden``.
    """
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    if fixed == pattern:
        found = None if pattern.endswith("/") else head(pattern)
        if found is not None:
            return [found]
        fixed = pattern.rstrip("/") + "/"
        pattern = fixed + "*"
        matches = _matcher(fixed, "*", hidden)
    else:
        fixed = fixed[: fixed.rindex("/") + 1]
        matches = _matcher(fixed, pattern[len(fixed) :], hidden)
    if fixed.count("/") < 3:
        raise RemoteError(f"{pattern}: names no bucket; expected a bucket before the first wildcard")
    store = _store(pattern)
    entries = _tried(fixed, "listed", lambda: list(store.list(fixed)))
    return sorted((entry for entry in entries if matches(entry.url)), key=lambda entry: entry.url)


def _matcher(fixed: str, pattern: str, hidden: bool) -> Callable[[str], bool]:
    parts = pattern.split("/")

    def passes(name: str) -> bool:
        return hidden or not name.startswith(".")

    expressions = [re.compile(translate(part)) for part in parts]

    def names_match(names: list[str], at: int) -> bool:
        if at == len(parts):
            return not names
        if parts[at] == "**":
            if at == len(parts) - 1:
                return all(map(passes, names))
            visible = next((i for i, name in enumerate(names) if not passes(name)), len(names))
            return any(names_match(names[skipped:], at + 1) for skipped in range(visible + 1))
        if not names or not (passes(names[0]) or parts[at].startswith(".")):
            return False
        return bool(expressions[at].match(names[0])) and names_match(names[1:], at + 1)

    # a key that ends in "/" is what some tools leave for a directory
    return lambda url: not url.endswith("/") and names_match(url[len(fixed) :].split("/"), 0)


def fetch(entry: Entry, target: Path) -> bool:
    """Copies a remote file; says False if an equal copy of the same original is there already.

    Raises:
        RemoteError: it cannot be read, has changed meanwhile, or the copy is not equal to it.
    """
    noted = target.with_name(f".{target.name}.remote")
    identity = f"{entry.url}\n{entry.size_bytes}\n{entry.tag}\n"
    if entry.tag and target.is_file() and target.stat().st_size == entry.size_bytes:
        if noted.is_file() and noted.read_text("utf-8") == identity:
            return False
    target.parent.mkdir(parents=True, exist_ok=True)
    noted.unlink(missing_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    if entry.md5 is None and entry.url.startswith("s3:") and "-" not in entry.tag:
        entry = head(entry.url) or entry  # a listing does not tell whether the tag is an MD5
    try:
        md5 = _download(entry, partial)
        if entry.md5 is not None and md5 != entry.md5:
            raise RemoteError(f"{entry.url}: the copy has the MD5 {md5}; expected {entry.md5}")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    noted.write_text(identity, "utf-8")
    return True


def fetch_url(url: str, directory: Path) -> Path:
    """Copies one remote file into a directory, under its own name.

    Raises:
        RemoteError: it is missing, or for the reasons of ``fetch``.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise RemoteError(f"{url}: expected one of {', '.join(f'{name}://' for name in SCHEMES)}")
    entry = head(url)
    if entry is None:
        raise RemoteError(f"{url}: not found")
    target = directory / (rest.partition("?")[0].rstrip("/").rpartition("/")[2] or "file")
    fetch(entry, target)
    return target


def _download(entry: Entry, partial: Path) -> str:
    """Writes the bytes; after a failure goes on where it stopped. Gives their MD5."""
    store, patience = _store(entry.url), _Patience(entry.url, "read")
    digest, offset = hashlib.md5(usedforsecurity=False), 0
    with partial.open("wb") as file:
        while True:
            try:
                with store.read(entry, offset) as (start, chunks):
                    if start != offset:
                        digest, offset = hashlib.md5(usedforsecurity=False), start
                        file.seek(start)
                        file.truncate()
                    for chunk in chunks:
                        _write(file.fileno(), chunk)
                        digest.update(chunk)
                        offset += len(chunk)
                        patience.failures = 0
                if entry.size_bytes is None or offset >= entry.size_bytes:
                    break
                raise ConnectionError(f"the connection ended after {offset:,} of {entry.size_bytes:,} bytes")
            except _LocalError as error:
                raise OSError(error.errno, error.strerror, str(partial.parent)) from error
            except Exception as error:
                if entry.size_bytes is None:
                    entry = Entry(entry.url, None, "")  # nothing tells whether a second part would belong to the first
                patience.after(error)
        os.fsync(file.fileno())
    if entry.size_bytes is not None and offset != entry.size_bytes:
        raise RemoteError(f"{entry.url}: gave {offset:,} bytes; expected {entry.size_bytes:,}")
    return digest.hexdigest()


class _LocalError(OSError):
    """The disk's, not the connection's: trying again cannot help."""


def _write(descriptor: int, chunk: bytes) -> None:
    try:
        view = memoryview(chunk)
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise _LocalError(error.errno, error.strerror) from error


def sha256_of(path: Path) -> str:
    """64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def upload(path: Path, url: str) -> bool:
    """Copies a file to a URL; says False if a file with the same hash is there already.

    Raises:
        RemoteError: it cannot be written, or what is there afterwards has another size.
    """
    store, sha256, size_bytes = _store(url), sha256_of(path), path.stat().st_size
    there = head(url)
    if there is not None and there.sha256 == sha256 and there.size_bytes == size_bytes:
        return False
    _tried(url, "written", functools.partial(store.write, path, url, sha256))
    there = head(url)
    if there is None or there.size_bytes != size_bytes:
        got = "nothing" if there is None else f"{there.size_bytes:,} bytes"
        raise RemoteError(f"{url}: holds {got} after the upload; expected {size_bytes:,} bytes")
    return True


def remove(url: str) -> None:
    """Removes a remote file that may be there."""
    store = _store(url)
    if head(url) is not None:
        _tried(url, "removed", lambda: store.remove(url))


def each(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The results in order, several at a time; after an error nothing new is begun."""
    with ThreadPoolExecutor(PARALLEL_COPIES) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise

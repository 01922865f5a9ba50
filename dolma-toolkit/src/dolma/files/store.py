"""Remote files of a run that do not all fit on the disk: fetched before they are read, uploaded as they are written.

The mirror has a file for every remote file. Until it is downloaded, that file is a hole: sparse, of the same size, and
with a modification time derived from the ETag or generation. So code that looks only at names, sizes and times works
without downloading anything. The core asks for a file before it opens it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dolma.files.paths import SIDE_DIRECTORY, mirror_path
from dolma.files.remote import PARALLEL_COPIES, Entry, RemoteError, each, fetch, find, head, remove, upload
from dolma.formats.files import sha256_of

__all__ = ["Store", "current", "is_copy", "put_hole", "running"]

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
JOURNAL = "progress.ndjson"
HASHES = "hashes.ndjson"
LOCK = "lock"
WAIT_S = 0.2
"""How long a call of the core waits; between two calls it looks for Ctrl-C."""
JOURNAL_SHARE = 0.05
"""Of its time a run spends at most so much on the upload of a journal."""

_current: list[Store] = []


def current() -> Store | None:
    """The store of the run in progress, if its files are remote."""
    return _current[-1] if _current else None


@contextmanager
def running(store: Store) -> Iterator[Store]:
    """Makes a store the current one."""
    _current.append(store)
    try:
        yield store
    finally:
        _current.remove(store)
        store.close()


def _time_ns(entry: Entry) -> int:
    if not entry.tag:
        return time.time_ns()  # nothing says that it has not changed
    return int.from_bytes(hashlib.sha256(entry.tag.encode()).digest()[:7], "big")


def put_hole(entry: Entry, path: Path) -> None:
    """Puts a file of the right size and time in place of the copy; it takes no space."""
    _noted(path).unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    hole = path.with_name(f".{path.name}.hole")
    with hole.open("wb") as file:
        file.truncate(entry.size_bytes or 0)
    os.utime(hole, ns=(time.time_ns(), _time_ns(entry)))
    os.replace(hole, path)


def is_copy(path: Path, entry: Entry) -> bool:
    """Whether a whole copy of the original is there."""
    identity = f"{entry.url}\n{entry.size_bytes}\n{entry.tag}\n"
    noted = _noted(path)
    return bool(entry.tag) and noted.is_file() and noted.read_text("utf-8") == identity and path.is_file()


def _noted(path: Path) -> Path:
    """What ``fetch`` leaves next to a whole copy."""
    return path.with_name(f".{path.name}.remote")


@dataclass
class _File:
    """A remote file."""

    entry: Entry
    is_here: bool = False
    is_coming: bool = False
    is_wanted: bool = False
    """Somebody waits for it."""
    readers: int = 0

    @property
    def size_bytes(self) -> int:
        return self.entry.size_bytes or 0


@dataclass
class _Destination:
    """A remote directory that a run writes to."""

    url: str
    directory: Path
    there: set[str] = field(default_factory=set)
    """Names of the files in the bucket."""
    has_begun: bool = False
    uploads: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class _Journal:
    """What of a journal is true of the bucket."""

    text: str = ""
    due_at: float = 0.0
    is_stale: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Store:
    """Holds at most ``max_bytes`` of copies and of results that wait to be uploaded, besides the files being read.

    ``expect``, ``need``, ``done`` and ``written`` are called by the core, on any thread.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root, self.max_bytes = root, max_bytes
        self.files: dict[str, _File] = {}
        self.destinations: dict[str, _Destination] = {}
        self.journals: dict[str, _Journal] = {}
        self.order: deque[str] = deque()
        self.expected: Counter[str] = Counter()
        self.used_bytes = 0
        self.waiting_bytes = 0
        """Of results that wait to be uploaded."""
        self.coming = 0
        self.uploading = 0
        self.failure: BaseException | None = None
        self.stop = threading.Event()
        self.changed = threading.Condition()
        self.readers = ThreadPoolExecutor(PARALLEL_COPIES, "fetch")
        self.urgent = ThreadPoolExecutor(PARALLEL_COPIES, "fetch-now")
        self.writers = ThreadPoolExecutor(PARALLEL_COPIES // 2, "upload")

    # ---- before the run

    def add(self, entry: Entry) -> None:
        """Takes an input into the tree."""
        path = mirror_path(self.root, entry.url)
        file = _File(entry)
        if entry.size_bytes is None or _is_record(entry.url):
            fetch(entry, path)  # for the first: a place of unknown size cannot be kept
            return
        if is_copy(path, entry):
            file.is_here = True
            self.used_bytes += file.size_bytes
        else:
            put_hole(entry, path)
        self.files[str(path)] = file

    def add_destination(self, url: str) -> None:
        """Takes what a destination has into the tree: the records of runs as copies, all else as holes."""
        destination = _Destination(url, mirror_path(self.root, url))
        if destination.directory.is_dir():
            for path in destination.directory.iterdir():
                # what a stopped run was making is of use; for all else the bucket counts
                if path.name == ".mixing":
                    continue
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        entries = {entry.url[len(url) + 1 :]: entry for entry in find(f"{url}/**", hidden=True)}
        records = [name for name in entries if _is_record(name)]
        for _ in each(lambda name: fetch(entries[name], destination.directory / name), records):
            pass
        for name in records:
            _noted(destination.directory / name).unlink(missing_ok=True)
        for name, entry in entries.items():
            if not _is_record(name):
                put_hole(entry, destination.directory / name)
                self.files[str(destination.directory / name)] = _File(entry)
        destination.there = set(entries)
        self.destinations[str(destination.directory)] = destination

    # ---- what the core calls

    def expect(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        """The files that are read next, in order."""
        self.settle()
        with self.changed:
            self._raise_failure()
            self.journals = {}
            for destination in self.destinations.values():
                for path in destination.directory.rglob(f"{SIDE_DIRECTORY}/{JOURNAL}"):
                    self.journals[str(path)] = _Journal(path.read_text("utf-8"))
            names = [os.fspath(path) for path in paths]
            self.order = deque(name for name in names if name in self.files)
            self.expected = Counter(self.order)
            self._fetch_ahead()

    def need(self, path: str | os.PathLike[str]) -> bool:
        """Waits a moment for a file to be here; then it stays until ``done``."""
        name = os.fspath(path)
        with self.changed:
            file = self.files.get(name)
            if file is None:
                return True
            self._raise_failure()
            if not file.is_here:
                file.is_wanted = True
                if not file.is_coming:
                    self._make_room(file.size_bytes)
                    self._start(name, file, self.urgent)
                self.changed.wait(WAIT_S)
                self._raise_failure()
            if file.is_here:
                file.is_wanted = False
                file.readers += 1
            return file.is_here

    def done(self, path: str | os.PathLike[str]) -> None:
        """A file is read."""
        name = os.fspath(path)
        with self.changed:
            file = self.files.get(name)
            if file is None:
                return
            file.readers -= 1
            self.expected[name] -= 1
            if file.readers <= 0 and not file.is_wanted and self.expected[name] <= 0:
                self._drop(name, file)
            self._fetch_ahead()
            self.changed.notify_all()

    def written(self, journal: str | os.PathLike[str], line: str, paths: Sequence[str | os.PathLike[str]]) -> None:
        """Files have their names, and a line in the journal. Waits while too many of them wait to be uploaded."""
        names = [os.fspath(path) for path in paths]
        destination = self._destination_of(names[0]) if names else None
        if destination is None:
            return
        size_bytes = sum(os.path.getsize(name) for name in names)
        with self.changed:
            self.used_bytes += size_bytes
            self._evict(0)
            while self.waiting_bytes and self.used_bytes > self.max_bytes and not self.failure:
                self.changed.wait(WAIT_S)
            self._raise_failure()
            self.waiting_bytes += size_bytes
            self.uploading += 1
            known = self.journals.setdefault(os.fspath(journal), _Journal())
        future = self.writers.submit(self._upload, destination, os.fspath(journal), known, line, names)
        future.add_done_callback(lambda done: self._uploaded(size_bytes, _failure_of(done)))

    # ---- the whole of it

    def settle(self) -> None:
        """Waits until all results are uploaded, and the journals that say so."""
        with self.changed:
            while self.uploading and not self.failure:
                self.changed.wait(WAIT_S)
            self._raise_failure()
            stale = [(name, journal) for name, journal in self.journals.items() if journal.is_stale]
        for name, journal in stale:
            self._upload_journal(name, journal, at_once=True)

    def finish(self, files: Iterable[str] = ()) -> None:
        """Uploads the rest: records, ``files`` (URLs), and the manifests last. Removes what the run has removed."""
        self.settle()
        for destination in self.destinations.values():
            self._finish_data(destination)
        for url in files:
            copy = mirror_path(self.root, url)
            if copy.is_file() and upload(copy, url):
                log.info("uploaded %s", url)
        for destination in self.destinations.values():
            for name in sorted(name for name in _names(destination.directory) if Path(name).name == MANIFEST):
                upload(destination.directory / name, f"{destination.url}/{name}")

    def close(self) -> None:
        """Stops what is in progress."""
        self.stop.set()
        with self.changed:
            self.failure = self.failure or RemoteError("the run has ended")
            self.changed.notify_all()
        for pool in (self.readers, self.urgent, self.writers):
            pool.shutdown(wait=True, cancel_futures=True)
        for name, file in self.files.items():
            if not file.is_here:
                Path(name).unlink(missing_ok=True)  # nobody should take a hole for a file

    # ---- fetching; these are called with the lock

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _fetch_ahead(self) -> None:
        while self.order and self.coming < PARALLEL_COPIES and not self.stop.is_set():
            name = self.order[0]
            file = self.files[name]
            if file.is_here or file.is_coming or self.expected[name] <= 0:
                self.order.popleft()
                continue
            if self.used_bytes + file.size_bytes > self.max_bytes:
                return
            self.order.popleft()
            self._start(name, file, self.readers)

    def _start(self, name: str, file: _File, pool: ThreadPoolExecutor) -> None:
        file.is_coming = True
        self.coming += 1
        self.used_bytes += file.size_bytes
        try:
            future = pool.submit(self._fetch, name, file)
        except RuntimeError:
            raise RemoteError("the run has ended") from None
        future.add_done_callback(lambda done: self._fetched(file, _failure_of(done)))

    def _make_room(self, size_bytes: int) -> None:
        """A file that is needed comes before those that were fetched ahead."""
        self._evict(size_bytes)

    def _evict(self, size_bytes: int) -> None:
        if self.used_bytes + size_bytes <= self.max_bytes:
            return
        idle = [(n, f) for n, f in self.files.items() if f.is_here and f.readers <= 0 and not f.is_wanted]
        for name, file in reversed(idle):
            if self.used_bytes + size_bytes <= self.max_bytes:
                return
            self._drop(name, file)

    def _drop(self, name: str, file: _File) -> None:
        if file.is_here:
            put_hole(file.entry, Path(name))
            file.is_here = False
            self.used_bytes -= file.size_bytes

    # ---- on threads of their own

    def _fetch(self, name: str, file: _File) -> None:
        path = Path(name)
        fetch(file.entry, path, self.stop)
        os.utime(path, ns=(time.time_ns(), _time_ns(file.entry)))

    def _fetched(self, file: _File, failure: BaseException | None) -> None:
        with self.changed:
            file.is_coming = False
            self.coming -= 1
            file.is_here = failure is None
            if failure is not None:
                self.used_bytes -= file.size_bytes
                self.failure = self.failure or failure
            self._fetch_ahead()
            self.changed.notify_all()

    def _upload(self, destination: _Destination, journal: str, known: _Journal, line: str, names: list[str]) -> None:
        self._begin(destination)
        for name in names:
            self._upload_and_free(destination, name)
        with known.lock:
            known.text += f"\n{line}\n"
            known.is_stale = True
        self._upload_journal(journal, known)

    def _uploaded(self, size_bytes: int, failure: BaseException | None) -> None:
        with self.changed:
            self.uploading -= 1
            self.waiting_bytes -= size_bytes
            self.used_bytes -= size_bytes
            self.failure = self.failure or failure
            self._fetch_ahead()
            self.changed.notify_all()

    def _begin(self, destination: _Destination) -> None:
        """Makes the directory in the bucket one that is being filled: without manifest, with the records of the run."""
        with destination.lock:
            if destination.has_begun:
                return
            self._remove_stale(destination)
            for name in _names(destination.directory):
                if name.startswith(f"{SIDE_DIRECTORY}/") and Path(name).name not in (JOURNAL, HASHES):
                    upload(destination.directory / name, f"{destination.url}/{name}")
                    destination.there.add(name)
            for name, journal in list(self.journals.items()):
                if Path(name).is_relative_to(destination.directory):
                    self._upload_journal(name, journal, at_once=True)
            destination.has_begun = True

    def _remove_stale(self, destination: _Destination) -> None:
        """Removes what the run has removed, the manifest first."""
        gone = [name for name in destination.there if not (destination.directory / name).exists()]
        for name in sorted(gone, key=lambda name: (Path(name).name != MANIFEST, name)):
            remove(f"{destination.url}/{name}")
            destination.there.discard(name)
            with self.changed:
                self.files.pop(str(destination.directory / name), None)

    def _upload_and_free(self, destination: _Destination, name: str) -> None:
        path = Path(name)
        relative = str(path.relative_to(destination.directory))
        url = f"{destination.url}/{relative}"
        destination.uploads += upload(path, url)
        entry = head(url)
        if entry is None:
            raise RemoteError(f"{url}: not found after the upload; expected the file")
        with self.changed:
            self.files[name] = _File(entry)
            put_hole(entry, path)
        destination.there.add(relative)

    def _upload_journal(self, name: str, journal: _Journal, at_once: bool = False) -> None:
        destination = self._destination_of(name)
        with journal.lock:
            start = time.monotonic()
            if destination is None or not (at_once or start >= journal.due_at):
                return
            path = Path(name)
            self._upload_text(destination, path, journal.text)
            hashes = path.with_name(HASHES)
            if hashes.is_file():
                self._upload_text(destination, hashes, hashes.read_text("utf-8"))
            journal.is_stale = False
            journal.due_at = time.monotonic() + (time.monotonic() - start) / JOURNAL_SHARE

    @staticmethod
    def _upload_text(destination: _Destination, path: Path, text: str) -> None:
        """Uploads what a file has now; others may add to it."""
        copy = path.with_name(f".{path.name}.upload")
        copy.write_text(text, "utf-8")
        relative = str(path.relative_to(destination.directory))
        upload(copy, f"{destination.url}/{relative}")
        copy.unlink()
        destination.there.add(relative)

    def _finish_data(self, destination: _Destination) -> None:
        names = [name for name in _names(destination.directory) if str(destination.directory / name) not in self.files]
        data = [name for name in names if Path(name).name != MANIFEST]
        there = head(f"{destination.url}/{MANIFEST}") if MANIFEST in destination.there else None
        manifest = destination.directory / MANIFEST
        if there is not None and manifest.is_file() and there.sha256 != sha256_of(manifest):
            remove(f"{destination.url}/{MANIFEST}")
        sent = destination.uploads
        sent += sum(each(lambda name: upload(destination.directory / name, f"{destination.url}/{name}"), data))
        self._remove_stale(destination)
        total = len(data) + len(destination.there - set(data))
        log.info("uploaded %d of %d files to %s; the rest was up to date", sent, total, destination.url)

    def _destination_of(self, name: str) -> _Destination | None:
        parents = (self.destinations.get(str(parent)) for parent in Path(name).parents)
        return next((found for found in parents if found is not None), None)


def _failure_of(done: Future[None]) -> BaseException | None:
    return RemoteError("the run has ended") if done.cancelled() else done.exception()


def _is_record(name: str) -> bool:
    """Small files that say what the others are."""
    last = Path(name).name
    return f"/{name}".rpartition("/")[0].endswith(f"/{SIDE_DIRECTORY}") or last in (
        MANIFEST,
        "funnel.json",
        ".progress.jsonl",
    )


def _names(directory: Path) -> list[str]:
    """Files below a directory that belong to what it holds, or to the record of its runs."""
    found = []
    for path in directory.rglob("*"):
        name = path.relative_to(directory)
        *above, last = name.parts
        is_hidden = last.startswith(".") or any(part.startswith(".") and part != SIDE_DIRECTORY for part in above)
        is_lock = (*above[-1:], last) == (SIDE_DIRECTORY, LOCK)  # it is this machine's
        if not is_hidden and not is_lock and path.is_file():
            found.append(str(name))
    return sorted(found)

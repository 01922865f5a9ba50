"""Runs taggers written in Python: imports their modules, and calls them in worker processes when the core asks.

The core sends the rows of a batch and gets columns of spans, both as JSON (``rust/core/src/tag/user.rs``). Each thread
of the core that asks has a process of its own.
"""

from __future__ import annotations

import cProfile
import hashlib
import importlib
import importlib.util
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Protocol

import msgspec

from dolma.core.data_types import DocResult, Document, DocumentWithMetadata
from dolma.core.registry import TaggerRegistry
from dolma.core.taggers import TAGGER_SCORE_PRECISION, BaseTagger, BaseTaggerWithMetadata, spans_of
from dolma.errors import ConfigError, Problem

__all__ = ["UserTaggers", "import_modules", "make_tagger", "source_sha256", "started"]

log = logging.getLogger(__name__)


class _ImportFailure(Exception):
    """What a user's module raised, and where."""


def import_modules(names: Iterable[str]) -> None:
    """Imports each module, so that its ``@add_tagger`` classes are registered: names, ``.py`` files or directories.

    Raises:
        ConfigError: a module is missing, or fails on import.
    """
    problems = []
    for index, name in enumerate(names):
        try:
            _guarded_import(name)
        except _ImportFailure as failure:
            problems.append(
                Problem(f"tagger_modules.{index}", f'is "{name}", which {failure.args[0]}', failure.args[1])
            )
    if problems:
        raise ConfigError(problems)


def _guarded_import(name: str) -> None:
    try:
        _import(name)
    except ModuleNotFoundError as error:
        hint = "give a path to the file, or put its directory on PYTHONPATH"
        raise _ImportFailure(f"cannot be imported ({error}); expected a module", hint) from error
    except (Exception, SystemExit) as error:
        raise _ImportFailure(f"fails on import: {_described(error)}", "") from error


def make_tagger(name: str) -> BaseTagger:
    """An instance of a registered class.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        return TaggerRegistry.get(name)()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        message = f'names "{name}", which cannot be made: {_described(error)}'
        raise ConfigError([Problem("taggers", message)]) from error


def _described(error: BaseException) -> str:
    """An exception of a user's code in one line, with the place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error} ({frames[-1].filename}:{frames[-1].lineno})"


def _import(name: str) -> None:
    path = Path(name)
    if not path.exists():
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            here = os.getcwd()
            if error.name != name.partition(".")[0] or here in sys.path:
                raise
            # last, so that a file here hides no installed module
            sys.path.append(here)
            importlib.invalidate_caches()
            importlib.import_module(name)
        return
    # by path: the directory is added to `sys.path`, so that the module can import its neighbours. A module of a
    # package is imported as part of it, for its relative imports
    module_name = path.stem if path.suffix == ".py" else path.name
    directory = path.resolve().parent
    while (directory / "__init__.py").is_file() and directory.name.isidentifier():
        module_name, directory = f"{directory.name}.{module_name}", directory.parent
    parent = str(directory)
    known = sys.modules.get(module_name)
    if known is not None:
        origin = getattr(known, "__file__", None)
        if origin and Path(origin).resolve() in (path.resolve(), (path / "__init__.py").resolve()):
            return
        raise ImportError(f"another module is named {module_name}")
    if parent not in sys.path:
        sys.path.insert(0, parent)
    importlib.invalidate_caches()
    importlib.import_module(module_name)


def source_sha256(module_name: str) -> str:
    """sha256 of the source file of an imported module: results made by other code are other results."""
    module = sys.modules.get(module_name)
    origin = getattr(module, "__file__", None)
    if origin and Path(origin).is_file():
        return hashlib.sha256(Path(origin).read_bytes()).hexdigest()
    # the cells of a notebook so far
    cells = getattr(module, "In", None)
    return hashlib.sha256(repr(cells).encode()).hexdigest() if isinstance(cells, list) else ""


WAIT_S = 0.2
"""How long the core waits for an answer before it looks for Ctrl-C."""


class UserTaggers(Protocol):
    """Taggers that the core asks, on any thread."""

    def ask(self, request: bytes) -> Iterator[bytes | None]:
        """Gives the answer in the end, and None from time to time before it."""
        ...


class WorkerError(Exception):
    """A process ended without an answer."""


class _NotInWorkersError(Exception):
    """A tagger that worker processes cannot import: only this process has its definition."""


@contextmanager
def started(
    taggers: Sequence[str],
    modules: Sequence[str],
    processes: int,
    *,
    here: bool = False,
    profile: cProfile.Profile | None = None,
) -> Iterator[UserTaggers]:
    """Makes the taggers in up to ``processes`` spawned processes, or in this one (``here``, or with a ``profile``).

    Other processes cannot import a tagger of a notebook, or of a script that does its work on import. Then this
    process does the work.

    Raises:
        ConfigError: a tagger cannot be made.
    """
    own = _defined_here(taggers)
    if here or profile is not None or (own and processes == 1):
        yield _Here(taggers, modules, profile)
        return
    workers = _Workers(taggers, modules, processes)
    try:
        workers.start_first(own)
        yield workers
    except _NotInWorkersError as error:
        log.info(f"tag  {error}; run in this process only (taggers of a module in tagger_modules run in several)")
        yield _Here(taggers, modules)
    finally:
        workers.close()


def _defined_here(taggers: Sequence[str]) -> str:
    """The taggers that the main script or a notebook cell defines, as `"a", "b" are`; empty if there are none."""
    own = TaggerRegistry.registered()
    names = [name for name in taggers if name in own and own[name].__module__ == "__main__"]
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names)} {verb}" if names else ""


class _Here:
    """Taggers of this process, which answer one request at a time."""

    def __init__(self, taggers: Sequence[str], modules: Sequence[str], profile: cProfile.Profile | None = None) -> None:
        import_modules(modules)
        self.taggers = [(name, make_tagger(name)) for name in taggers]
        self.profile, self.lock = profile, threading.Lock()

    def ask(self, request: bytes) -> Iterator[bytes | None]:
        with self.lock:
            call = self.profile.runcall if self.profile else lambda do, *arguments: do(*arguments)
            answer: bytes = call(_answer, self.taggers, request)
        yield answer


class _Workers:
    """Processes that answer one request at a time each. One more is started when all are busy."""

    def __init__(self, taggers: Sequence[str], modules: Sequence[str], processes: int) -> None:
        self.taggers, self.modules = taggers, modules
        self.context = multiprocessing.get_context("spawn")
        self.room = threading.Semaphore(processes)
        self.idle: list[_Worker] = []
        self.all: list[_Worker] = []

    def start_first(self, own: str) -> None:
        """Starts a process, to find out whether it can make the taggers; ``own``: those that this process defines.

        Raises:
            _NotInWorkersError: they are defined where other processes do not find them.
            ConfigError: they cannot be made.
        """
        if own and not hasattr(sys.modules["__main__"], "__file__"):
            raise _NotInWorkersError(f"{own} defined in this session or script")
        worker = self._start()
        try:
            worker.greet()
        except ConfigError:
            if own:
                raise _NotInWorkersError(f"{own} defined in this session or script") from None
            raise
        except WorkerError as error:
            if own:
                message = f'{own} defined in a script without `if __name__ == "__main__":` around its work'
                raise _NotInWorkersError(message) from None
            raise ConfigError([Problem("taggers", f"cannot be made: {error}")]) from None
        self.idle.append(worker)

    def ask(self, request: bytes) -> Iterator[bytes | None]:
        with self.room:
            try:
                worker = self.idle.pop()
            except IndexError:
                worker = self._start()
            answer = None
            try:
                while not worker.is_ready and not worker.pipe.poll(WAIT_S):
                    yield None
                worker.greet()
                worker.pipe.send_bytes(request)
                while not worker.pipe.poll(WAIT_S):
                    yield None
                answer = worker.pipe.recv_bytes()
            except (EOFError, OSError):
                raise worker.ended() from None
            finally:
                if answer is None:
                    worker.end()
            self.idle.append(worker)
        yield answer

    def close(self) -> None:
        """Ends all processes."""
        for worker in self.all:
            worker.end()

    def _start(self) -> _Worker:
        worker = _Worker(self.context, self.taggers, self.modules)
        self.all.append(worker)
        return worker


class _Worker:
    """A process, and the pipe to it."""

    def __init__(self, context: SpawnContext, taggers: Sequence[str], modules: Sequence[str]) -> None:
        self.taggers, self.is_ready = taggers, False
        self.pipe, other_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(other_end, taggers, modules), daemon=True)
        self.process.start()
        other_end.close()

    def greet(self) -> None:
        """Waits until the taggers are made.

        Raises:
            ConfigError: they cannot be made.
            WorkerError: the process has ended.
        """
        if self.is_ready:
            return
        try:
            failure: ConfigError | None = self.pipe.recv()
        except (EOFError, OSError):
            raise self.ended() from None
        if failure is not None:
            raise failure
        self.is_ready = True

    def ended(self) -> WorkerError:
        """What to say of a process that has ended."""
        names = ", ".join(f'"{name}"' for name in self.taggers)
        message = f"a worker process of the taggers {names} exited unexpectedly (possibly out of memory)"
        return WorkerError(f"{message}; expected a DocResult")

    def end(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


# ---- in a worker process


def _serve(pipe: Connection, names: Sequence[str], modules: Sequence[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run says when it ends
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.join,), daemon=True).start()
    try:
        import_modules(modules)
        taggers = [(name, make_tagger(name)) for name in names]
    except ConfigError as error:
        pipe.send(error)
        return
    pipe.send(None)
    while True:
        try:
            request = pipe.recv_bytes()
        except EOFError:
            return
        pipe.send_bytes(_answer(taggers, request))


def _end_with(ended: Callable[[], None]) -> None:
    """A worker ends with its run, even if that is killed."""
    ended()
    os._exit(1)


# ---- a request and its answer

Span = tuple[str, int, int, float]


class _Row(msgspec.Struct, array_like=True):
    id: str
    text: str
    source: str
    version: str | None
    metadata: msgspec.Raw


class _Column(msgspec.Struct):
    """The spans that a tagger found, row after row."""

    ends: list[int] = []
    """Of each row: the number of spans up to its end."""
    kinds: list[str] = []
    kind: list[int] = []
    """Of each span: the position of its type in ``kinds``."""
    start: list[int] = []
    end: list[int] = []
    score: list[float] = []


class _Answer(msgspec.Struct):
    failures: list[tuple[int, str]] = []
    """Rows that a tagger failed on, and why."""
    columns: list[_Column] = []


_read_request = msgspec.json.Decoder(tuple[list[int], list[_Row | None]]).decode


def _answer(taggers: Sequence[tuple[str, BaseTagger]], request: bytes) -> bytes:
    """Calls the taggers that are asked on each row that is a document."""
    asked, given = _read_request(request)
    rows = {at: row for at, row in enumerate(given) if row is not None}
    answer = _Answer()
    for name, tagger in (taggers[index] for index in asked):
        found = dict(zip(rows, _found(name, tagger, list(rows.values())), strict=True))
        column, kinds = _Column(), dict[str, int]()
        for at in range(len(given)):
            spans = found.get(at, [])
            if isinstance(spans, str):
                answer.failures.append((at, spans))
                spans = []
            for kind, start, end, score in spans:
                column.kind.append(kinds.setdefault(kind, len(kinds)))
                column.start.append(start)
                column.end.append(end)
                column.score.append(round(score, TAGGER_SCORE_PRECISION))
            column.ends.append(len(column.kind))
        column.kinds = list(kinds)
        answer.columns.append(column)
    return msgspec.json.encode(answer)


def _found(name: str, tagger: BaseTagger, rows: Sequence[_Row]) -> Iterator[list[Span] | str]:
    """The spans of each row, or why there are none."""
    documents = [_document(tagger, row) for row in rows]
    has_batches = type(tagger).predict_batch is not BaseTagger.predict_batch
    try:
        results = _predict_batch(tagger, documents) if has_batches else []
    except (Exception, SystemExit):
        results = []  # each document alone, to find the one that fails
    for index, (row, document) in enumerate(zip(rows, documents, strict=True)):
        try:
            if results:
                spans = spans_of(results[index])
            else:
                spans = spans_of(_predict_batch(tagger, [document])[0]) if has_batches else tagger.spans(document)
        except (Exception, SystemExit) as error:
            yield f'tagger "{name}" failed on document "{row.id}": {_described(error)}'
        else:
            yield _problem(name, row, spans) or spans


def _predict_batch(tagger: BaseTagger, documents: list[Document]) -> list[DocResult]:
    results = list(tagger.predict_batch(documents))
    if len(results) != len(documents):
        raise ValueError(f"predict_batch gave {len(results)} results; expected {len(documents)}")
    return results


def _document(tagger: BaseTagger, row: _Row) -> Document:
    if isinstance(tagger, BaseTaggerWithMetadata):
        fields = msgspec.json.decode(row.metadata) or {}
        return DocumentWithMetadata(row.source, row.id, row.text, row.version, fields)
    return Document(row.source, row.id, row.text, row.version)


def _problem(name: str, row: _Row, spans: Iterable[Span]) -> str:
    length = len(row.text)
    for kind, start, end, score in spans:
        # UTF-8 cannot encode a lone surrogate
        is_text = kind.encode("utf-8", "replace").decode() == kind
        if not (is_text and 0 <= start <= end <= length and abs(score) < float("inf")):
            shown = f'tagger "{name}" returned the span [{start}, {end}, {score}] of type {kind!r}'
            expected = f"expected 0 ≤ start ≤ end ≤ {length}, a finite score and a type that is valid UTF-8"
            return f'{shown} in document "{row.id}"; {expected}'
    return ""

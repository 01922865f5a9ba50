"""Runs taggers written in Python: imports their modules and calls them in worker processes before the core runs.

Their spans go to spools that the core reads. A spool is one file for each document file, with one line for each
document: ``[[[type, start, end, score], ...], ...]``, one list for each tagger. It appears whole or not at all, and is
not written again.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dolma import _native
from dolma.core.data_types import Document, DocumentWithMetadata
from dolma.core.registry import TaggerRegistry
from dolma.core.taggers import TAGGER_SCORE_PRECISION, BaseTagger, BaseTaggerWithMetadata
from dolma.errors import ConfigError, FormatError, Problem, ProblemsError, errors_of_native, raise_all
from dolma.files.store import current

__all__ = ["SpoolTask", "import_modules", "make_tagger", "run_spools", "source_sha256"]

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


REPORTED_ROWS = 100
REPORT_INTERVAL_S = 10.0


@dataclass(frozen=True)
class SpoolTask:
    """One document file to be read by all Python taggers."""

    path: str
    name: str
    compression: str | None
    spool: str
    generate_ids: bool = False
    skip_bad_rows: bool = False


class _NotInWorkersError(Exception):
    """A tagger that worker processes cannot import: only this process has its definition."""


def run_spools(
    tasks: Sequence[SpoolTask], taggers: Sequence[str], modules: Sequence[str], processes: int, *, debug: bool = False
) -> None:
    """Writes the missing spools, in ``processes`` spawned processes (in this one with ``debug``).

    Other processes cannot import a tagger of a notebook, or of a script that does its work on import. Then this
    process does the work.

    Raises:
        FormatError, ProblemsError: rows that break the format, or on which a tagger failed.
        ConfigError: a tagger cannot be made.
    """
    left = [task for task in tasks if not os.path.exists(task.spool)]
    store = current()
    if store is not None:
        store.expect([task.path for task in left])
    for task in left:
        Path(task.spool).parent.mkdir(parents=True, exist_ok=True)
        Path(_partial(task)).unlink(missing_ok=True)
    try:
        _run(left, taggers, modules, processes, debug)
    except _NotInWorkersError as error:
        log.info(f"tag  {error}; run in this process only (taggers of a module in tagger_modules run in several)")
        left = [task for task in left if not os.path.exists(task.spool)]
        _run(left, taggers, modules, 1, True)


def _run(
    tasks: Sequence[SpoolTask], taggers: Sequence[str], modules: Sequence[str], processes: int, debug: bool
) -> None:
    errors: list[Exception] = []
    start = last = time.monotonic()
    documents = 0
    for done, result in enumerate(_results(tasks, taggers, modules, processes, debug), start=1):
        documents += result if isinstance(result, int) else 0
        errors.extend(result if isinstance(result, list) else [])
        now = time.monotonic()
        if now - last >= REPORT_INTERVAL_S:
            rate = documents / (now - start)
            eta_s = (len(tasks) - done) * (now - start) / done
            log.info(
                f"tag  {done}/{len(tasks)} files through Python taggers  {rate:.0f} documents/s  eta {eta_s:.0f} s"
            )
            last = now
    raise_all(errors)


def _results(
    tasks: Sequence[SpoolTask], taggers: Sequence[str], modules: Sequence[str], processes: int, debug: bool
) -> Iterator[int | list[Exception]]:
    if debug or not tasks:
        _start_worker(taggers, modules)
        yield from _spooled_here(tasks)
        return
    context = multiprocessing.get_context("spawn")
    workers = min(processes, len(tasks))
    here = _defined_here(taggers)
    if here and (workers == 1 or not hasattr(sys.modules["__main__"], "__file__")):
        if processes > 1:
            raise _NotInWorkersError(f"{here} defined in this session or script")
        _start_worker(taggers, modules)
        yield from _spooled_here(tasks)
        return
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(taggers, modules)) as pool:
        order: dict[Future[int | list[Exception]], int] = {}
        waiting: set[Future[int | list[Exception]]] = set()
        store, left = current(), list(enumerate(tasks))[::-1]
        try:
            while waiting or left:
                # remote files are fetched for those that are read now, and soon
                while left and (store is None or len(waiting) < 2 * workers):
                    index, task = left.pop()
                    while store is not None and not store.need(task.path):
                        pass
                    future = pool.submit(_spool_file, task)
                    order[future] = index
                    waiting.add(future)
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=order.__getitem__):
                    if store is not None:
                        store.done(tasks[order[future]].path)
                    yield future.result()
        except BrokenProcessPool:
            if here and not any(os.path.exists(_partial(task)) for task in tasks):
                pool.shutdown(wait=True, cancel_futures=True)
                message = f'{here} defined in a script without `if __name__ == "__main__":` around its work'
                raise _NotInWorkersError(message) from None
            raise _died(tasks, taggers) from None
        except ConfigError:
            pool.shutdown(wait=True, cancel_futures=True)
            if here:
                raise _NotInWorkersError(f"{here} defined in this session or script") from None
            raise
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _spooled_here(tasks: Iterable[SpoolTask]) -> Iterator[int | list[Exception]]:
    store = current()
    for task in tasks:
        with store.lent(task.path) if store is not None else nullcontext():
            result = _spool_file(task)
        yield result


def _defined_here(taggers: Sequence[str]) -> str:
    """The taggers that the main script or a notebook cell defines, as `"a", "b" are`; empty if there are none."""
    own = TaggerRegistry.registered()
    names = [name for name in taggers if name in own and own[name].__module__ == "__main__"]
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names)} {verb}" if names else ""


def _partial(task: SpoolTask) -> str:
    return f"{task.spool}.partial"


def _died(tasks: Sequence[SpoolTask], taggers: Sequence[str]) -> ProblemsError:
    """A process ended without an error, as one that runs out of memory does: the files that were being read."""
    reading = [task.name for task in tasks if os.path.exists(_partial(task))] or [tasks[0].name]
    names = ", ".join(f'"{name}"' for name in taggers)
    message = (
        f"a worker process of the taggers {names} exited unexpectedly (possibly out of memory); expected a DocResult"
    )
    return ProblemsError([FormatError(name, None, None, "invalid_value", message) for name in reading])


_made: list[tuple[str, BaseTagger]] = []
_unmade: list[ConfigError] = []
"""Why taggers could not be made; a worker that fails before its first file would end the pool without one."""


def _start_worker(taggers: Sequence[str], modules: Sequence[str]) -> None:
    _made.clear()
    _unmade.clear()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.join,), daemon=True).start()
    try:
        import_modules(modules)
        _made.extend((name, make_tagger(name)) for name in taggers)
    except ConfigError as error:
        _unmade.append(error)


def _end_with(ended: Callable[[], None]) -> None:
    """A killed run must not leave a worker that still writes where the next run writes."""
    ended()
    os._exit(1)


def _spool_file(task: SpoolTask) -> int | list[Exception]:
    """Number of documents, or what was wrong with them."""
    if _unmade:
        raise _unmade[0]
    errors: list[Exception] = []
    encode = msgspec.json.Encoder().encode
    partial = _partial(task)
    try:
        rows = iter(
            _native.DocumentReader(task.path, task.name, task.compression, task.generate_ids, task.skip_bad_rows)
        )
    except _native.NativeError as error:
        return [errors_of_native(error)]
    documents = 0
    with open(partial, "wb") as file:
        while len(errors) < REPORTED_ROWS:
            try:
                row = next(rows, None)
            except _native.NativeError as error:
                errors.append(errors_of_native(error))
                continue
            if row is None:
                break
            documents += 1
            place = (task.name, rows.line)
            found = [_spans(name, tagger, row, place, errors.append) for name, tagger in _made]
            if not errors:
                file.write(encode(found) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if errors:
        os.remove(partial)
        return errors[:REPORTED_ROWS]
    os.replace(partial, task.spool)
    return documents


class _TaggerFailure(Exception):
    """What a user's tagger raised, and where."""


def _tag(tagger: BaseTagger, document: Document) -> list[tuple[str, int, int, float]]:
    try:
        return tagger.spans(document)
    except (Exception, SystemExit) as error:
        raise _TaggerFailure(_described(error)) from error


def _spans(
    name: str,
    tagger: BaseTagger,
    row: tuple[str, str, str, str | None, str | None],
    place: tuple[str, int],
    report: Callable[[Exception], None],
) -> list[tuple[str, int, int, float]]:
    id, text, source, version, metadata = row
    document: Document
    if isinstance(tagger, BaseTaggerWithMetadata):
        fields = msgspec.json.decode(metadata) if metadata else {}
        document = DocumentWithMetadata(source, id, text, version, fields)
    else:
        document = Document(source, id, text, version)
    try:
        spans = _tag(tagger, document)
    except _TaggerFailure as failure:
        report(FormatError(*place, None, "invalid_value", f'tagger "{name}" failed on document "{id}": {failure}'))
        return []
    length = len(text)
    for kind, start, end, score in spans:
        # UTF-8 cannot encode a lone surrogate
        is_text = kind.encode("utf-8", "replace").decode() == kind
        if not (is_text and 0 <= start <= end <= length and abs(score) < float("inf")):
            shown = f'tagger "{name}" returned the span [{start}, {end}, {score}] of type {kind!r} in document "{id}"'
            expected = f"expected 0 ≤ start ≤ end ≤ {length}, a finite score and a type that is valid UTF-8"
            report(FormatError(*place, None, "out_of_range", f"{shown}; {expected}"))
            return []
    return [(kind, start, end, round(score, TAGGER_SCORE_PRECISION)) for kind, start, end, score in spans]

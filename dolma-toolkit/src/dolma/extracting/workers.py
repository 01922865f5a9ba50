"""Runs extractors in processes that a page may hang or crash: it costs that page, and no other.

The core sends pages and gets their texts, both as JSON (``rust/core/src/extract/mod.rs``). A process answers page by
page, so it is known which one it did not survive. The limits are those of the system: a page has so many seconds of
processor time, and so much memory on top of what the process needs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext

import msgspec

from dolma.errors import ConfigError
from dolma.extracting import extractors

__all__ = ["Limits", "started"]

WAIT_S = 0.2
"""How long the core waits for an answer before it looks for Ctrl-C."""

WALL_FACTOR = 10
"""A page may take this many times its processor time: it shares the processor, but it may also wait for ever."""

OUT_OF_MEMORY = 77
"""Exit code of a process in which a page found no memory."""


@dataclass(frozen=True)
class Limits:
    """What a page may use."""

    time_s: float
    """Seconds of processor time."""
    memory_bytes: int
    """Memory besides that of the extractors."""


@contextmanager
def started(names: Sequence[str], limits: Limits, processes: int, *, here: bool = False) -> Iterator[_Workers | _Here]:
    """Extractors in up to ``processes`` spawned processes, or without limits in this one (``here``)."""
    if here:
        yield _Here(names)
        return
    workers = _Workers(names, limits, processes)
    try:
        yield workers
    finally:
        workers.close()


class _Here:
    """Extractors of this process, which answer one request at a time."""

    def __init__(self, names: Sequence[str]) -> None:
        self.made = {name: extractors.make(name, "linearizer") for name in names}
        self.lock = threading.Lock()

    def ask(self, request: bytes) -> Iterator[bytes | None]:
        with self.lock:
            yield b"[" + b",".join(_text(self.made, name, page) for name, page in _read_request(request)) + b"]"


class _Lost(Exception):
    """A process has ended, or was ended, at a page."""

    def __init__(self, reason: str, message: str, *, is_sure: bool) -> None:
        super().__init__(message)
        self.answer = msgspec.json.encode((reason, message))
        self.is_sure = is_sure
        """Whether another try would end like this one: a kill may have come from outside."""


class _Workers:
    """Processes that answer one request at a time each. One more is started when all are busy."""

    def __init__(self, names: Sequence[str], limits: Limits, processes: int) -> None:
        self.names, self.limits = names, limits
        self.context = multiprocessing.get_context("spawn")
        self.room = threading.Semaphore(processes)
        self.idle: list[_Worker] = []
        self.all: set[_Worker] = set()

    def ask(self, request: bytes) -> Iterator[bytes | None]:
        answers: list[bytes] = []
        is_second = False
        with self.room:
            while True:
                worker = self._worker()
                before = len(answers)
                try:
                    yield from worker.ask(request, answers, self.limits)
                except _Lost as lost:
                    self._end(worker)
                    is_second = is_second and len(answers) == before
                    if lost.is_sure or is_second:
                        answers.append(lost.answer)
                        is_second = False
                    else:
                        is_second = True
                    rest = _read_request(request)[len(answers) - before :]
                    request = msgspec.json.encode(rest)
                    if rest:
                        continue
                except BaseException:
                    self._end(worker)
                    raise
                else:
                    self.idle.append(worker)
                break
        yield b"[" + b",".join(answers) + b"]"

    def close(self) -> None:
        """Ends all processes."""
        for worker in list(self.all):
            self._end(worker)

    def _worker(self) -> _Worker:
        try:
            return self.idle.pop()
        except IndexError:
            worker = _Worker(self.context, self.names, self.limits)
            self.all.add(worker)
            return worker

    def _end(self, worker: _Worker) -> None:
        worker.end()
        self.all.discard(worker)


class _Worker:
    """A process, and the pipe to it."""

    def __init__(self, context: SpawnContext, names: Sequence[str], limits: Limits) -> None:
        self.is_ready = False
        self.pipe, other_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(other_end, names, limits), daemon=True)
        self.process.start()
        other_end.close()

    def ask(self, request: bytes, answers: list[bytes], limits: Limits) -> Iterator[None]:
        """Adds the answer to each page of the request as it comes.

        Raises:
            ConfigError: the extractors cannot be made.
            _Lost: the process has ended.
        """
        try:
            if not self.is_ready:
                while not self.pipe.poll(WAIT_S):
                    yield None
                failure: ConfigError | None = self.pipe.recv()
                if failure is not None:
                    raise failure
                self.is_ready = True
            self.pipe.send_bytes(request)
            start = time.monotonic()
            while True:
                while not self.pipe.poll(WAIT_S):
                    if time.monotonic() - start > WALL_FACTOR * limits.time_s:
                        seconds = WALL_FACTOR * limits.time_s
                        raise _Lost(
                            "timeout", f"the extractor took more than {seconds:g} s; expected less", is_sure=True
                        )
                    yield None
                answer = self.pipe.recv_bytes()
                if not answer:
                    return
                answers.append(answer)
                start = time.monotonic()
        except (EOFError, OSError):
            raise self._lost(limits) from None

    def _lost(self, limits: Limits) -> _Lost:
        self.process.join()
        code = self.process.exitcode or 0
        if code == -signal.SIGPROF:
            message = (
                f"the extractor took more than {limits.time_s:g} s of processor time (time_limit_s); expected less"
            )
            return _Lost("timeout", message, is_sure=True)
        if code == OUT_OF_MEMORY:
            message = f"the extractor took more than {limits.memory_bytes} bytes (memory_limit_bytes); expected less"
            return _Lost("out_of_memory", message, is_sure=False)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return _Lost("crashed", f"the process of the extractor ended twice ({how}); expected a text", is_sure=False)

    def end(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


# ---- in a worker process

_read_request = msgspec.json.Decoder(list[tuple[str, str]]).decode


def _serve(pipe: Connection, names: Sequence[str], limits: Limits) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run says when it ends
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.join,), daemon=True).start()
    try:
        made = {name: extractors.make(name, "linearizer") for name in names}
    except ConfigError as error:
        pipe.send(error)
        return
    _limit_memory(limits.memory_bytes)
    pipe.send(None)
    while True:
        try:
            request = pipe.recv_bytes()
        except EOFError:
            return
        try:
            for name, page in _read_request(request):
                # the signal ends the process, even within C
                signal.setitimer(signal.ITIMER_PROF, limits.time_s)
                answer = _text(made, name, page)
                signal.setitimer(signal.ITIMER_PROF, 0)
                pipe.send_bytes(answer)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)  # what is left of the memory may not do for another page
        pipe.send_bytes(b"")


def _text(made: Mapping[str, extractors.Extractor], name: str, page: str) -> bytes:
    """The text of a page as JSON; if the extractor fails, the reason and a message."""
    try:
        # a lone surrogate has no UTF-8
        return msgspec.json.encode(made[name](page).encode("utf-8", "replace").decode())
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())[:200]
        message = f"{name} raised {type(error).__name__}: {reason}; expected a text"
        return msgspec.json.encode(("extractor_error", message.encode("utf-8", "replace").decode()))


def _limit_memory(memory_bytes: int) -> None:
    if sys.platform != "linux":
        return  # no other system says how much address space a process has
    import resource

    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    limit = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _end_with(ended: object) -> None:
    """A worker ends with its run, even if that is killed."""
    if callable(ended):
        ended()
    os._exit(1)

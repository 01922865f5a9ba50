"""Runs your own function over files, in several processes: ``BaseParallelProcessor`` of dolma 1.x."""

from __future__ import annotations

import inspect
import logging
import multiprocessing
import os
import pickle
import random
import re
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any, TypeAlias, TypeVar

from dolma.errors import ConfigError, DolmaError, DolmaRetryableFailure, Problem
from dolma.files.paths import expand, fixed_part, is_remote

__all__ = ["METADATA_SUFFIX", "BaseParallelProcessor", "QueueType"]

METADATA_SUFFIX = ".done.txt"
"""Suffix of the file that marks another as finished."""

QueueType: TypeAlias = "Queue[tuple[int, ...] | None]"
REPORT_INTERVAL_S = 10.0

P = TypeVar("P", bound="BaseParallelProcessor")


class BaseParallelProcessor(ABC):
    """Subclass it, write ``process_single`` and ``increment_progressbar``, make an instance, and call it.

    Each file that matches a source is written, under the same name, to the destination at the same place in the list.
    A file in the metadata directory marks it as finished; later calls skip it.
    """

    def __init__(
        self,
        source_prefix: str | list[str],
        destination_prefix: str | list[str],
        metadata_prefix: str | list[str],
        num_processes: int = 1,
        debug: bool = False,
        seed: int = 0,
        pbar_timeout: float = 1e-3,
        ignore_existing: bool = False,
        include_paths: list[str] | None = None,
        exclude_paths: list[str] | None = None,
        files_regex_pattern: str | None = None,
        retries_on_error: int = 0,
        process_single_kwargs: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        """Sources are files, directories or patterns; destinations and metadata are directories, one for each source.

        ``include_paths``, ``exclude_paths`` and ``files_regex_pattern`` select names relative to the source.
        ``process_single_kwargs`` go to ``process_single``, as one mapping for all sources or one for each. With
        ``debug`` this process does all work. ``pbar_timeout`` has no effect: numbers are logged every ten seconds.

        Raises:
            ValueError: the lists have different lengths, or a destination has a wildcard.
            AttributeError: ``increment_progressbar`` is not overridden, or has other parameters.
        """
        self.src_prefixes, self.dst_prefixes, self.meta_prefixes = (
            [places] if isinstance(places, str) else list(places)
            for places in (source_prefix, destination_prefix, metadata_prefix)
        )
        self.num_processes, self.debug, self.seed = num_processes, debug, seed
        self.pbar_timeout, self.ignore_existing, self.retries_on_error = pbar_timeout, ignore_existing, retries_on_error
        self.include_paths = None if include_paths is None else set(include_paths)
        self.exclude_paths = None if exclude_paths is None else set(exclude_paths)
        self.files_regex_pattern = re.compile(files_regex_pattern) if files_regex_pattern else None
        settings = process_single_kwargs or {}
        self.process_single_kwargs = [settings] * len(self.src_prefixes) if isinstance(settings, dict) else settings
        self._check()

    def _check(self) -> None:
        parameters = inspect.signature(self.increment_progressbar).parameters
        queue = parameters.get("queue")
        counters = [parameter for name, parameter in parameters.items() if name != "queue"]
        if queue is None or queue.kind != inspect.Parameter.POSITIONAL_ONLY:
            raise AttributeError("increment_progressbar has no positional-only queue; expected (queue, /, files=0, …)")
        if not counters or any(one.kind == inspect.Parameter.VAR_KEYWORD or one.default != 0 for one in counters):
            raise AttributeError(
                "increment_progressbar has no counters; expected a positional-only queue and counters: "
                "(queue, /, files=0, …)"
            )
        if not self.src_prefixes:
            raise ValueError("no source; expected at least one")
        numbers = {
            "destinations": len(self.dst_prefixes),
            "metadata directories": len(self.meta_prefixes),
            "process_single_kwargs": len(self.process_single_kwargs),
        }
        for name, number in numbers.items():
            if number != len(self.src_prefixes):
                raise ValueError(f"{len(self.src_prefixes)} sources, but {number} {name}; expected one for each source")
        for place in (*self.dst_prefixes, *self.meta_prefixes):
            if any(character in place for character in "*?["):
                raise ValueError(f'"{place}" has a wildcard; expected the name of one directory')
            if is_remote(place):
                raise ValueError(f'"{place}" is a URL; expected a local directory (upload it afterwards)')

    @classmethod
    def get_logger(cls) -> logging.Logger:
        """A logger with the name of the class."""
        return logging.getLogger(f"dolma.{cls.__name__}")

    @classmethod
    @abstractmethod
    def process_single(cls, source_path: str, destination_path: str, queue: QueueType, **kwargs: Any) -> None:
        """Makes one file from another. The directory exists. A ``DolmaRetryableFailure`` makes it try again."""

    @classmethod
    def increment_progressbar(cls, queue: QueueType, /, **kwargs: int) -> dict[str, int]:
        """Adds to the numbers that are logged. Override it to name them, and pass them to this method."""
        queue.put(tuple(kwargs.values()))
        return kwargs

    def __add__(self: P, other: P) -> P:
        """A processor for the files of both, with their common settings.

        Raises:
            TypeError: their classes differ.
            ValueError: their settings differ.
        """
        if type(self) is not type(other):
            raise TypeError(f"cannot add a {type(self).__name__} and a {type(other).__name__}; expected the same class")
        shared = ("num_processes", "debug", "seed", "pbar_timeout", "ignore_existing", "retries_on_error")
        for name in shared:
            if getattr(self, name) != getattr(other, name):
                raise ValueError(f"{name} is {getattr(self, name)} and {getattr(other, name)}; expected equal settings")

        def joined(mine: set[str] | None, others: set[str] | None) -> list[str] | None:
            return sorted((mine or set()) | (others or set())) or None

        patterns = [one.pattern for one in (self.files_regex_pattern, other.files_regex_pattern) if one is not None]
        return type(self)(
            source_prefix=[*self.src_prefixes, *other.src_prefixes],
            destination_prefix=[*self.dst_prefixes, *other.dst_prefixes],
            metadata_prefix=[*self.meta_prefixes, *other.meta_prefixes],
            include_paths=joined(self.include_paths, other.include_paths),
            exclude_paths=joined(self.exclude_paths, other.exclude_paths),
            files_regex_pattern="|".join(f"(?:{pattern})" for pattern in patterns) or None,
            process_single_kwargs=[*self.process_single_kwargs, *other.process_single_kwargs],
            **{name: getattr(self, name) for name in shared},
        )

    def __call__(self, **process_single_kwargs: Any) -> None:
        """Processes the files that are not finished. The arguments also go to ``process_single``.

        Raises:
            ValueError: a source matches nothing.
            Exception: the first error of ``process_single``.
        """
        retries = int(process_single_kwargs.pop("retries_on_error", self.retries_on_error))
        tasks = self._tasks(process_single_kwargs)
        # many corpora list their large files together; in random order the progress is more even
        random.Random(self.seed).shuffle(tasks)
        log = self.get_logger()
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        log.info("%d files to process", len(tasks))
        if not tasks:
            return
        with multiprocessing.Manager() if not self.debug else _Here() as manager:
            queue = manager.Queue()
            teller = threading.Thread(target=self._tell, args=(queue, log), daemon=True)
            teller.start()
            try:
                self._run(tasks, retries, queue)
            finally:
                queue.put(None)
                teller.join()

    def _tasks(self, more: dict[str, Any]) -> list[tuple[str, str, str, bytes]]:
        tasks = []
        places = zip(self.src_prefixes, self.dst_prefixes, self.meta_prefixes, self.process_single_kwargs, strict=True)
        for source, destination, metadata, settings in places:
            for file in expand([source], "source_prefix"):
                relative = os.path.relpath(file.path, fixed_part(file.pattern))
                done = f"{os.path.join(metadata, relative)}{METADATA_SUFFIX}"
                if self._is_chosen(relative) and (self.ignore_existing or not os.path.exists(done)):
                    arguments = pickle.dumps({**settings, **more})
                    tasks.append((file.path, os.path.join(destination, relative), done, arguments))
        taken = Counter(target for _, target, _, _ in tasks)
        twice = [target for target, count in taken.items() if count > 1]
        if twice:
            raise ConfigError([Problem("source_prefix", f"has several files for {twice[0]}; expected one")])
        return tasks

    def _is_chosen(self, path: str) -> bool:
        return (
            (self.include_paths is None or path in self.include_paths)
            and (self.exclude_paths is None or path not in self.exclude_paths)
            and (self.files_regex_pattern is None or self.files_regex_pattern.search(path) is not None)
        )

    def _run(self, tasks: Sequence[tuple[str, str, str, bytes]], retries: int, queue: QueueType) -> None:
        if self.debug:
            for task in tasks:
                self._process(*task, retries, queue)
            return
        workers = max(1, min(self.num_processes, len(tasks)))
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            futures = [pool.submit(self._process, *task, retries, queue) for task in tasks]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    @classmethod
    def _process(cls, source: str, target: str, done: str, arguments: bytes, retries: int, queue: QueueType) -> None:
        for place in (target, done):
            Path(place).parent.mkdir(parents=True, exist_ok=True)
        for left in range(retries, -1, -1):
            try:
                cls.process_single(source_path=source, destination_path=target, queue=queue, **pickle.loads(arguments))
                break
            except DolmaRetryableFailure as error:
                if not left:
                    raise DolmaError(f"{source}: failed {retries + 1} times: {error}") from error
        Path(done).write_text(f"{source}\n", "utf-8")

    @classmethod
    def _tell(cls, queue: QueueType, log: logging.Logger) -> None:
        names = [name for name in inspect.signature(cls.increment_progressbar).parameters if name != "queue"]
        totals, last = [0] * len(names), time.monotonic()
        while (item := queue.get()) is not None:
            totals = [total + more for total, more in zip(totals, item, strict=True)]
            if time.monotonic() - last >= REPORT_INTERVAL_S:
                last = time.monotonic()
                log.info("  ".join(f"{name}: {total}" for name, total in zip(names, totals, strict=True)))
        log.info("  ".join(f"{name}: {total}" for name, total in zip(names, totals, strict=True)))


class _Here:
    """Replaces the manager of worker processes."""

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def Queue(self) -> QueueType:
        return Queue()

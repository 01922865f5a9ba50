"""Reads stretches of many files with few of them open.

`pread` rather than a memory map: a page that must come from the disk is then waited for without holding up the other
threads, a file that shrank is an error instead of SIGBUS, and a map would hold a file descriptor for each shard.
"""

from __future__ import annotations

import os
import resource
from collections import OrderedDict
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt

from ..formats.fields import mismatch

__all__ = ["ShardReader"]


class _Open:
    """A file descriptor that is closed when nobody holds it, so that one thread may drop what another reads."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class ShardReader:
    """The last used files stay open, at most `limit`: by default 512, or a quarter of what the process may open."""

    def __init__(self, limit: int | None = None) -> None:
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._limit = limit or (512 if allowed == resource.RLIM_INFINITY else max(4, min(512, allowed // 4)))
        self._kept: OrderedDict[Path, _Open] = OrderedDict()
        self._lock = Lock()

    def read(self, path: Path, dtype: str, start: int, count: int) -> npt.NDArray[np.generic]:
        """`count` little-endian items of a raw file from item `start` on.

        Raises: FormatError: `truncated` where the file ends before them; `missing_file`.
        """
        items = np.empty(count, dtype=np.dtype(dtype).newbyteorder("<"))
        left, offset = memoryview(items).cast("B"), start * items.itemsize  # type: ignore[arg-type]
        held = self._held(path)
        while left:
            got = os.preadv(held.number, [left], offset)
            if got == 0:
                missing = f"{(start + count) * items.itemsize} bytes or more, as when the run was begun"
                raise mismatch(path, "truncated", f"{offset} bytes long", missing)
            left, offset = left[got:], offset + got
        return items

    def _held(self, path: Path) -> _Open:
        with self._lock:
            if path in self._kept:
                self._kept.move_to_end(path)
                return self._kept[path]
        try:
            opened = _Open(path)
        except FileNotFoundError as error:
            raise mismatch(path, "missing_file", "missing", "the shard that existed at the start") from error
        with self._lock:
            self._kept[path] = opened
            if len(self._kept) > self._limit:
                self._kept.popitem(last=False)
        return opened

"""Token shards seen as windows of equal length: the documents of a file run on, and the file is cut every T tokens.

A file's last tokens that fill no window are left out. Finding a window's file is a binary search.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..formats.errors import FormatError
from ..formats.tokens import Shard, TokenDirectory

__all__ = ["WindowSource"]


class WindowSource:
    """The windows of one directory, numbered through its files in sorted order."""

    def __init__(self, directory: TokenDirectory, sequence_length: int) -> None:
        self.directory, self.sequence_length = directory, sequence_length
        per_file = np.array([shard.tokens // sequence_length for shard in directory.shards], dtype=np.int64)
        self._ends = np.cumsum(per_file)
        self._mapped: dict[int, npt.NDArray[np.integer[Any]]] = {}

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._ends.size else 0

    def locate(self, window: int) -> tuple[Shard, int]:
        """The file of a window and the offset of its first token there; O(log files)."""
        index = self._file(window)
        return self.directory.shards[index], self._offset(window, index)

    def number(self, shard_index: int, token: int) -> int | None:
        """The window that holds a token of a file; None for the tokens after a file's last window."""
        first = int(self._ends[shard_index - 1]) if shard_index else 0
        window = first + token // self.sequence_length
        return window if window < int(self._ends[shard_index]) else None

    def read(self, window: int) -> npt.NDArray[np.int64]:
        """The T ids of a window.

        Raises: FormatError: `out_of_range` for an id that is not in the vocabulary.
        """
        index = self._file(window)
        if index not in self._mapped:
            self._mapped[index] = self.directory.shards[index].ids()
        start = self._offset(window, index)
        ids = self._mapped[index][start : start + self.sequence_length].astype(np.int64)
        limit = self.directory.vocab_size
        if limit is not None and int(ids.max()) >= limit:
            place = int(np.argmax(ids >= limit))
            raise FormatError(
                self.directory.shards[index].path,
                "out_of_range",
                f"{int(ids[place])} at token {start + place}",
                f"below vocab_size {limit}",
                field="tokens",
                hint=f"check that the file really holds {self.directory.dtype} items of this tokenizer",
            )
        return ids

    def _file(self, window: int) -> int:
        assert 0 <= window < len(self)
        return int(np.searchsorted(self._ends, window, side="right"))

    def _offset(self, window: int, index: int) -> int:
        first = int(self._ends[index - 1]) if index else 0
        return (window - first) * self.sequence_length

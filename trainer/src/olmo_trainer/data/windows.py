"""Token shards seen as windows of equal length, in one of two layouts.

`Chunks`: the documents of a file run on, and the file is cut every T tokens; its last tokens that fill no window are
left out. `Packs`: whole documents of a file side by side, then padding (packing.py). Both find a window's file by a
binary search, and both can be asked in which windows a stretch of a file stands. T tokens in a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..formats.fields import mismatch
from ..formats.tokens import Shard, TokenDirectory, boundaries
from .packing import best_fit_decreasing, pieces_of
from .shard_reader import ShardReader

__all__ = ["Chunks", "Layout", "Packs", "Piece", "Window", "WindowSource"]


@dataclass(frozen=True)
class Piece:
    """A stretch of a file that stands in a window: token offsets, `end` exclusive; `shard` counts the files."""

    shard: int
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Window:
    """What is read of a window; the first `filled` tokens are from the file, the others padding."""

    ids_T: npt.NDArray[np.int64]
    counted_T: npt.NDArray[np.bool_]
    """Whether predicting this token is part of the loss."""
    begins_T: npt.NDArray[np.bool_]
    """Whether another document begins here than the token before is of."""
    filled: int

    @property
    def documents_T(self) -> npt.NDArray[np.int32]:
        """Equal where two tokens are of one document; rising from 0."""
        return np.cumsum(self.begins_T, dtype=np.int32)


class Layout(Protocol):
    """How the windows of a directory lie over its files."""

    windows: int

    def pieces(self, window: int) -> list[Piece]:
        """What stands in a window, from left to right."""

    def windows_of(self, stretch: Piece) -> list[int]:
        """The windows that hold a token of a stretch, rising."""


class Chunks:
    """A file cut every T tokens."""

    def __init__(self, directory: TokenDirectory, length: int) -> None:
        self._length = length
        self._ends = np.cumsum([shard.tokens // length for shard in directory.shards], dtype=np.int64)
        self.windows = int(self._ends[-1]) if self._ends.size else 0

    def pieces(self, window: int) -> list[Piece]:
        """One piece of T tokens; O(log files)."""
        shard = int(np.searchsorted(self._ends, window, side="right"))
        start = (window - self._first(shard)) * self._length
        return [Piece(shard, start, start + self._length)]

    def windows_of(self, stretch: Piece) -> list[int]:
        """The windows that hold a token of a stretch, rising."""
        first = self._first(stretch.shard)
        touched = range(first + stretch.start // self._length, first + -(-stretch.end // self._length))
        return [window for window in touched if window < int(self._ends[stretch.shard])]

    def _first(self, shard: int) -> int:
        return int(self._ends[shard - 1]) if shard else 0


class Packs:
    """Documents of a file packed into windows; 20 bytes of memory a document and 8 a window.

    Reads the boundaries of every shard. A window's pieces stand in it as they do in the file.
    """

    def __init__(self, directory: TokenDirectory, length: int, *, truncate: bool) -> None:
        self._plans = [_plan(shard, directory.eos_token_id, length, truncate) for shard in directory.shards]
        self._ends = np.cumsum([len(plan.firsts) - 1 for plan in self._plans], dtype=np.int64)
        self.windows = int(self._ends[-1]) if self._ends.size else 0

    def pieces(self, window: int) -> list[Piece]:
        """The documents of a window; O(log files + log documents of the file)."""
        shard = int(np.searchsorted(self._ends, window, side="right"))
        plan, local = self._plans[shard], window - self._first(shard)
        chosen = plan.by_window[plan.firsts[local] : plan.firsts[local + 1]]
        found = zip(plan.starts[chosen].tolist(), plan.sizes[chosen].tolist(), strict=True)
        return [Piece(shard, start, start + size) for start, size in found]

    def windows_of(self, stretch: Piece) -> list[int]:
        """The windows that hold a token of a stretch, rising."""
        plan = self._plans[stretch.shard]
        last = int(np.searchsorted(plan.starts, stretch.end))
        first = int(np.searchsorted(plan.starts[:last], stretch.start, side="right"))
        first -= first > 0 and int(plan.starts[first - 1] + plan.sizes[first - 1]) > stretch.start
        return sorted({self._first(stretch.shard) + window for window in plan.windows[first:last].tolist()})

    def _first(self, shard: int) -> int:
        return int(self._ends[shard - 1]) if shard else 0


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """The pieces of a file by rising start; `by_window[firsts[i]:firsts[i+1]]` are the numbers of window i's."""

    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.uint32]
    windows: npt.NDArray[np.uint32]
    by_window: npt.NDArray[np.uint32]
    firsts: npt.NDArray[np.int64]


def _plan(shard: Shard, eos_token_id: int | None, length: int, truncate: bool) -> _Plan:
    bounds = [bound for found in boundaries(shard, eos_token_id) for bound in (found.start, found.end)]
    spans = np.array(bounds, dtype=np.int64).reshape(-1, 2)
    starts, sizes = pieces_of(spans[:, 0], spans[:, 1], length, truncate=truncate)
    windows, count = best_fit_decreasing(sizes, length)
    return _Plan(
        starts=starts,
        sizes=sizes.astype(np.uint32),
        windows=windows.astype(np.uint32),
        by_window=np.argsort(windows, kind="stable").astype(np.uint32),
        firsts=np.concatenate(([0], np.cumsum(np.bincount(windows, minlength=count)))),
    )


class WindowSource:
    """The windows of one directory, numbered through its files in sorted order.

    `max_tokens` keeps so many windows of the layout, spread evenly over it. `label_masks` is a directory with a file
    for each shard, by the same name, of one byte a token: 1 where predicting the token is part of the loss.
    Raises: FormatError: `missing_file`, `wrong_size`: masks that do not fit the shards.
    """

    def __init__(
        self,
        directory: TokenDirectory,
        sequence_length: int,
        layout: Layout | None = None,
        *,
        max_tokens: int | None = None,
        label_masks: Path | None = None,
        reader: ShardReader | None = None,
    ) -> None:
        self.directory, self.sequence_length = directory, sequence_length
        self.layout: Layout = layout or Chunks(directory, sequence_length)
        self._size = self.layout.windows
        if max_tokens is not None:
            self._size = min(self._size, max_tokens // sequence_length)
        self._masks = None if label_masks is None else [_mask_of(label_masks, shard) for shard in directory.shards]
        self._reader = reader or ShardReader()

    def __len__(self) -> int:
        return self._size

    @property
    def label_masks(self) -> list[Path]:
        """The mask of each shard; none where all tokens are predicted."""
        return self._masks or []

    def pieces(self, window: int) -> list[Piece]:
        """What stands in a window, from left to right."""
        assert 0 <= window < self._size
        return self.layout.pieces(window * self.layout.windows // self._size)

    def windows_of(self, stretch: Piece) -> list[int]:
        """The windows that hold a token of a stretch, rising; none for tokens that are left out."""
        found = []
        for laid in self.layout.windows_of(stretch):
            window = -(-laid * self._size // self.layout.windows)
            if window < self._size and window * self.layout.windows // self._size == laid:
                found.append(window)
        return found

    def read(self, window: int) -> Window:
        """Read a window; the first token of a piece is predicted only where a document begins after another's end.

        Raises: FormatError: `out_of_range` for an id that is not in the vocabulary; `truncated`, `missing_file`.
        """
        length, eos, pad = self.sequence_length, self.directory.eos_token_id, self.directory.pad_token_id
        filler = pad if pad is not None else eos if eos is not None else 0
        ids_T, counted_T = np.full(length, filler, dtype=np.int64), np.ones(length, dtype=np.bool_)
        begins_T = np.zeros(length, dtype=np.bool_)
        place = 0
        for piece in self.pieces(window):
            end = place + piece.end - piece.start
            before = int(place > 0 and piece.start > 0)  # the token before tells whether a document begins here
            ids = self._ids(Piece(piece.shard, piece.start - before, piece.end))
            ids_T[place:end] = ids[before:]
            if self._masks is not None:
                counted_T[place:end] = self._reader.read(self._masks[piece.shard], "uint8", piece.start, end - place)
            if place and (ids_T[place - 1] != eos or (before and ids[0] != eos)):
                counted_T[place] = False
            begins_T[place] = place > 0
            place = end
        counted_T[place:] = False
        # a document ends with its end token and nowhere else (docs/formats/tokens.md); padding is one by itself
        begins_T[1:place] |= ids_T[: place - 1] == eos
        begins_T[place : place + 1] = True
        return Window(ids_T=ids_T, counted_T=counted_T, begins_T=begins_T, filled=place)

    def _ids(self, piece: Piece) -> npt.NDArray[np.generic]:
        shard = self.directory.shards[piece.shard]
        ids: npt.NDArray[Any] = self._reader.read(shard.path, shard.dtype, piece.start, piece.end - piece.start)
        limit = self.directory.vocab_size
        if limit is not None and int(ids.max()) >= limit:
            place = int(np.argmax(ids >= limit))
            raise mismatch(
                shard.path,
                "out_of_range",
                f"{int(ids[place])} at token {piece.start + place}",
                f"below vocab_size {limit}",
                field="tokens",
                hint=f"check that the file really holds {shard.dtype} items of this tokenizer",
            )
        return ids


def _mask_of(directory: Path, shard: Shard) -> Path:
    path = directory / shard.name
    if not path.is_file():
        raise mismatch(path, "missing_file", "missing", f"the label mask of {shard.path}")
    if path.stat().st_size != shard.tokens:
        got, expected = f"{path.stat().st_size} bytes long", f"{shard.tokens}, one for each token of {shard.path}"
        raise mismatch(path, "wrong_size", got, expected)
    return path

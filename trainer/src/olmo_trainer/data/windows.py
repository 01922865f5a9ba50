"""Token shards as windows of equal length, in one of two layouts.

`Chunks`: the documents of a file are concatenated and cut every T tokens; the last tokens of a file that do not fill a
window are dropped. `Packs`: whole documents of a file next to each other, then padding. Both find a window's file by
binary search, and both can tell which windows hold a span of a file. T tokens in a window.
"""

import heapq
import os
import resource
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..formats.contract import FormatError, mismatch
from ..formats.tokens import Shard, TokenDirectory, boundaries

__all__ = ["Chunks", "Layout", "Packs", "Piece", "ShardReader", "WindowSource", "best_fit_decreasing", "pieces_of"]


# ---- packing

Integers = npt.NDArray[np.int64]


def pieces_of(starts: Integers, ends: Integers, length: int, *, truncate: bool) -> tuple[Integers, Integers]:
    """Split documents longer than `length` into pieces, or truncate them; starts and sizes, rising.

    Empty documents give no piece.
    """
    sizes = ends - starts
    if truncate:
        kept = sizes > 0
        return starts[kept], np.minimum(sizes[kept], length)
    counts = -(-sizes // length)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    within = np.arange(len(first)) - first
    piece_starts = np.repeat(starts, counts) + within * length
    return piece_starts, np.minimum(np.repeat(ends, counts) - piece_starts, length)


def best_fit_decreasing(sizes: Integers, capacity: int) -> tuple[Integers, int]:
    """The bin of each item, and the number of bins; sizes are 1 to `capacity`.

    From the largest item to the smallest, equal ones in their order: into the bin with the least room that fits it, the
    oldest of equals; else into a new one. All items of one size are placed together, so the work grows
    with the number of bins and of sizes, not with that of the items: a bin that got one item of a size and has room for
    another has then the least room of all, and so gets as many as fit.
    """
    order = np.argsort(-sizes, kind="stable")
    bins = np.empty(len(sizes), dtype=np.int64)
    rooms: dict[int, list[int]] = {}  # room -> heap of bins with just that room
    filled = made = 0
    values, counts = np.unique(sizes, return_counts=True)
    for size, count in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        left, end = count, filled + count
        for room in sorted(room for room in rooms if room >= size):
            heap, fits = rooms[room], room // size
            while heap and left:
                taken = min(fits, left)
                number = heapq.heappop(heap)
                bins[order[filled : filled + taken]] = number
                filled, left = filled + taken, left - taken
                if room > taken * size:
                    heapq.heappush(rooms.setdefault(room - taken * size, []), number)
            if not heap:
                del rooms[room]
            if not left:
                break
        if left:
            fits = capacity // size
            new = -(-left // fits)
            bins[order[filled:end]] = made + np.arange(left) // fits
            full = made + new - (left % fits != 0)
            # the new bins' numbers are above all others, so the heaps stay heaps
            for room, numbers in (
                (capacity - fits * size, range(made, full)),
                (capacity - left % fits * size, range(full, made + new)),
            ):
                if room:
                    rooms.setdefault(room, []).extend(numbers)
            made += new
        filled = end
    return bins, made


# ---- reading


class _Open:
    """A file descriptor that closes when unreferenced, so that one thread may drop what another reads."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class ShardReader:
    """Keeps the last used files open, at most `limit`: by default 512, or a quarter of the process's limit."""

    def __init__(self, limit: int | None = None) -> None:
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = limit or (512 if allowed == resource.RLIM_INFINITY else max(4, min(512, allowed // 4)))
        self._opened = lru_cache(limit)(_Open)

    def read(self, path: Path, dtype: str, start: int, count: int) -> npt.NDArray[np.generic]:
        """`count` little-endian items of a raw file from item `start` on.

        Raises: FormatError: `truncated` where the file ends before them; `missing_file`.
        """
        items = np.empty(count, dtype=np.dtype(dtype).newbyteorder("<"))
        left, offset = memoryview(items).cast("B"), start * items.itemsize  # type: ignore[arg-type]
        try:
            file = self._opened(path)
        except FileNotFoundError as error:
            raise FormatError(
                "missing_file", path, "not found; expected the shard that the run started with"
            ) from error
        while left:
            got = os.preadv(file.number, [left], offset)
            if got == 0:
                missing = f"{(start + count) * items.itemsize} bytes or more, as when the run began"
                raise mismatch("truncated", path, f"{offset} bytes long", missing)
            left, offset = left[got:], offset + got
        return items


# ---- windows


@dataclass(frozen=True)
class Piece:
    """A span of a file in a window: token offsets, `end` exclusive; `shard` is the number of the file."""

    shard: int
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Window:
    """The content of a window; the first `filled` tokens are from the file, the others are padding."""

    ids_T: npt.NDArray[np.int64]
    loss_mask_T: npt.NDArray[np.bool_]
    """Whether predicting this token is part of the loss."""
    begins_T: npt.NDArray[np.bool_]
    """Whether a new document begins at this token."""
    filled: int

    @property
    def documents_T(self) -> npt.NDArray[np.int32]:
        """Equal where two tokens are of one document; rising from 0."""
        return np.cumsum(self.begins_T, dtype=np.int32)


class Layout(ABC):
    """How the windows of a directory are laid over its files; `counts` are the files' numbers of windows."""

    def __init__(self, counts: list[int]) -> None:
        self._firsts = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        self.windows = int(self._firsts[-1])

    @abstractmethod
    def pieces(self, window: int) -> list[Piece]:
        """The pieces of a window, from left to right."""

    @abstractmethod
    def windows_of(self, span: Piece) -> list[int]:
        """The windows with a token of a span, rising."""

    def _located(self, window: int) -> tuple[int, int]:
        """The file of a window and its number in it; O(log files)."""
        shard = int(np.searchsorted(self._firsts, window, side="right")) - 1
        return shard, window - int(self._firsts[shard])


class Chunks(Layout):
    """A file cut every T tokens."""

    def __init__(self, directory: TokenDirectory, length: int) -> None:
        self._length = length
        super().__init__([shard.tokens // length for shard in directory.shards])

    def pieces(self, window: int) -> list[Piece]:
        shard, number = self._located(window)
        return [Piece(shard, number * self._length, (number + 1) * self._length)]

    def windows_of(self, span: Piece) -> list[int]:
        first, end = self._firsts[span.shard : span.shard + 2].tolist()
        return list(range(first + span.start // self._length, min(end, first - -span.end // self._length)))


class Packs(Layout):
    """Documents of a file packed into windows; 20 bytes of memory a document and 8 a window.

    Reads the boundaries of every shard. The pieces of a window are in the order of the file.
    """

    def __init__(self, directory: TokenDirectory, length: int, *, truncate: bool) -> None:
        self._packings = [_pack(shard, directory.eos_token_id, length, truncate) for shard in directory.shards]
        super().__init__([len(packing.firsts) - 1 for packing in self._packings])

    def pieces(self, window: int) -> list[Piece]:
        shard, number = self._located(window)
        packing = self._packings[shard]
        chosen = packing.by_window[packing.firsts[number] : packing.firsts[number + 1]]
        found = zip(packing.starts[chosen].tolist(), packing.sizes[chosen].tolist(), strict=True)
        return [Piece(shard, start, start + size) for start, size in found]

    def windows_of(self, span: Piece) -> list[int]:
        packing = self._packings[span.shard]
        last = int(np.searchsorted(packing.starts, span.end))
        first = int(np.searchsorted(packing.starts[:last], span.start, side="right"))
        first -= first > 0 and int(packing.starts[first - 1] + packing.sizes[first - 1]) > span.start
        before = int(self._firsts[span.shard])
        return sorted({before + window for window in packing.windows[first:last].tolist()})


@dataclass(frozen=True, kw_only=True)
class _Packing:
    """The pieces of a file by rising start; `by_window[firsts[i]:firsts[i+1]]` are the numbers of window i's."""

    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.uint32]
    windows: npt.NDArray[np.uint32]
    by_window: npt.NDArray[np.uint32]
    firsts: npt.NDArray[np.int64]


def _pack(shard: Shard, eos_token_id: int | None, length: int, truncate: bool) -> _Packing:
    bounds = [bound for found in boundaries(shard, eos_token_id) for bound in (found.start, found.end)]
    spans = np.array(bounds, dtype=np.int64).reshape(-1, 2)
    starts, sizes = pieces_of(spans[:, 0], spans[:, 1], length, truncate=truncate)
    windows, count = best_fit_decreasing(sizes, length)
    return _Packing(
        starts=starts,
        sizes=sizes.astype(np.uint32),
        windows=windows.astype(np.uint32),
        by_window=np.argsort(windows, kind="stable").astype(np.uint32),
        firsts=np.concatenate(([0], np.cumsum(np.bincount(windows, minlength=count)))),
    )


class WindowSource:
    """The windows of one directory, numbered through its files in sorted order.

    `max_tokens` keeps part of the layout's windows, spread evenly over it. `label_masks` is a directory with a file
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
        """The pieces of a window, from left to right."""
        assert 0 <= window < self._size
        return self.layout.pieces(window * self.layout.windows // self._size)

    def windows_of(self, span: Piece) -> list[int]:
        """The windows with a token of a span, rising; none for dropped tokens."""
        found = []
        for laid in self.layout.windows_of(span):
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
        ids_T, loss_mask_T = np.full(length, filler, dtype=np.int64), np.ones(length, dtype=np.bool_)
        begins_T = np.zeros(length, dtype=np.bool_)
        filled = 0
        for piece in self.pieces(window):
            end = filled + piece.end - piece.start
            before = int(filled > 0 and piece.start > 0)  # the token before shows whether a document begins here
            ids = self._ids(Piece(piece.shard, piece.start - before, piece.end))
            ids_T[filled:end] = ids[before:]
            if self._masks is not None:
                loss_mask_T[filled:end] = self._reader.read(
                    self._masks[piece.shard], "uint8", piece.start, end - filled
                )
            if filled and (ids_T[filled - 1] != eos or (before and ids[0] != eos)):
                loss_mask_T[filled] = False
            begins_T[filled] = filled > 0
            filled = end
        loss_mask_T[filled:] = False
        # a document ends with its end token and nowhere else (docs/formats/tokens.md); padding is one by itself
        begins_T[1:filled] |= ids_T[: filled - 1] == eos
        begins_T[filled : filled + 1] = True
        return Window(ids_T=ids_T, loss_mask_T=loss_mask_T, begins_T=begins_T, filled=filled)

    def _ids(self, piece: Piece) -> npt.NDArray[np.generic]:
        shard = self.directory.shards[piece.shard]
        ids: npt.NDArray[Any] = self._reader.read(shard.path, shard.dtype, piece.start, piece.end - piece.start)
        limit = self.directory.vocab_size
        if limit is not None and int(ids.max()) >= limit:
            index = int(np.argmax(ids >= limit))
            raise mismatch(
                "out_of_range",
                shard.path,
                f"{int(ids[index])} at token {piece.start + index}",
                f"below vocab_size {limit}",
                field="tokens",
                hint=f"check that the file really holds {shard.dtype} items of this tokenizer",
            )
        return ids


def _mask_of(directory: Path, shard: Shard) -> Path:
    path = directory / shard.name
    if not path.is_file():
        raise FormatError("missing_file", path, f"not found; expected the label mask of {shard.path}")
    if path.stat().st_size != shard.tokens:
        got, expected = f"{path.stat().st_size} bytes long", f"{shard.tokens}, one for each token of {shard.path}"
        raise mismatch("wrong_size", path, got, expected)
    return path

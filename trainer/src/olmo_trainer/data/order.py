"""Which window is at which position of a run, and how many windows each step takes: pure functions, with inverses.

An epoch is a permutation of its windows, drawn from `PCG64(SeedSequence([seed, epoch]))`. Adding seed and epoch
instead, as is often done, gives seed 1 in its first epoch the order of seed 0 in its second; the mode `legacy` does
add them, to see the same data at the same step as a run of OLMo (whose first epoch is also ours). With ratios, an epoch
has as many windows of each source as use up the scarcest once; a larger source continues in the next epoch where it
stopped, so that nothing of a source is seen twice before all of it was seen once.

Windows are numbered in the order in which the run takes them, from 0; steps from 1. A batch warmup changes how many
windows a step takes. A sequence-length warmup leaves windows and their order as they are: a window of T tokens becomes
T / length pieces, each a sequence of its own.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config.schema import TrainConfig

__all__ = ["BatchSchedule", "DataOrder", "joined", "permutation", "positions_of", "rank_slice", "steps_of_duration"]


Permutation = npt.NDArray[np.unsignedinteger[Any]]


def permutation(seed: int, epoch: int, size: int, stream: int = 0) -> Permutation:
    """A permutation of 0 … size−1; equal arguments give equal results on every machine.

    `stream` 0 orders an epoch, stream i+1 source i within itself. Each must be below 2**32: one word of the entropy.
    """
    assert 0 <= seed < 2**32
    assert 0 <= epoch < 2**32
    return _shuffled(size, np.random.SeedSequence([seed, epoch] if stream == 0 else [seed, epoch, stream]))


def legacy_permutation(seed: int, epoch: int, size: int) -> Permutation:
    """The order in which OLMo 0.x reads `size` windows in an epoch (from 0)."""
    return _shuffled(size, seed + epoch)


def _shuffled(size: int, seed: int | np.random.SeedSequence) -> Permutation:
    drawn: Permutation = np.arange(
        size, dtype=np.uint32 if size <= 2**32 else np.uint64
    )  # the order is the same in both
    np.random.Generator(np.random.PCG64(seed)).shuffle(drawn)
    return drawn


def rank_slice(batch: range, rank: int, world: int) -> range:
    """The positions of a batch that one of `world` ranks reads: every world-th, as in OLMo.

    Together the ranks read each position once; the batch itself does not depend on their number.
    """
    assert 0 <= rank < world
    return batch[rank::world]


def positions_of(first: int, sizes: Iterable[int]) -> Iterator[range]:
    """The positions of each batch, from a first position and the batches' numbers of windows."""
    for size in sizes:
        yield range(first, first + size)
        first += size


def joined(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Ranges [first, last) in rising order, with those that touch or overlap merged."""
    result: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1]:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return tuple(result)


@dataclass(frozen=True)
class OrderedWindow:
    """The window at a position of the order."""

    position: int
    epoch: int
    source: int
    window: int


class DataOrder:
    """The order of all windows of a run, over any number of epochs; safe for several threads.

    `sizes` are the sources' numbers of windows; `ratios` their shares (any scale), or None for all windows of all.
    With `legacy_batch` it is OLMo's order: an epoch is a number of whole batches, and windows that fill none are not
    seen in it. `gaps` are positions [first, last) that the run skips (stability.py): when it reaches a gap, it
    continues after it. Memory: 4 bytes per window, 8 while one epoch follows another, twice that with the inverse.
    """

    def __init__(
        self, sizes: Sequence[int], ratios: Sequence[float] | None, seed: int, *, legacy_batch: int | None = None
    ) -> None:
        self.sizes, self.seed, self.legacy_batch = tuple(sizes), seed, legacy_batch
        if ratios is None:
            self.quotas = self.sizes
        else:
            assert legacy_batch is None
            shares = [ratio / sum(ratios) for ratio in ratios]
            whole = min(size / share for size, share in zip(sizes, shares, strict=True))
            self.quotas = tuple(min(size, int(share * whole + 1e-6)) for size, share in zip(sizes, shares, strict=True))
        self._starts = np.concatenate(([0], np.cumsum(self.quotas)))
        self.gaps: tuple[tuple[int, int], ...] = ()
        self._kept: dict[tuple[int, bool], dict[int, Permutation]] = {}
        self._lock = RLock()

    @property
    def epoch_windows(self) -> int:
        """Windows in an epoch."""
        drawn = int(self._starts[-1])
        return drawn if self.legacy_batch is None else drawn // self.legacy_batch * self.legacy_batch

    def shifted(self, taken: int) -> int:
        """The position of the window that the run takes after `taken` others; equal where there are no gaps before."""
        for first, last in self.gaps:
            if taken < first:
                break
            taken += last - first
        return taken

    def _unshifted(self, position: int) -> int | None:
        """The number of windows that the run takes before a position; None in a gap. The inverse of `shifted`."""
        before = 0
        for first, last in self.gaps:
            if position < first:
                break
            if position < last:
                return None
            before += last - first
        return position - before

    def at(self, taken: int) -> OrderedWindow:
        """The window that the run takes after `taken` others, over all epochs."""
        position = self.shifted(taken)
        epoch, slot = divmod(position, self.epoch_windows)
        drawn = int(self._permuted(epoch, 0)[slot])
        source = int(np.searchsorted(self._starts, drawn, side="right")) - 1
        index = drawn - int(self._starts[source])
        if self.quotas[source] == self.sizes[source]:
            return OrderedWindow(position, epoch, source, index)
        source_epoch, offset = divmod(epoch * self.quotas[source] + index, self.sizes[source])
        return OrderedWindow(position, epoch, source, int(self._permuted(source_epoch, source + 1)[offset]))

    def number(self, item: OrderedWindow) -> int:
        """The window counted through all sources: the index that OLMo writes of an instance."""
        return sum(self.sizes[: item.source]) + item.window

    def positions(self, source: int, window: int, limit: int) -> list[int]:
        """The numbers below `limit` after which the run takes a window, rising: the inverse of `at`."""
        found, end = [], self.shifted(limit - 1) + 1
        for epoch, index in self._draws(source, window):
            if epoch * self.epoch_windows >= end:
                break
            slot = int(self._permuted(epoch, 0, inverse=True)[int(self._starts[source]) + index])
            if slot < self.epoch_windows:
                found.append(epoch * self.epoch_windows + slot)
        taken = [self._unshifted(position) for position in found if position < end]
        return sorted(number for number in taken if number is not None)

    def repetition(self, source: int, positions: int) -> float:
        """How often a source is seen in that many positions of a run."""
        return positions / self.epoch_windows * self.quotas[source] / self.sizes[source]

    def _draws(self, source: int, window: int) -> Iterator[tuple[int, int]]:
        """Epochs that hold a window, never falling, with its index among the source's windows of that epoch."""
        quota, size = self.quotas[source], self.sizes[source]
        count = 0
        while quota:
            if quota == size:
                yield count, window
            else:
                offset = int(self._permuted(count, source + 1, inverse=True)[window])
                yield divmod(count * size + offset, quota)
            count += 1

    def _permuted(self, epoch: int, stream: int, *, inverse: bool = False) -> Permutation:
        """The permutation of an epoch; the last two are kept."""
        with self._lock:
            kept = self._kept.setdefault((stream, inverse), {})
            if epoch not in kept:
                if len(kept) == 2:
                    del kept[next(iter(kept))]
                drawn = self._permuted(epoch, stream) if inverse else self._drawn(epoch, stream)
                if inverse:
                    inverted = np.empty_like(drawn)
                    inverted[drawn] = np.arange(len(drawn), dtype=drawn.dtype)
                    drawn = inverted
                kept[epoch] = drawn
            return kept[epoch]

    def _drawn(self, epoch: int, stream: int) -> Permutation:
        size = int(self._starts[-1]) if stream == 0 else self.sizes[stream - 1]
        if self.legacy_batch is not None:
            return legacy_permutation(self.seed, epoch, size)
        return permutation(self.seed, epoch, size, stream)


# ---- steps

_TOKENS_PER_PARAMETER = 20  # arXiv 2203.15556, table 3


@dataclass(frozen=True, kw_only=True)
class _Phase:
    first_step: int
    first_window: int
    windows: int
    sequence_length: int


class BatchSchedule:
    """The batches of a run whose windows hold `window_tokens` tokens."""

    def __init__(self, train: TrainConfig, window_tokens: int) -> None:
        self.window_tokens = window_tokens
        self._phases: list[_Phase] = []
        ends = sorted({p.until_tokens for p in train.batch_warmup} | {p.until_tokens for p in train.length_warmup})
        step, window = 1, 0
        for end in (*ends, math.inf):
            tokens = window * window_tokens
            sizes = (p.batch_windows for p in train.batch_warmup if tokens < p.until_tokens)
            lengths = (p.sequence_length for p in train.length_warmup if tokens < p.until_tokens)
            windows, length = next(sizes, train.batch_windows), next(lengths, window_tokens)
            if end > tokens:
                phase = _Phase(first_step=step, first_window=window, windows=windows, sequence_length=length)
                self._phases.append(phase)
                steps = 0 if end == math.inf else math.ceil((end / window_tokens - window) / windows)
                step, window = step + steps, window + steps * windows
        self._first_steps = [phase.first_step for phase in self._phases]
        self._first_windows = [phase.first_window for phase in self._phases]

    def windows(self, step: int) -> int:
        """Windows of a step."""
        return self._of_step(step).windows

    def first_window(self, step: int) -> int:
        """Windows taken before a step."""
        phase = self._of_step(step)
        return phase.first_window + (step - phase.first_step) * phase.windows

    def step_of(self, window: int) -> int:
        """The step that takes a window."""
        phase = self._phases[bisect_right(self._first_windows, window) - 1]
        return phase.first_step + (window - phase.first_window) // phase.windows

    def sequence_length(self, step: int) -> int:
        """Tokens of a piece of a window in a step."""
        return self._of_step(step).sequence_length

    def tokens(self, step: int) -> int:
        """Tokens taken up to and including a step."""
        return self.first_window(step + 1) * self.window_tokens

    def _of_step(self, step: int) -> _Phase:
        return self._phases[bisect_right(self._first_steps, step) - 1]


def steps_of_duration(text: str, batches: BatchSchedule, epoch_windows: int, parameters: int) -> int | None:
    """The steps of `1000 steps`, `2e12T` (tokens), `1ep` or `20chinchilla`; None for any other text.

    Tokens are rounded up to whole steps. Epochs are rounded down, so that no window is seen more often.
    One `chinchilla` is 20 tokens a parameter (arXiv 2203.15556).
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:[eE]\+?\d+)?)\s*(steps?|T|ep|chinchilla)\s*", text)
    if match is None:
        return None
    value, unit = float(match[1]), match[2]
    if unit.startswith("step"):
        return int(value)
    if unit == "ep":
        return batches.step_of(int(value * epoch_windows)) - 1
    tokens = value if unit == "T" else value * _TOKENS_PER_PARAMETER * parameters
    windows = math.ceil(tokens / batches.window_tokens)
    return batches.step_of(windows - 1) if windows else 0

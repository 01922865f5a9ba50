"""Which window stands at which place of a run: a pure function of (seed, position), and its inverse.

An epoch is a permutation of its windows, drawn from `PCG64(SeedSequence([seed, epoch]))`. Adding seed and epoch
instead, as is often done, gives seed 1 in its first epoch the order of seed 0 in its second. With ratios an epoch
holds so many windows of each source that the scarcest is used up once; a larger source goes on in the next epoch where
it stopped, so that nothing of a source is seen twice before all of it was seen once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["DataOrder", "Place", "permutation"]


def permutation(seed: int, epoch: int, size: int, stream: int = 0) -> npt.NDArray[np.int64]:
    """A permutation of 0 … size−1; equal arguments give equal results on every machine.

    `stream` 0 orders an epoch, stream i+1 source i within itself. Each must be below 2**32: one word of the entropy.
    """
    assert 0 <= seed < 2**32
    assert 0 <= epoch < 2**32
    entropy = [seed, epoch] if stream == 0 else [seed, epoch, stream]
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
    return generator.permutation(size)


@dataclass(frozen=True)
class Place:
    """What stands at a position of the run."""

    position: int
    epoch: int
    source: int
    window: int


class DataOrder:
    """The order of all windows of a run, over any number of epochs.

    `sizes` are the sources' numbers of windows; `ratios` their shares (any scale), or None for all windows of all.
    """

    def __init__(self, sizes: Sequence[int], ratios: Sequence[float] | None, seed: int) -> None:
        self.sizes, self.seed = tuple(sizes), seed
        if ratios is None:
            self.quotas = self.sizes
        else:
            shares = [ratio / sum(ratios) for ratio in ratios]
            whole = min(size / share for size, share in zip(sizes, shares, strict=True))
            self.quotas = tuple(min(size, int(share * whole + 1e-6)) for size, share in zip(sizes, shares, strict=True))
        self._starts = np.concatenate(([0], np.cumsum(self.quotas)))
        self._kept: OrderedDict[tuple[int, int, bool], npt.NDArray[np.int64]] = OrderedDict()

    @property
    def epoch_windows(self) -> int:
        """Windows in an epoch."""
        return int(self._starts[-1])

    def at(self, position: int) -> Place:
        """What stands at a position, counted from 0 over all epochs."""
        epoch, slot = divmod(position, self.epoch_windows)
        drawn = int(self._permuted(epoch, 0)[slot])
        source = int(np.searchsorted(self._starts, drawn, side="right")) - 1
        index = drawn - int(self._starts[source])
        if self.quotas[source] == self.sizes[source]:
            return Place(position, epoch, source, index)
        source_epoch, place = divmod(epoch * self.quotas[source] + index, self.sizes[source])
        return Place(position, epoch, source, int(self._permuted(source_epoch, source + 1)[place]))

    def positions(self, source: int, window: int, limit: int) -> list[int]:
        """The positions below `limit` at which a window stands, rising: the inverse of `at`."""
        found = []
        for epoch, index in self._draws(source, window):
            if epoch * self.epoch_windows >= limit:
                break
            slot = int(self._permuted(epoch, 0, inverse=True)[int(self._starts[source]) + index])
            found.append(epoch * self.epoch_windows + slot)
        return sorted(position for position in found if position < limit)

    def _draws(self, source: int, window: int) -> Iterator[tuple[int, int]]:
        """Epochs that hold a window, never falling, with its index among the source's windows of that epoch."""
        quota, size = self.quotas[source], self.sizes[source]
        count = 0
        while quota:
            if quota == size:
                yield count, window
            else:
                place = int(self._permuted(count, source + 1, inverse=True)[window])
                yield divmod(count * size + place, quota)
            count += 1

    def _permuted(self, epoch: int, stream: int, *, inverse: bool = False) -> npt.NDArray[np.int64]:
        key = (epoch, stream, inverse)
        if key not in self._kept:
            size = self.epoch_windows if stream == 0 else self.sizes[stream - 1]
            if inverse:
                forward = self._permuted(epoch, stream)
                made = np.empty_like(forward)
                made[forward] = np.arange(size)
            else:
                made = permutation(self.seed, epoch, size, stream)
            self._kept[key] = made
            while len(self._kept) > 4 * (1 + len(self.sizes)):  # this epoch's and the last's, both ways
                self._kept.popitem(last=False)
        return self._kept[key]

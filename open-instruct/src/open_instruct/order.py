"""The order of the training rows: a function of the seed and the epoch, whatever the number of processes."""

from collections.abc import Iterator, Sequence

import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

__all__ = ["RowOrder"]


class RowOrder(torch.utils.data.Sampler[int]):
    """Random order, or rows of similar length in each batch.

    By length, the batch with the longest row comes first and the others in random order. transformers' own sampler
    leaves up to fifty consecutive batches sorted by length, longest first, which makes the loss a sawtooth.

    Several processes need the same number of rows. Instead of repeating some, which would weigh more, the order ends
    with an empty row, number `len(lengths)`, as often as needed.
    """

    def __init__(
        self, lengths: Sequence[int], seed: int, *, batch_size: int | None = None, multiple_of: int = 1
    ) -> None:
        """Order rows of these `lengths`: by length within batches of `batch_size`, or at random with None.

        The number of indices is a multiple of `multiple_of`.
        """
        self.lengths, self.batch_size, self.seed, self.epoch = list(lengths), batch_size, seed, 0
        self.padding = -len(self.lengths) % multiple_of

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of indices."""
        return len(self.lengths) + self.padding

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of the rows."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        yield from self._random(generator) if self.batch_size is None else self._by_length(generator, self.batch_size)
        yield from [len(self.lengths)] * self.padding

    def _random(self, generator: torch.Generator) -> list[int]:
        return [int(index) for index in torch.randperm(len(self.lengths), generator=generator)]

    def _by_length(self, generator: torch.Generator, batch_size: int) -> list[int]:
        rows = get_length_grouped_indices(self.lengths, batch_size, generator=generator)
        batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        # the first has the longest row, so that memory runs out soon or never; the last may be short, and stays last
        middle = batches[1:-1]
        order = torch.randperm(len(middle), generator=generator).tolist()
        return [
            row for batch in [*batches[:1], *(middle[index] for index in order), *batches[1:][-1:]] for row in batch
        ]

"""TRL's SFT and DPO trainers, fed with rows that are token ids already. Nothing of the training loop is ours."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import trl.trainer.utils
from datasets import Dataset
from transformers import PrinterCallback
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import DPOTrainer, SFTTrainer

from ..data.pack import pack_lengths
from ..data.tokenize import PairExample, SftExample
from .score import pair_log_probs

__all__ = ["LengthGroupedBatches", "PairTrainer", "SftTrainer", "pair_dataset", "sft_dataset"]


def _project_trained_positions_only() -> None:
    # TRL projects every position onto the vocabulary on devices without Triton, because some of them would compile
    # anew for each batch. A CPU compiles nothing, and the projection is most of a small model's work.
    name = "_use_triton"
    if hasattr(trl.trainer.utils, name):
        setattr(trl.trainer.utils, name, lambda device: device.type in {"cpu", "cuda", "xpu"})


_project_trained_positions_only()


class _Quiet:
    """Neither telemetry nor model cards."""

    def _send_telemetry(self) -> None:
        """Send nothing."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none."""


class LengthGroupedBatches(torch.utils.data.Sampler[int]):
    """Rows of about equal length in each batch, the batches in random order, the one with the longest row first.

    transformers' own sampler leaves the batches sorted by length within stretches of up to fifty, longest first, so
    that loss and gradients follow the length as a saw-tooth. The order is a function of the seed and the epoch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        """Take a length for each row; a batch is what one optimizer step sees."""
        self.lengths, self.batch_size, self.seed, self.epoch = list(lengths), batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Give the number of rows."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """Give the rows' numbers."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        rows = get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        batches = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        # the first has the longest row, so that memory runs out soon or never; a last short one stays the last
        middle = batches[1:-1]
        order = torch.randperm(len(middle), generator=generator).tolist()
        for batch in [*batches[:1], *(middle[place] for place in order), *batches[1:][-1:]]:
            yield from batch


class _ByLength:
    """Groups rows by length, where the settings ask for it, without leaving them sorted."""

    args: Any
    train_dataset: Any

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        rows = self.train_dataset if train_dataset is None else train_dataset
        name = self.args.length_column_name
        lengths = rows[name] if name in rows.column_names else [len(ids) for ids in rows["input_ids"]]
        step_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedBatches(lengths, step_size, self.args.data_seed)


class SftTrainer(_Quiet, _ByLength, SFTTrainer):  # type: ignore[misc]
    """TRL's SFTTrainer, which takes `input_ids` and `labels` as they are."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        """Build TRL's trainer without its printing of logs."""
        super().__init__(*args, **keywords)
        self.remove_callback(PrinterCallback)


class PairTrainer(_Quiet, _ByLength, DPOTrainer):  # type: ignore[misc]
    """TRL's DPOTrainer, with our ids in place of its own encoding of text."""

    def __init__(self, *args: Any, examples: list[PairExample], **keywords: Any) -> None:
        """Build TRL's trainer; `examples` are the rows of the training set, in its order."""
        self._examples = examples
        super().__init__(*args, **keywords)
        self.remove_callback(PrinterCallback)

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        # before the first step the policy is the reference
        chosen, rejected = pair_log_probs(self, self._examples)
        columns = {"ref_chosen_logps": chosen.tolist(), "ref_rejected_logps": rejected.tolist()}
        for name, values in columns.items():
            dataset = dataset.add_column(name, values)
        return dataset


def sft_dataset(examples: list[SftExample], packing_capacity: int | None) -> Dataset:
    """Lay out examples for SFTTrainer; with a capacity in tokens, several to a row, told apart by `seq_lengths`."""
    if packing_capacity is None:
        return Dataset.from_dict(
            {"input_ids": [row.input_ids for row in examples], "labels": [row.labels for row in examples]}
        )
    bins = pack_lengths([len(row.input_ids) for row in examples], packing_capacity)
    return Dataset.from_dict(
        {
            "input_ids": [[token for index in bin_ for token in examples[index].input_ids] for bin_ in bins],
            "labels": [[label for index in bin_ for label in examples[index].labels] for bin_ in bins],
            "seq_lengths": [[len(examples[index].input_ids) for index in bin_] for bin_ in bins],
        }
    )


def pair_dataset(examples: list[PairExample]) -> Dataset:
    """Lay out pairs for DPOTrainer."""
    lengths = [len(row.prompt_ids) + max(len(row.chosen_ids), len(row.rejected_ids)) for row in examples]
    return Dataset.from_dict(
        {
            "prompt_ids": [row.prompt_ids for row in examples],
            "chosen_ids": [row.chosen_ids for row in examples],
            "rejected_ids": [row.rejected_ids for row in examples],
            "length": lengths,
        }
    )

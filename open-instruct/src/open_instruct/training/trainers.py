"""TRL's SFT and DPO trainers, fed with rows that are token ids already. Nothing of the training loop is ours."""

from typing import Any

import trl.trainer.utils
from datasets import Dataset
from transformers import PrinterCallback
from trl import DPOTrainer, SFTTrainer

from ..data.pack import pack_lengths
from ..data.tokenize import PairExample, SftExample
from .score import pair_log_probs

__all__ = ["PairTrainer", "SftTrainer", "pair_dataset", "sft_dataset"]


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


class SftTrainer(_Quiet, SFTTrainer):  # type: ignore[misc]
    """TRL's SFTTrainer, which takes `input_ids` and `labels` as they are."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        """Build TRL's trainer without its printing of logs."""
        super().__init__(*args, **keywords)
        self.remove_callback(PrinterCallback)


class PairTrainer(_Quiet, DPOTrainer):  # type: ignore[misc]
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

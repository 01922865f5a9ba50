"""TRL's SFT and DPO trainers, fed with rows that are token ids already. Nothing of the training loop is ours."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import trl.trainer.utils
from datasets import Dataset
from transformers import PrinterCallback
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import DPOTrainer, SFTTrainer

from ..data.pack import pack_lengths
from ..data.tokenize import PairExample, SftExample
from .progress import require_finite
from .router_loss import RouterLoss
from .score import pair_log_probs

__all__ = ["LengthGroupedBatches", "PairTrainer", "SftTrainer", "pair_dataset", "sft_dataset"]


def _project_trained_positions_only() -> None:
    # TRL projects every position onto the vocabulary on devices without Triton, because some of them would compile
    # anew for each batch. A CPU compiles nothing, and the projection is most of a small model's work.
    name = "_use_triton"
    if hasattr(trl.trainer.utils, name):
        setattr(trl.trainer.utils, name, lambda device: device.type in {"cpu", "cuda", "xpu"})


_project_trained_positions_only()


class _Ours:
    """What both trainers change in TRL's: no telemetry, no model cards, checks of finite numbers, batches by length.

    The loss and the gradients of a step are those of its whole batch, router loss included, whatever its micro-batches.
    """

    args: Any
    model: Any
    state: Any
    train_dataset: Any
    loss_is_scaled_for_ga: bool

    def __init__(self, *args: Any, model: Any, examples: list[Any], **keywords: Any) -> None:
        """Build TRL's trainer without its printing of logs; `examples` are the training rows, in order."""
        self._examples = examples
        self._router = RouterLoss(model)
        self._router_sum, self._steps = 0.0, 0
        self._rows_in_batch = self._parts_in_batch = 1
        super().__init__(*args, model=model, **keywords)  # type: ignore[call-arg]
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]

    def _send_telemetry(self) -> None:
        """Send nothing."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none."""

    def get_batch_samples(self, *args: Any, **keywords: Any) -> Any:
        """Get the micro-batches of a step, and count what needs all of them."""
        batches, items = super().get_batch_samples(*args, **keywords)  # type: ignore[misc]
        self._steps += 1
        self._rows_in_batch = sum(len(batch["input_ids"]) for batch in batches)
        self._parts_in_batch = max(len(batches), 1)
        if self._router.coefficient and batches:
            self._router.begin_batch(self.model, batches, self.args.device)
        return batches, items

    def compute_loss(self, model: Any, inputs: Mapping[str, Any], **keywords: Any) -> Any:
        """Give a micro-batch's share of the batch's loss, with its part of the router loss."""
        watching = self._router.coefficient and self.model.training
        if watching:
            self._router.watch()
        loss = super().compute_loss(model, inputs, **keywords)  # type: ignore[misc]
        parts = 1
        if self.loss_is_scaled_for_ga is False:
            # TRL averages over a micro-batch, and the trainer over micro-batches: the rows of a short last one would
            # weigh more than the others
            parts = self._parts_in_batch
            loss = loss * (len(inputs["input_ids"]) * parts / self._rows_in_batch)
        if watching:
            part = self._router.part(inputs)
            self._router_sum += float(part.detach())
            loss = loss + part * parts
        return loss

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **keywords: Any) -> Any:
        """Run a micro-batch. Raises WorkError, naming the rows, where its loss is not finite."""
        loss = super().training_step(model, inputs, *args, **keywords)  # type: ignore[misc]
        if not math.isfinite(float(loss)):
            require_finite(self.state.global_step + 1, "the loss", float(loss), self._places(inputs))
        return loss

    def _get_grad_norm(self, *args: Any, **keywords: Any) -> Any:
        norm = super()._get_grad_norm(*args, **keywords)  # type: ignore[misc]
        require_finite(self.state.global_step + 1, "the gradient's norm", float(norm))
        return norm

    def _places(self, inputs: Mapping[str, Any]) -> str:
        """Name the rows of a micro-batch."""
        texts = ["," + ",".join(map(str, row)) + "," for row in inputs["input_ids"].tolist()]
        places = [
            example.place
            for example in self._examples
            for ids in [getattr(example, "input_ids", None) or example.prompt_ids + example.chosen_ids]
            if any("," + ",".join(map(str, ids)) + "," in text for text in texts)
        ]
        return "rows " + ", ".join(dict.fromkeys(places)) if places else "rows unknown"

    def log(self, logs: dict[str, float], *args: Any, **keywords: Any) -> None:
        """Log the language model's loss and the router loss apart."""
        if "loss" in logs and self._router.coefficient:
            router = self._router_sum / max(self._steps, 1)
            logs = {**logs, "loss": logs["loss"] - router, "router_loss": router / self._router.coefficient}
        if "loss" in logs:
            self._router_sum, self._steps = 0.0, 0
        super().log(logs, *args, **keywords)  # type: ignore[misc]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        rows = self.train_dataset if train_dataset is None else train_dataset
        name = self.args.length_column_name
        lengths = rows[name] if name in rows.column_names else [len(ids) for ids in rows["input_ids"]]
        step_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedBatches(lengths, step_size, self.args.data_seed)


class LengthGroupedBatches(torch.utils.data.Sampler[int]):
    """Rows of similar length in each batch, the batches in random order after the one with the longest row.

    transformers' own sampler leaves up to fifty batches in a row sorted by length, longest first, which makes the loss
    a saw-tooth. The order depends only on the seed and the epoch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        """Take a length for each row; a batch is what one optimizer step sees."""
        self.lengths, self.batch_size, self.seed, self.epoch = list(lengths), batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Give the number of rows."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """Give the rows' numbers."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        rows = get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        batches = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        # the first has the longest row, so that memory runs out soon or never; the last may be short, and stays last
        middle = batches[1:-1]
        order = torch.randperm(len(middle), generator=generator).tolist()
        for batch in [*batches[:1], *(middle[place] for place in order), *batches[1:][-1:]]:
            yield from batch


class SftTrainer(_Ours, SFTTrainer):  # type: ignore[misc]
    """TRL's SFTTrainer, which accepts ready `input_ids` and `labels`."""


class PairTrainer(_Ours, DPOTrainer):  # type: ignore[misc]
    """TRL's DPOTrainer, with our ids in place of its own encoding of text."""

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

"""TRL's SFT and DPO trainers, fed with token ids. The training loop and the losses are TRL's.

What is changed here makes a step train what the settings say: arguments, batches, the router loss, finite numbers.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import trl.trainer.utils
from datasets import Dataset
from transformers import PrinterCallback
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from .config import DpoConfig, LoraSettings, PreferenceLoss, SftConfig, TrainingRun
from .data import PairExample, SftExample, pack_lengths
from .formats.contract import ConfigError, WorkError
from .metrics import pair_log_probs, require_finite

__all__ = ["LengthGroupedBatches", "RouterLoss", "dpo_trainer", "score_trained_positions_only", "sft_trainer"]

# ---- the two trainers of train.py


def sft_trainer(
    config: SftConfig, device: str, directory: Path, model: Any, tokenizer: Any, examples: list[SftExample], length: int
) -> Any:
    """Build the trainer; `directory` gets its checkpoints, and a packed row has at most `length` tokens.

    Raises:
        ConfigError: `lora.target_modules` names a matrix that the model does not have.
    """
    score_trained_positions_only()
    packing = config.sequence.packing
    arguments = SFTConfig(
        **_trainer_arguments(config, device, directory),
        dataset_kwargs={"skip_prepare_dataset": True},
        padding_free=packing,
    )
    return _SftTrainer(
        model=model,
        args=arguments,
        examples=examples,
        train_dataset=_packed(examples, length) if packing else _unpacked(examples),
        processing_class=tokenizer,
        peft_config=_lora_config(config.lora, model),
    )


def dpo_trainer(
    config: DpoConfig, device: str, directory: Path, model: Any, tokenizer: Any, examples: list[PairExample]
) -> Any:
    """Build the trainer; `directory` gets its checkpoints.

    Raises:
        ConfigError: `lora.target_modules` names a matrix that the model does not have.
    """
    score_trained_positions_only()
    # with adapters, TRL switches them off to get the reference
    needs_copy = not config.loss.precompute_reference and not config.lora
    return _DpoTrainer(
        model=model,
        ref_model=copy.deepcopy(model) if needs_copy else None,
        args=DPOConfig(**_trainer_arguments(config, device, directory), **_loss_arguments(config.loss)),
        examples=examples,
        train_dataset=_pairs(examples),
        processing_class=tokenizer,
        peft_config=_lora_config(config.lora, model),
    )


def score_trained_positions_only() -> None:
    """Make TRL project only the trained positions onto the vocabulary, on a CPU too.

    TRL projects all of them on devices without Triton, because some of these would recompile for each batch. A CPU
    does not compile, and the projection is most of a small model's work.

    Raises:
        WorkError: TRL no longer has the private function that decides it.
    """
    name = "_use_triton"
    if not hasattr(trl.trainer.utils, name):
        raise WorkError(
            f"trl {trl.__version__}: trl.trainer.utils.{name} not found; expected it, as in trl 1.16",
            hint="pip install trl==1.16.0",
        )
    setattr(trl.trainer.utils, name, lambda device: device.type in {"cpu", "cuda", "xpu"})


# ---- settings to TRL's arguments

# TRL's and transformers' defaults under which a run would not train what the settings say
_FIXED: dict[str, Any] = {
    "report_to": "none",
    "disable_tqdm": True,
    "logging_first_step": True,
    "logging_nan_inf_filter": False,  # it would show the last finite loss instead of nan
    "dataloader_pin_memory": False,
    "remove_unused_columns": False,  # batching by length needs the length
    "max_length": None,  # rows come with their final length
    "optim": "adamw_torch_fused",
    "save_total_limit": 1,
    "router_aux_loss_coef": 0.0,  # TRL's depends on the micro-batches; ours is RouterLoss
}


def _trainer_arguments(config: TrainingRun, device: str, directory: Path) -> dict[str, Any]:
    """Return the keyword arguments that SFTConfig and DPOConfig share."""
    training, optimizer, runtime = config.training, config.optimizer, config.runtime
    return _FIXED | {
        "output_dir": str(directory),
        "seed": config.seed,
        "data_seed": config.seed,
        "learning_rate": optimizer.learning_rate,
        "lr_scheduler_type": optimizer.schedule if optimizer.schedule != "constant" else "constant_with_warmup",
        "warmup_steps": optimizer.warmup_fraction,  # below 1: a share of the steps
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "adam_epsilon": optimizer.epsilon,
        "max_grad_norm": optimizer.max_grad_norm,
        "num_train_epochs": training.num_epochs,
        "max_steps": training.max_steps or -1,
        "per_device_train_batch_size": training.micro_batch_sequences,
        "per_device_eval_batch_size": training.eval_batch_sequences,
        "gradient_accumulation_steps": training.batch_sequences // training.micro_batch_sequences,
        "train_sampling_strategy": "group_by_length" if training.group_by_length else "random",
        "logging_steps": training.log_every_steps,
        "save_strategy": "steps" if training.save_every_steps else "no",
        "save_steps": training.save_every_steps or 500,
        "use_cpu": device == "cpu",
        "bf16": runtime.dtype == "bfloat16",
        "gradient_checkpointing": runtime.activation_checkpointing,
        # a packed row has no attention mask and no padding
        "include_num_input_tokens_seen": "all" if config.sequence.packing else "non_padding",
    }


def _loss_arguments(loss: PreferenceLoss) -> dict[str, Any]:
    """Return DPOConfig's keyword arguments for a loss.

    TRL 1.16 has no conservative DPO (label smoothing e: (1 − e)·L(x) + e·L(−x) with L(x) = −ln σ(x)), but it has
    sigmoid = L(x) and robust = ((1 − e)·L(x) − e·L(−x)) / (1 − 2e). Conservative DPO is
    (2 − 2e)·sigmoid − (1 − 2e)·robust.
    """
    arguments: dict[str, Any] = {
        "beta": loss.beta,
        "loss_type": [loss.kind],
        "precompute_ref_log_probs": loss.precompute_reference,
    }
    if loss.label_smoothing:
        smoothing = loss.label_smoothing
        arguments["loss_type"] = ["sigmoid", "robust"]
        arguments["loss_weights"] = [2 - 2 * smoothing, -(1 - 2 * smoothing)]
        arguments["label_smoothing"] = smoothing
    return arguments


def _lora_config(settings: LoraSettings | None, model: Any) -> Any:
    if settings is None:
        return None
    from peft import LoraConfig

    if settings.target_modules is not None:
        _check_names(settings.target_modules, model)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear" if settings.target_modules is None else list(settings.target_modules),
    )


def _check_names(wanted: list[str], model: Any) -> None:
    import torch
    from transformers.pytorch_utils import Conv1D

    kinds = (torch.nn.Linear, torch.nn.Embedding, Conv1D)
    names = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    unknown = [one for one in wanted if not any(name == one or name.endswith("." + one) for name in names)]
    if unknown:
        known = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in names))
        raise ConfigError(
            f"lora.target_modules: the model has no {', '.join(unknown)}; expected some of {known}",
            hint="use null for all linear layers",
        )


# ---- what both trainers change


class _TrainerChanges:
    """No telemetry, no model cards, checks of finite numbers, batches by length.

    The loss and the gradients of a step are those of its whole batch, router loss included, whatever its micro-batches.
    """

    args: Any
    model: Any
    state: Any
    train_dataset: Any
    loss_is_scaled_for_ga: bool

    def __init__(self, *args: Any, model: Any, examples: list[Any], **keywords: Any) -> None:
        """Build TRL's trainer without its printing; `examples` are the training rows, in order."""
        self._examples = examples
        self._router = RouterLoss(model)
        self._router_sum, self._steps = 0.0, 0
        self._rows_in_batch = self._parts_in_batch = 1
        super().__init__(*args, model=model, **keywords)  # type: ignore[call-arg]
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]

    def _send_telemetry(self) -> None:
        """Send nothing."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no model card."""

    def get_batch_samples(self, *args: Any, **keywords: Any) -> Any:
        """Fetch the micro-batches of a step, and count what needs all of them."""
        batches, items = super().get_batch_samples(*args, **keywords)  # type: ignore[misc]
        self._steps += 1
        self._rows_in_batch = sum(len(batch["input_ids"]) for batch in batches)
        self._parts_in_batch = max(len(batches), 1)
        if self._router.coefficient and batches:
            self._router.begin_batch(self.model, batches, self.args.device)
        return batches, items

    def compute_loss(self, model: Any, inputs: Mapping[str, Any], **keywords: Any) -> Any:
        """Return a micro-batch's share of the batch's loss, with its part of the router loss."""
        watching = self._router.coefficient and self.model.training
        if watching:
            self._router.watch()
        loss = super().compute_loss(model, inputs, **keywords)  # type: ignore[misc]
        parts = 1
        if self.loss_is_scaled_for_ga is False:
            # TRL averages over a micro-batch, and transformers over micro-batches: the rows of a short last one would
            # weigh more than the others
            parts = self._parts_in_batch
            loss = loss * (len(inputs["input_ids"]) * parts / self._rows_in_batch)
        if watching:
            part = self._router.part(inputs)
            self._router_sum += float(part.detach())
            loss = loss + part * parts
        return loss

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **keywords: Any) -> Any:
        """Run a micro-batch. Raises WorkError, naming the rows, if its loss is not finite."""
        loss = super().training_step(model, inputs, *args, **keywords)  # type: ignore[misc]
        if not math.isfinite(float(loss)):
            require_finite(self.state.global_step + 1, "the loss", float(loss), self._name_rows(inputs))
        return loss

    def _get_grad_norm(self, *args: Any, **keywords: Any) -> Any:
        norm = super()._get_grad_norm(*args, **keywords)  # type: ignore[misc]
        require_finite(self.state.global_step + 1, "the gradient's norm", float(norm))
        return norm

    def _name_rows(self, inputs: Mapping[str, Any]) -> str:
        texts = ["," + ",".join(map(str, row)) + "," for row in inputs["input_ids"].tolist()]
        found = [
            example.place
            for example in self._examples
            for ids in [getattr(example, "input_ids", None) or example.prompt_ids + example.chosen_ids]
            if any("," + ",".join(map(str, ids)) + "," in text for text in texts)
        ]
        return "rows " + ", ".join(dict.fromkeys(found)) if found else "rows unknown"

    def log(self, logs: dict[str, float], *args: Any, **keywords: Any) -> None:
        """Log the language model's loss and the router loss separately."""
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


class _SftTrainer(_TrainerChanges, SFTTrainer):  # type: ignore[misc]
    """TRL's SFTTrainer, which accepts ready `input_ids` and `labels`."""


class _DpoTrainer(_TrainerChanges, DPOTrainer):  # type: ignore[misc]
    """TRL's DPOTrainer, with our ids in place of its own encoding of text."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        # before the first step, the model in training is the reference
        chosen, rejected = pair_log_probs(self, self._examples)
        dataset = dataset.add_column("ref_chosen_logps", chosen.tolist())
        return dataset.add_column("ref_rejected_logps", rejected.tolist())


# ---- examples as TRL's data sets


def _unpacked(examples: list[SftExample]) -> Dataset:
    return Dataset.from_dict(
        {"input_ids": [row.input_ids for row in examples], "labels": [row.labels for row in examples]}
    )


def _packed(examples: list[SftExample], capacity: int) -> Dataset:
    """Lay several conversations into each row of up to `capacity` tokens; `seq_lengths` separates them."""
    bins = pack_lengths([len(row.input_ids) for row in examples], capacity)
    return Dataset.from_dict(
        {
            "input_ids": [[token for index in bin_ for token in examples[index].input_ids] for bin_ in bins],
            "labels": [[label for index in bin_ for label in examples[index].labels] for bin_ in bins],
            "seq_lengths": [[len(examples[index].input_ids) for index in bin_] for bin_ in bins],
        }
    )


def _pairs(examples: list[PairExample]) -> Dataset:
    lengths = [len(row.prompt_ids) + max(len(row.chosen_ids), len(row.rejected_ids)) for row in examples]
    return Dataset.from_dict(
        {
            "prompt_ids": [row.prompt_ids for row in examples],
            "chosen_ids": [row.chosen_ids for row in examples],
            "rejected_ids": [row.rejected_ids for row in examples],
            "length": lengths,
        }
    )


# ---- batches by length


class LengthGroupedBatches(torch.utils.data.Sampler[int]):
    """Rows of similar length in each batch; the batch with the longest row comes first, the others in random order.

    transformers' own sampler leaves up to fifty consecutive batches sorted by length, longest first, which makes the
    loss a sawtooth. The order depends only on the seed and the epoch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        """Use `lengths`, one per row; a batch is what one optimizer step sees."""
        self.lengths, self.batch_size, self.seed, self.epoch = list(lengths), batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of the rows."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        rows = get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        batches = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        # the first has the longest row, so that memory runs out soon or never; the last may be short, and stays last
        middle = batches[1:-1]
        order = torch.randperm(len(middle), generator=generator).tolist()
        for batch in [*batches[:1], *(middle[index] for index in order), *batches[1:][-1:]]:
            yield from batch


# ---- the router loss of a mixture of experts
#
# It balances the experts: E · Σ_e f_e · P_e with the share f_e of routed tokens and the mean probability P_e of each
# expert over all layers and tokens (Fedus et al. 2021, arXiv:2101.03961, equations 4 to 6). This is not a sum over
# tokens, so the mean over micro-batches is a different number. Therefore the shares, which carry no gradient, are
# counted over the whole batch first; then each micro-batch adds its part of the probabilities, and the parts sum to the
# loss of the batch.

_NOT_FOR_THE_MODEL = ("labels", "completion_mask", "ref_chosen_logps", "ref_rejected_logps")


class RouterLoss:
    """Records the outputs of a model's routers; `coefficient` is 0 without routers, or if this loss is off.

    The configuration's `output_router_logits` switches it on; `router_aux_loss_coef` is its weight.
    """

    def __init__(self, model: Any) -> None:
        """Read the configuration and hook the routers."""
        config = model.config.get_text_config()
        wanted = getattr(config, "output_router_logits", False)
        self.coefficient = float(getattr(config, "router_aux_loss_coef", 0.0) or 0.0) if wanted else 0.0
        self._top_k = int(getattr(config, "num_experts_per_tok", 0) or 0)
        self._seen: list[torch.Tensor] | None = None
        self._shares = torch.zeros(0)
        self._rows = 0.0
        if self.coefficient:
            self._hook(model)

    def _hook(self, model: Any) -> None:
        recorders = [
            recorder
            for module in model.modules()
            for name, recorder in (getattr(module, "_can_record_outputs", None) or {}).items()
            if name == "router_logits"
        ]
        found = set()
        for recorder in recorders:
            kind, index = getattr(recorder, "target_class", recorder), getattr(recorder, "index", 0)
            for module in model.modules():
                if isinstance(module, kind) and module not in found:
                    found.add(module)
                    module.register_forward_hook(self._keep(index))
        if not found:
            self.coefficient = 0.0

    def _keep(self, index: int) -> Any:
        def keep(module: Any, inputs: Any, output: Any) -> None:
            if self._seen is not None:
                self._seen.append(output if isinstance(output, torch.Tensor) else output[index])

        return keep

    def begin_batch(self, model: Any, batches: Sequence[Mapping[str, Any]], device: torch.device) -> None:
        """Count each expert's share of the tokens over the micro-batches of a step."""
        was_training = model.training
        model.eval()  # no dropout: the shares should not depend on a draw
        counts: torch.Tensor | float = 0.0
        rows = 0.0
        for batch in batches:
            inputs = {
                name: value.to(device) if isinstance(value, torch.Tensor) else value
                for name, value in batch.items()
                if name not in _NOT_FOR_THE_MODEL
            }
            self._seen = []
            with torch.no_grad():
                model(**inputs, use_cache=False, logits_to_keep=1)
            for probabilities, mask in self._probabilities(inputs):
                chosen = probabilities.topk(self._top_k, dim=-1).indices
                routed = torch.zeros_like(probabilities).scatter_(1, chosen, 1.0)
                counts = counts + (routed * mask).sum(dim=0)
                rows += float(mask.sum())
        model.train(was_training)
        self._shares, self._rows = counts / rows, rows  # type: ignore[assignment]

    def watch(self) -> None:
        """Record the routers during the next forward pass."""
        self._seen = []

    def part(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Return the micro-batch's part of the weighted loss, with its gradient."""
        total: torch.Tensor | float = 0.0
        for probabilities, mask in self._probabilities(inputs):
            total = total + (probabilities * mask).sum(dim=0)
        part = self._shares.numel() * (self._shares * total / self._rows).sum()
        return self.coefficient * part

    def _probabilities(self, inputs: Mapping[str, Any]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        # shapes (tokens, experts) and (tokens, 1), one pair per layer
        seen, self._seen = self._seen or [], None
        attended = inputs.get("attention_mask")
        result = []
        for logits in seen:
            flat = logits.reshape(-1, logits.shape[-1]).float()
            mask = torch.ones(len(flat), 1, device=flat.device)
            if attended is not None:
                mask = attended.reshape(-1, 1).to(mask)
            result.append((flat.softmax(dim=-1), mask))
        return result

"""TRL's SFT and DPO trainers, fed with token ids. The training loop is TRL's.

What is changed here makes a step train what the settings say, in any number of micro-batches and processes: arguments,
batches, the weights of rows and tokens, the router loss, finite numbers.
"""

import copy
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import trl.trainer.utils
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from datasets import Dataset
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import AutoModelForCausalLM, PrinterCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from .chat.encode import IGNORED
from .config import DpoConfig, LoraSettings, PreferenceLoss, SftConfig, TrainingRun
from .data import PairExample, SftExample, pack_lengths
from .formats.contract import ConfigError, WorkError
from .losses import pair_losses, pair_rewards, token_weights
from .metrics import pair_log_probs, require_finite
from .model.rows import ROWS, train_rows
from .order import RowOrder
from .processes import count_processes, is_first

__all__ = ["RouterLoss", "dpo_trainer", "lora_config", "score_trained_positions_only", "sft_trainer"]

# ---- the two trainers of train.py


def sft_trainer(
    config: SftConfig,
    device: str,
    directory: Path,
    model: Any,
    tokenizer: Any,
    examples: list[SftExample],
    length: int,
    new_tokens: Sequence[int] = (),
) -> Any:
    """Build the trainer; `directory` gets its checkpoints, and a packed row has at most `length` tokens.

    With adapters, the rows `new_tokens` of the embedding and of the output matrix are trained too.

    Raises:
        ConfigError: `lora.target_modules` names a matrix that the model does not have.
    """
    score_trained_positions_only()
    packing = config.sequence.packing
    arguments = SFTConfig(
        **_trainer_arguments(config, device, directory),
        dataset_kwargs={"skip_prepare_dataset": True},
        padding_free=packing,
        neftune_noise_alpha=config.training.neftune_alpha,
    )
    trainer = _SftTrainer(
        model=model,
        args=arguments,
        examples=examples,
        reduction=config.loss_reduction,
        train_dataset=_packed(examples, length) if packing else _unpacked(examples),
        processing_class=tokenizer,
        peft_config=lora_config(config.lora, model),
    )
    if config.lora and new_tokens:
        train_rows(trainer.model, new_tokens)
    return trainer


def dpo_trainer(
    config: DpoConfig, device: str, directory: Path, model: Any, tokenizer: Any, examples: list[PairExample]
) -> Any:
    """Build the trainer; `directory` gets its checkpoints.

    Raises:
        ConfigError: `lora.target_modules` names a matrix that the model does not have.
    """
    score_trained_positions_only()
    # with adapters, the reference is the model without them
    needs_copy = config.loss.needs_reference and not config.loss.precompute_reference and not config.lora
    return _DpoTrainer(
        model=model,
        ref_model=copy.deepcopy(model) if needs_copy else None,
        args=DPOConfig(
            **_trainer_arguments(config, device, directory),
            # without a reference, TRL would load one; then there is nothing to score in advance
            precompute_ref_log_probs=config.loss.precompute_reference or not config.loss.needs_reference,
        ),
        examples=examples,
        loss=config.loss,
        train_dataset=_pairs(examples),
        processing_class=tokenizer,
        peft_config=lora_config(config.lora, model),
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
        "report_to": config.training.report_to or "none",
        "run_name": Path(config.output_dir).name,
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
        "gradient_accumulation_steps": training.batch_sequences // (training.micro_batch_sequences * count_processes()),
        "ddp_find_unused_parameters": False,
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


def lora_config(settings: LoraSettings | None, model: Any) -> Any:
    """Return peft's configuration; None without `settings`."""
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
    accelerator: Any
    is_fsdp_enabled: bool
    is_deepspeed_enabled: bool
    model_wrapped: Any
    _metrics: Any

    def __init__(self, *args: Any, model: Any, examples: list[Any], **keywords: Any) -> None:
        """Build TRL's trainer without its printing; `examples` are the training rows, in order."""
        self._examples = examples
        self._router = RouterLoss(model)
        self._router_sum, self._steps = 0.0, 0
        self._rows_in_batch = self._parts_in_batch = 1.0
        super().__init__(*args, model=model, **keywords)  # type: ignore[call-arg]
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]

    def create_accelerator_and_postprocess(self) -> None:
        """Build accelerate's part; FSDP also on CPUs, where accelerate ignores the request silently."""
        super().create_accelerator_and_postprocess()  # type: ignore[misc]
        wanted = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
        if wanted and not self.is_fsdp_enabled and count_processes() > 1:
            shared = AcceleratorState._shared_state
            shared["distributed_type"] = DistributedType.FSDP
            shared["fsdp_plugin"] = FullyShardedDataParallelPlugin()
            self.is_fsdp_enabled = True

    def whole_model(self) -> Any:
        """Return the trained model; if it is sharded, gather its weights in the first process (None in the others)."""
        if self.is_fsdp_enabled:
            options = StateDictOptions(full_state_dict=True, cpu_offload=True)
            state = get_model_state_dict(self.model, options=options)
        elif self.is_deepspeed_enabled:
            state = self.accelerator.get_state_dict(self.model_wrapped)
        else:
            return self.model
        if not is_first():
            return None
        whole = AutoModelForCausalLM.from_config(self.model.config)
        if hasattr(self.model, "peft_config"):
            from peft import get_peft_model

            whole = get_peft_model(whole, self.model.peft_config["default"])
        whole.load_state_dict(state)
        return whole

    def _send_telemetry(self) -> None:
        """Send nothing."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no model card."""

    def get_batch_samples(self, *args: Any, **keywords: Any) -> Any:
        """Fetch the micro-batches of a step, and count what needs all of them."""
        batches, items = super().get_batch_samples(*args, **keywords)  # type: ignore[misc]
        self._steps += 1
        self._parts_in_batch = max(len(batches), 1)
        self._rows_in_batch = self._sum(float(sum(self._count_rows(batch) for batch in batches)))
        if self._router.coefficient and batches:
            self._router.begin_batch(self.model, batches, self.args.device)
        return batches, items

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Name the parameters that decay: not an embedding of which only some rows are trained."""
        names: list[str] = super().get_decay_parameter_names(model)  # type: ignore[misc]
        kept = {name for name, parameter in model.named_parameters() if hasattr(parameter, ROWS)}
        return [name for name in names if name not in kept]

    def _sum(self, value: float) -> float:
        """Add up a number over the processes."""
        if count_processes() == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.args.device)
        return float(self.accelerator.reduce(total, reduction="sum"))

    def _count_rows(self, batch: Mapping[str, Any]) -> int:
        """Count the rows of a micro-batch that weigh the same, without the empty rows that fill up the last one."""
        return len(batch["input_ids"])

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return a micro-batch's share of the batch's loss, with its part of the router loss.

        TRL averages over a micro-batch, and transformers over micro-batches: the rows of a short last one would weigh
        more than the others.
        """
        self._watch_routers()
        loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)  # type: ignore[misc]
        loss = loss * (self._count_rows(inputs) * self._parts_in_batch / self._rows_in_batch)
        return self._with_router_loss(loss, inputs, self._parts_in_batch)

    def _with_router_loss(self, loss: Any, inputs: Mapping[str, Any], scale: float) -> Any:
        """Add the router loss of the forward pass that `loss` comes from."""
        if not (self._router.coefficient and self.model.training):
            return loss
        part = self._router.part(inputs)
        self._router_sum += float(part.detach())
        return loss + part * scale

    def _watch_routers(self) -> None:
        if self._router.coefficient and self.model.training:
            self._router.watch()

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
            router = self._sum(self._router_sum) / max(self._steps, 1)
            logs = {**logs, "loss": logs["loss"] - router, "router_loss": router / self._router.coefficient}
        if "loss" in logs:
            self._router_sum, self._steps = 0.0, 0
        super().log(logs, *args, **keywords)  # type: ignore[misc]

    def _get_train_sampler(self, train_dataset: Any = None) -> RowOrder:
        rows = self.train_dataset if train_dataset is None else train_dataset
        name = self.args.length_column_name
        lengths = list(rows[name]) if name in rows.column_names else [len(ids) for ids in rows["input_ids"]]
        if count_processes() > 1:
            del lengths[-1]  # the empty row
        at_once = self.args.train_batch_size * count_processes()
        by_length = self.args.train_sampling_strategy == "group_by_length"
        return RowOrder(
            lengths,
            self.args.data_seed,
            batch_size=at_once * self.args.gradient_accumulation_steps if by_length else None,
            multiple_of=at_once if count_processes() > 1 else 1,
        )


class _SftTrainer(_TrainerChanges, SFTTrainer):  # type: ignore[misc]
    """TRL's SFTTrainer, which accepts ready `input_ids` and `labels`, with a choice of what weighs the same."""

    def __init__(self, *args: Any, reduction: str, **keywords: Any) -> None:
        self._reduction = reduction
        super().__init__(*args, **keywords)

    def _count_rows(self, batch: Mapping[str, Any]) -> int:
        return int(token_weights(batch["labels"], _starts(batch))[1])

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return a micro-batch's share of the batch's loss, with its part of the router loss."""
        self._watch_routers()
        if self._reduction == "token":
            loss = SFTTrainer.compute_loss(self, model, inputs, num_items_in_batch=num_items_in_batch)
        elif self._reduction == "sum":  # TRL divides the sum over tokens by this number
            loss = SFTTrainer.compute_loss(self, model, inputs, num_items_in_batch=self._rows_in_batch)
        else:
            outputs = model(**inputs, use_cache=False, fused_lm_head=True)
            weights, _ = token_weights(inputs["labels"], _starts(inputs))
            loss = -(outputs.log_probs * weights).sum() / self._rows_in_batch * count_processes()
            trained = outputs.label_mask.sum().clamp(min=1)
            self._metrics["train"]["entropy"].append(float(outputs.entropy.detach().sum() / trained))
            self._metrics["train"]["mean_token_accuracy"].append(float(outputs.is_top1.sum() / trained))
        return self._with_router_loss(loss, inputs, count_processes())


def _starts(batch: Mapping[str, Any]) -> torch.Tensor | None:
    """Return where conversations begin in a packed row; None for padded rows."""
    return None if "attention_mask" in batch else batch["position_ids"] == 0


class _DpoTrainer(_TrainerChanges, DPOTrainer):  # type: ignore[misc]
    """TRL's DPOTrainer with our ids in place of its own encoding of text, and our losses.

    Each pair is divided by the number of pairs of the batch.
    """

    def __init__(self, *args: Any, loss: PreferenceLoss, **keywords: Any) -> None:
        self._loss = loss
        super().__init__(*args, **keywords)

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        # before the first step, the model in training is the reference
        count = len(dataset)
        chosen, rejected = [0.0] * count, [0.0] * count
        if self._loss.needs_reference:
            scored = [tensor.tolist() for tensor in pair_log_probs(self, self._examples)]
            chosen[: len(scored[0])], rejected[: len(scored[1])] = scored
        dataset = dataset.add_column("ref_chosen_logps", chosen)
        return dataset.add_column("ref_rejected_logps", rejected)

    def _count_rows(self, batch: Mapping[str, Any]) -> int:
        return int(batch["completion_mask"].chunk(2)[0].any(dim=1).sum())

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return a micro-batch's share of the batch's loss, with its part of the router loss."""
        self._watch_routers()
        mask = inputs["completion_mask"]
        outputs = self._forward(model, inputs)
        policy = outputs.log_probs.sum(dim=1).chunk(2)  # (pairs,) of the chosen, and of the rejected
        lengths = mask.sum(dim=1).chunk(2)
        real = (lengths[0] > 0).to(policy[0])
        scale = self._parts_in_batch * count_processes()  # undoes the means over micro-batches and processes
        reference = self._reference(model, inputs)
        gains = policy[0] - reference[0], policy[1] - reference[1]
        losses = pair_losses(self._loss, gains, lengths)
        self._keep_metrics(outputs, mask, policy, pair_rewards(self._loss, gains, lengths), real)
        loss = torch.where(real > 0, losses, torch.zeros_like(losses)).sum() / self._rows_in_batch * scale
        return self._with_router_loss(loss, inputs, scale)

    def _forward(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, IGNORED)
        known = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        return model(**known, labels=labels, use_cache=False, fused_lm_head=True)

    def _reference(self, model: Any, inputs: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        if self.precompute_ref_logps:
            return inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        with torch.no_grad():
            if self.ref_model is None:
                with self.accelerator.unwrap_model(model).disable_adapter():
                    outputs = self._forward(model, inputs)
            else:
                outputs = self._forward(self.ref_model, inputs)
        chosen, rejected = outputs.log_probs.sum(dim=1).chunk(2)
        return chosen, rejected

    def _keep_metrics(self, outputs: Any, mask: Any, policy: Any, rewards: Any, real: torch.Tensor) -> None:
        """Record this part's share of the batch's means; TRL averages what is recorded since the last log."""
        with torch.no_grad():
            chosen, rejected = rewards
            pairs = {
                "rewards/chosen": chosen,
                "rewards/rejected": rejected,
                "rewards/margins": chosen - rejected,
                "rewards/accuracies": (chosen > rejected).to(real),
                "logps/chosen": policy[0],
                "logps/rejected": policy[1],
            }
            trained = mask[:, 1:].chunk(2)[0]
            sums = [
                *((value * real).sum() for value in pairs.values()),
                outputs.entropy.sum(),
                mask[:, 1:].sum(),
                (outputs.is_top1.chunk(2)[0] * trained).sum(),
                trained.sum(),
            ]
            totals = self.accelerator.reduce(torch.stack([value.double() for value in sums]), reduction="sum").tolist()
        record = self._metrics["train"]
        for name, total in zip(pairs, totals, strict=False):
            record[name].append(total * self._parts_in_batch / self._rows_in_batch)
        entropy, tokens, right, chosen_tokens = totals[len(pairs) :]
        record["entropy"].append(entropy / max(tokens, 1))
        record["mean_token_accuracy"].append(right / max(chosen_tokens, 1))


# ---- examples as TRL's data sets


# Several processes need a row without anything to train (RowOrder says why); it is the last one


def _unpacked(examples: list[SftExample]) -> Dataset:
    return Dataset.from_dict(
        {
            "input_ids": [row.input_ids for row in examples] + _empty([0, 0]),
            "labels": [row.labels for row in examples] + _empty([IGNORED, IGNORED]),
        }
    )


def _empty(value: Any) -> list[Any]:
    return [value] if count_processes() > 1 else []


def _packed(examples: list[SftExample], capacity: int) -> Dataset:
    """Lay several conversations into each row of up to `capacity` tokens; `seq_lengths` separates them."""
    bins = pack_lengths([len(row.input_ids) for row in examples], capacity)
    return Dataset.from_dict(
        {
            "input_ids": [[token for index in bin_ for token in examples[index].input_ids] for bin_ in bins]
            + _empty([0, 0]),
            "labels": [[label for index in bin_ for label in examples[index].labels] for bin_ in bins]
            + _empty([IGNORED, IGNORED]),
            "seq_lengths": [[len(examples[index].input_ids) for index in bin_] for bin_ in bins] + _empty([2]),
        }
    )


def _pairs(examples: list[PairExample]) -> Dataset:
    lengths = [len(row.prompt_ids) + max(len(row.chosen_ids), len(row.rejected_ids)) for row in examples]
    return Dataset.from_dict(
        {
            "prompt_ids": [row.prompt_ids for row in examples] + _empty([0, 0]),
            "chosen_ids": [row.chosen_ids for row in examples] + _empty([]),
            "rejected_ids": [row.rejected_ids for row in examples] + _empty([]),
            "length": lengths + _empty(1),
        }
    )


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
        if count_processes() > 1:
            both = torch.cat([counts, torch.tensor([rows], device=device)])  # type: ignore[list-item]
            torch.distributed.all_reduce(both)
            counts, rows = both[:-1], float(both[-1])
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

"""Train one of our runs with plain transformers.Trainer: the same initial weights, windows, order and rates.

Some of Trainer's settings have another meaning, or another default, than ours:

- Its warmup of n steps has the rate 0 in step 1 and the peak in step n + 1; ours has 1/n of the peak in step 1. Here it
  gets the rate of each step from our schedule.
- Its embedding decays and its norms do not. Ours does the same with `optimizer.decay_embeddings: true`, which is
  required.
- Its betas are (0.9, 0.999), its weight decay is 0 and its windows are shuffled. Here it gets our numbers, and reads in
  sequence.
- Older versions divide the loss by all tokens of a batch, including the first of each window, which nothing predicts.
  The label of that token is -100 here, so that every version divides by the same count.
- It balances the load of experts over all layers together, and only with `output_router_logits`; ours is balanced over
  each layer. Equal runs need `router_aux_loss_coef` and `router_z_loss_coef` 0, which is required.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from olmo_trainer.config.schema import RunConfig
from olmo_trainer.data.order import BatchSchedule
from olmo_trainer.data.sources import open_training_data
from olmo_trainer.model.architecture import architecture_of
from olmo_trainer.optim import rate_of_step
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

__all__ = ["train_with_transformers"]

IGNORED = -100


class _Clock(TrainerCallback):  # type: ignore[misc]
    """When each step ended, in seconds."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        self.ends.append(time.perf_counter())


def train_with_transformers(config: RunConfig, initial: Path, output: Path) -> list[dict[str, float]]:
    """Train the checkpoint `initial`, which `olmo init` writes for `config`, and write the result to `output`.

    Returns a row a step: `loss` (nats per token), `grad_norm` (before clipping) and `seconds` (from the second on).
    """
    optimizer, train = config.optimizer, config.train
    assert train.steps is not None
    assert train.num_threads is not None
    assert optimizer.kind == "adamw"
    assert not optimizer.groups
    assert optimizer.decay_embeddings
    data = open_training_data(config)
    routing = architecture_of(config.model, data.vocab_size).routing
    assert routing is None or routing.balance_weight == 0 == routing.z_weight
    torch.set_num_threads(train.num_threads)
    batches = BatchSchedule(train, config.data.sequence_length)
    rates = [rate_of_step(step, config, batches) for step in range(1, train.steps + 1)]
    windows = data.read(range(train.steps * train.batch_windows))
    labels = (
        windows.tokens_BT
        if windows.loss_mask_BT is None
        else np.where(windows.loss_mask_BT, windows.tokens_BT, IGNORED)
    )
    labels = np.concatenate((np.full_like(labels[:, :1], IGNORED), labels[:, 1:]), axis=1)
    rows = [{"input_ids": ids, "labels": wanted} for ids, wanted in zip(windows.tokens_BT, labels, strict=True)]
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=train.steps,
        per_device_train_batch_size=train.batch_windows,
        train_sampling_strategy="sequential",
        optim="adamw_torch",
        learning_rate=optimizer.learning_rate,
        adam_beta1=optimizer.betas[0],
        adam_beta2=optimizer.betas[1],
        adam_epsilon=optimizer.eps,
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.max_grad_norm or 0.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    clock = _Clock()
    trainer = Trainer(
        model=AutoModelForCausalLM.from_pretrained(initial, dtype=torch.float32),
        args=arguments,
        train_dataset=rows,
        callbacks=[clock],
    )
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
        trainer.create_optimizer(), lambda step: rates[min(step, len(rates) - 1)] / optimizer.learning_rate
    )
    trainer.train()
    trainer.save_model(str(output))
    found = [row for row in trainer.state.log_history if "loss" in row]
    spent = np.diff(clock.ends, prepend=clock.ends[0])
    return [
        {"loss": row["loss"], "grad_norm": float(row["grad_norm"]), "seconds": float(seconds)}
        for row, seconds in zip(found, spent, strict=True)
    ]

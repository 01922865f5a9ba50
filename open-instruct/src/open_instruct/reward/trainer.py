"""TRL's RewardTrainer, fed with token ids, and the scores of held-out pairs."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import RewardConfig as Arguments
from trl import RewardTrainer

from ..data import PairExample
from ..formats.contract import WorkError
from ..trainers import _trainer_arguments, _TrainerChanges, lora_config
from .calibration import calibrate
from .config import RewardConfig
from .model import score_ids

__all__ = ["pair_margins", "reward_trainer", "score_held_out"]


class _RewardTrainer(_TrainerChanges, RewardTrainer):  # type: ignore[misc]
    """TRL's RewardTrainer, which accepts ready `chosen_ids` and `rejected_ids`."""


def reward_trainer(
    config: RewardConfig,
    device: str,
    directory: Path,
    model: Any,
    tokenizer: Any,
    examples: list[PairExample],
    margins: Sequence[float] | None,
) -> Any:
    """Build the trainer; `directory` gets its checkpoints, `margins` are those of the examples.

    Raises:
        ConfigError: `lora.target_modules` names a matrix that the model does not have.
    """
    lora = lora_config(config.lora, model)
    if lora is not None:
        lora.task_type, lora.modules_to_save = "SEQ_CLS", ["score"]
    columns: dict[str, Any] = {
        "chosen_ids": [row.prompt_ids + row.chosen_ids for row in examples],
        "rejected_ids": [row.prompt_ids + row.rejected_ids for row in examples],
    }
    columns["length"] = [max(map(len, both)) for both in zip(*columns.values(), strict=True)]
    if margins is not None:
        columns["margin"] = list(margins)
    arguments = _trainer_arguments(config, device, directory)
    del arguments["router_aux_loss_coef"]  # TRL's RewardTrainer has no router loss
    arguments["center_rewards_coefficient"] = config.loss.center_coefficient or None
    return _RewardTrainer(
        model=model,
        args=Arguments(**arguments),
        examples=examples,
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
        peft_config=lora,
    )


def pair_margins(trainer: Any, examples: Sequence[PairExample]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rewards of the chosen and of the rejected answers: float64, each of shape (pairs,).

    Raises:
        WorkError: a reward is not finite.
    """
    rows = [row.prompt_ids + row.chosen_ids for row in examples]
    rows += [row.prompt_ids + row.rejected_ids for row in examples]
    size = trainer.args.per_device_eval_batch_size
    scores = score_ids(trainer.model, rows, size, trainer.accelerator.autocast)
    for index, score in enumerate(scores.tolist()):
        if not math.isfinite(score):
            raise WorkError(
                f"{examples[index % len(examples)].place}: the reward is {score}; expected a finite number",
                hint="the model overflows: use another checkpoint, or runtime.dtype=float32",
            )
    chosen, rejected = scores.chunk(2)
    return chosen, rejected


def score_held_out(trainer: Any, examples: Sequence[PairExample]) -> dict[str, float]:
    """Return the held-out loss without margins, the accuracy with its interval, and the calibration error."""
    chosen, rejected = pair_margins(trainer, examples)
    margins = chosen - rejected
    found = calibrate(margins.tolist())
    return {
        "eval/rows": len(examples),
        "eval/loss": -float(torch.nn.functional.logsigmoid(margins).mean()),
        "eval/accuracy": found.accuracy,
        "eval/accuracy_low": found.interval[0],
        "eval/accuracy_high": found.interval[1],
        "eval/calibration_error": found.expected_error,
        "eval/rewards/chosen": float(chosen.mean()),
        "eval/rewards/rejected": float(rejected.mean()),
        "eval/rewards/margins": float(margins.mean()),
    }

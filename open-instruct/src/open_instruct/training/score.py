"""Log-probabilities of given answers under a trainer's model, and what they mean for held-out rows.

Sums over tokens, divided once at the end: the averages of batches of unequal size are not the average.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from ..chat.encode import IGNORED
from ..data.tokenize import PairExample, SftExample
from ..errors import WorkError

__all__ = ["answer_log_probs", "pair_log_probs", "score_conversations", "score_pairs"]


def answer_log_probs(trainer: Any, rows: Sequence[tuple[list[int], list[int]]]) -> torch.Tensor:
    """Sum ln p over the labelled tokens of each row of (input_ids, labels): float64, shape (rows,), in the rows' order.

    Rows of similar length share a batch of `per_device_eval_batch_size`, whatever their order.
    """
    model, args = trainer.model, trainer.args
    size = args.per_device_eval_batch_size
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index][0]))
    sums = torch.zeros(len(rows), dtype=torch.float64)
    was_training = model.training
    model.eval()
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        width = len(rows[chosen[0]][0])
        # shapes (batch, time): right padding, which a causal model never looks at
        input_ids = torch.tensor([rows[index][0] + [0] * (width - len(rows[index][0])) for index in chosen])
        labels = torch.tensor([rows[index][1] + [IGNORED] * (width - len(rows[index][1])) for index in chosen])
        mask = torch.tensor([[1] * len(rows[index][0]) + [0] * (width - len(rows[index][0])) for index in chosen])
        batch = {"input_ids": input_ids, "labels": labels, "attention_mask": mask}
        batch = {name: tensor.to(args.device) for name, tensor in batch.items()}
        with torch.no_grad(), trainer.accelerator.autocast():
            output = model(**batch, fused_lm_head=True)
        sums[chosen] = output.log_probs.double().sum(dim=1).cpu()
    model.train(was_training)
    return sums


def score_conversations(trainer: Any, examples: Sequence[SftExample]) -> dict[str, float]:
    """Give the held-out loss in nats per assistant token and in bits per UTF-8 byte of assistant text."""
    sums = answer_log_probs(trainer, [(row.input_ids, row.labels) for row in examples])
    _check_finite(sums, [row.place for row in examples])
    nats = -float(sums.sum())
    tokens = sum(sum(label != IGNORED for label in row.labels[1:]) for row in examples)
    answer_bytes = sum(row.answer_bytes for row in examples)
    return {
        "eval/rows": len(examples),
        "eval/tokens": tokens,
        "eval/bytes": answer_bytes,
        "eval/loss": nats / tokens,
        "eval/bits_per_byte": nats / (answer_bytes * math.log(2)),
    }


def pair_log_probs(trainer: Any, examples: Sequence[PairExample]) -> tuple[torch.Tensor, torch.Tensor]:
    """Give ln p of the chosen and of the rejected answers: float64, each of shape (pairs,)."""
    rows = []
    for answers in ([row.chosen_ids for row in examples], [row.rejected_ids for row in examples]):
        for row, answer in zip(examples, answers, strict=True):
            rows.append((row.prompt_ids + answer, [IGNORED] * len(row.prompt_ids) + answer))
    chosen, rejected = answer_log_probs(trainer, rows).chunk(2) if rows else (torch.zeros(0), torch.zeros(0))
    _check_finite(chosen + rejected, [row.place for row in examples])
    return chosen, rejected


def _check_finite(sums: torch.Tensor, places: Sequence[str]) -> None:
    bad = [place for place, value in zip(places, sums.tolist(), strict=True) if not math.isfinite(value)]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise WorkError(
            f"{bad[0]}{more}: the log-probability of the answer is not finite; expected a number",
            "the model overflows: use another checkpoint, or runtime.precision=float32",
        )


def score_pairs(
    trainer: Any,
    examples: Sequence[PairExample],
    reference: tuple[torch.Tensor, torch.Tensor],
    *,
    kind: str,
    beta: float,
    label_smoothing: float,
) -> dict[str, float]:
    """Give the held-out loss, rewards and accuracies, by the definitions that training uses.

    `eval/rewards/accuracies` is the share of pairs whose chosen answer has the higher reward; a tie counts half,
    so a model that is its own reference has 0.5. `eval/logps/accuracies` compares plain log-probabilities.
    """
    chosen, rejected = pair_log_probs(trainer, examples)
    gains = [chosen - reference[0], rejected - reference[1]]
    rewards_chosen, rewards_rejected = (beta * gain for gain in gains)
    margins = rewards_chosen - rewards_rejected
    if kind == "sigmoid_norm":
        lengths = [[len(row.chosen_ids) for row in examples], [len(row.rejected_ids) for row in examples]]
        normed = [gain / torch.tensor(length) for gain, length in zip(gains, lengths, strict=True)]
        logits = beta * (normed[0] - normed[1])
    else:
        logits = margins
    log_sigmoid = torch.nn.functional.logsigmoid
    losses = -(1 - label_smoothing) * log_sigmoid(logits) - label_smoothing * log_sigmoid(-logits)
    return {
        "eval/rows": len(examples),
        "eval/loss": float(losses.mean()),
        "eval/rewards/accuracies": float(((margins > 0).double() + 0.5 * (margins == 0).double()).mean()),
        "eval/logps/accuracies": float((chosen > rejected).double().mean()),
        "eval/rewards/chosen": float(rewards_chosen.mean()),
        "eval/rewards/rejected": float(rewards_rejected.mean()),
        "eval/rewards/margins": float(margins.mean()),
    }

"""What is measured during training: scores of held-out rows, metrics.jsonl, and a progress line every ten seconds.

Scores are sums over tokens, divided once at the end: an average of batch averages depends on the batch size.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from .chat.encode import IGNORED
from .config import PreferenceLoss
from .data import PairExample, SftExample
from .formats.contract import WorkError
from .losses import pair_losses, pair_rewards
from .processes import count_processes, is_first

__all__ = [
    "MetricsCallback",
    "pair_log_probs",
    "require_finite",
    "score_conversations",
    "score_pairs",
]

log = logging.getLogger(__name__)
_LINE_EVERY_S = 10.0
# TRL's name -> ours; other metrics are not written
_NAMES = {
    "loss": "train/loss",
    "router_loss": "train/router_loss",
    "learning_rate": "train/lr",
    "grad_norm": "train/grad_norm",
    "epoch": "train/epoch",
    "entropy": "train/entropy",
    "mean_token_accuracy": "train/token_accuracy",
    "accuracy": "train/accuracy",
    "margin": "train/margin",
    "mean_reward": "train/mean_reward",
    "reward": "train/score",
    "reward_std": "train/score_std",
    "frac_reward_zero_std": "train/prompts_with_equal_scores",
    "kl": "train/kl",
    "completions/mean_length": "train/answer_tokens",
    "completions/clipped_ratio": "train/answers_cut",
} | {
    name: f"train/{name}"
    for name in (
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "rewards/accuracies",
        "logps/chosen",
        "logps/rejected",
    )
}
# counts of the held-out rows, the same in every evaluation
_COUNTS = {"eval/rows", "eval/tokens", "eval/bytes"}

# ---- scores of held-out rows


def _answer_log_probs(trainer: Any, rows: Sequence[tuple[list[int], list[int]]]) -> torch.Tensor:
    """Return the sum of ln p over the labelled tokens of each row of (input_ids, labels): float64, shape (rows,).

    Rows of similar length share a batch of `per_device_eval_batch_size`, and processes share the batches; the result is
    in the order of `rows`.
    """
    model, args = trainer.model, trainer.args
    size = args.per_device_eval_batch_size
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index][0]))
    sums = torch.zeros(len(rows), dtype=torch.float64)
    was_training = model.training
    model.eval()
    processes, starts = count_processes(), range(0, len(order), size)
    rounds = -(-len(starts) // processes)  # each process runs the model as often as the others, which may wait for it
    for number in range(trainer.args.process_index, rounds * processes, processes):
        start = starts[min(number, len(starts) - 1)]
        chosen = order[start : start + size]
        width = len(rows[chosen[0]][0])
        # shapes (batch, time): right padding, which a causal model never looks at
        input_ids = torch.tensor([rows[index][0] + [0] * (width - len(rows[index][0])) for index in chosen])
        labels = torch.tensor([rows[index][1] + [IGNORED] * (width - len(rows[index][1])) for index in chosen])
        mask = torch.tensor([[1] * len(rows[index][0]) + [0] * (width - len(rows[index][0])) for index in chosen])
        batch = {"input_ids": input_ids, "labels": labels, "attention_mask": mask}
        # before training, a model that will be sharded is still on the CPU
        device = next(model.parameters()).device
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        with torch.no_grad(), trainer.accelerator.autocast():
            output = model(**batch, fused_lm_head=True)
        if number < len(starts):
            sums[chosen] = output.log_probs.double().sum(dim=1).cpu()
    model.train(was_training)
    if processes > 1:
        sums = trainer.accelerator.reduce(sums.to(args.device), reduction="sum").cpu()
    return sums


def score_conversations(trainer: Any, examples: Sequence[SftExample]) -> dict[str, float]:
    """Return the held-out loss in nats per assistant token and in bits per UTF-8 byte of assistant text."""
    sums = _answer_log_probs(trainer, [(row.input_ids, row.labels) for row in examples])
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
    """Return ln p of the chosen and of the rejected answers: float64, each of shape (pairs,)."""
    rows = []
    for answers in ([row.chosen_ids for row in examples], [row.rejected_ids for row in examples]):
        for row, answer in zip(examples, answers, strict=True):
            rows.append((row.prompt_ids + answer, [IGNORED] * len(row.prompt_ids) + answer))
    chosen, rejected = _answer_log_probs(trainer, rows).chunk(2) if rows else (torch.zeros(0), torch.zeros(0))
    _check_finite(chosen + rejected, [row.place for row in examples])
    return chosen, rejected


def _check_finite(sums: torch.Tensor, rows: Sequence[str]) -> None:
    bad = [row for row, value in zip(rows, sums.tolist(), strict=True) if not math.isfinite(value)]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise WorkError(
            f"{bad[0]}{more}: the log-probability of the answer is not finite; expected a number",
            hint="the model overflows: use another checkpoint, or runtime.dtype=float32",
        )


def score_pairs(
    trainer: Any,
    examples: Sequence[PairExample],
    reference: tuple[torch.Tensor, torch.Tensor],
    loss: PreferenceLoss,
) -> dict[str, float]:
    """Return the held-out loss, rewards and accuracies, by the definitions that training uses.

    `reference` is what `pair_log_probs` returned before the first step. `eval/rewards/accuracies` is the share of pairs
    whose chosen answer has the higher reward; a tie counts half, so a model that is its own reference has 0.5.
    `eval/logps/accuracies` compares plain log-probabilities.
    """
    chosen, rejected = pair_log_probs(trainer, examples)
    base = reference if loss.needs_reference else (torch.zeros_like(chosen), torch.zeros_like(rejected))
    gains = chosen - base[0], rejected - base[1]
    lengths = (
        torch.tensor([len(row.chosen_ids) for row in examples]),
        torch.tensor([len(row.rejected_ids) for row in examples]),
    )
    losses = pair_losses(loss, gains, lengths)
    rewards_chosen, rewards_rejected = pair_rewards(loss, gains, lengths)
    margins = rewards_chosen - rewards_rejected
    return {
        "eval/rows": len(examples),
        "eval/loss": float(losses.mean()),
        "eval/rewards/accuracies": float(((margins > 0).double() + 0.5 * (margins == 0).double()).mean()),
        "eval/logps/accuracies": float((chosen > rejected).double().mean()),
        "eval/rewards/chosen": float(rewards_chosen.mean()),
        "eval/rewards/rejected": float(rewards_rejected.mean()),
        "eval/rewards/margins": float(margins.mean()),
    }


# ---- metrics.jsonl


def require_finite(step: int, name: str, value: float, rows: str = "") -> None:
    """Raise WorkError, naming the `rows` where given, unless `value` is finite."""
    if not math.isfinite(value):
        raise WorkError(
            f"step {step}: {name} is {value}; expected a finite number{f' ({rows})' if rows else ''}",
            hint="lower optimizer.learning_rate, or set optimizer.max_grad_norm=1",
        )


class MetricsCallback(TrainerCallback):  # type: ignore[misc]
    """Writes a row of metrics for each log and each evaluation; raises WorkError if a number is not finite."""

    def __init__(
        self,
        stage: str,
        path: Path,
        evaluate: Callable[[], dict[str, float]] | None,
        eval_every_steps: int | None,
        resumed_step: int,
    ) -> None:
        """Append to `path`; a resumed run first removes the rows after the step that it resumes from."""
        self.stage, self.path, self.evaluate, self.eval_every_steps = stage, path, evaluate, eval_every_steps
        self.first_evaluation: dict[str, float] = {}
        self.last_evaluation: dict[str, float] = {}
        self.last_loss = math.nan
        self._evaluated_step = -1
        self._keep_rows(resumed_step)

    def _keep_rows(self, resumed_step: int) -> None:
        rows = []
        if resumed_step and self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:  # a killed process may leave half a line
                    continue
                if row["step"] <= resumed_step:
                    rows.append(line + "\n")
                    if "eval/rows" in row:
                        self.last_evaluation, self._evaluated_step = row, row["step"]
                        self.first_evaluation = self.first_evaluation or row
        if is_first():
            self.path.write_text("".join(rows), encoding="utf-8")

    def _write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            require_finite(step, name, value)
        if not is_first():
            return
        row = {"stage": self.stage, "step": step, "time_s": round(time.monotonic() - self.started, 3), **values}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    def _evaluate(self, step: int) -> None:
        if self.evaluate is None or self._evaluated_step == step:
            return
        began = time.monotonic()
        values = self.evaluate()
        self._paused_s += time.monotonic() - began
        self.last_evaluation, self._evaluated_step = values, step
        self.first_evaluation = self.first_evaluation or values
        self._write(step, values)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items() if name not in _COUNTS)
        log.info("%s  step %d  held out: %s", self.stage, step, shown)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clocks and evaluate the model before training (step 0)."""
        self.started = self._last_line = time.monotonic()
        self._paused_s = 0.0
        self._first_step, self._last_tokens = state.global_step, state.num_input_tokens_seen
        if state.global_step == 0:
            self._evaluate(0)
        self._last_log = time.monotonic()
        self._paused_s = 0.0
        self._began = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Write a row of training metrics."""
        if not logs or "loss" not in logs:
            return  # the trainer's own summary of the run
        now = time.monotonic()
        seconds = max(now - self._last_log - self._paused_s, 1e-9)
        values = {name: float(logs[key]) for key, name in _NAMES.items() if key in logs}
        values["train/tokens_seen"] = state.num_input_tokens_seen
        values["train/tokens_per_s"] = round((state.num_input_tokens_seen - self._last_tokens) / seconds, 1)
        self._last_log, self._last_tokens, self._paused_s = now, state.num_input_tokens_seen, 0.0
        self.last_loss = values["train/loss"]
        self._write(state.global_step, values)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log progress every ten seconds, and evaluate every `eval_every_steps`."""
        now = time.monotonic()
        if now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            done = state.global_step - self._first_step
            rate = (now - self._began) / done
            left = (state.max_steps - state.global_step) * rate
            log.info(
                "%s  %d/%d steps  loss %.4g  %.3g s/step  eta %d:%02d",
                self.stage,
                state.global_step,
                state.max_steps,
                self.last_loss,
                rate,
                left // 60,
                left % 60,
            )
        if self.eval_every_steps and state.global_step % self.eval_every_steps == 0:
            self._evaluate(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate the trained model."""
        self._evaluate(state.global_step)

    def report_end(self, seconds: float, directory: Path) -> None:
        """Log one line about the whole run."""
        parts = [f"loss {self.last_loss:.4g}"]
        if self.last_evaluation:
            first, last = self.first_evaluation, self.last_evaluation
            names = [
                name
                for name in (
                    "eval/loss",
                    "eval/bits_per_byte",
                    "eval/rewards/accuracies",
                    "eval/accuracy",
                    "eval/score",
                )
                if name in last
            ]
            parts += [f"{name} {first[name]:.4g} -> {last[name]:.4g}" for name in names]
        log.info("%s  done in %.1f s: %s: %s", self.stage, seconds, directory, ", ".join(parts))

"""A trainer callback: metrics.jsonl, a line every ten seconds, and the held-out evaluation."""

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..errors import WorkError

__all__ = ["Progress", "require_finite"]

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
# counts of a held-out set, the same in every evaluation
_COUNTS = {"eval/rows", "eval/tokens", "eval/bytes"}


def require_finite(step: int, name: str, value: float, rows: str = "") -> None:
    """Raise WorkError, naming the `rows` where given, unless `value` is finite."""
    if not math.isfinite(value):
        raise WorkError(
            f"step {step}: {name} is {value}; expected a finite number{f' ({rows})' if rows else ''}",
            "lower optimizer.lr, or set optimizer.max_grad_norm=1",
        )


class Progress(TrainerCallback):  # type: ignore[misc]
    """Writes a row of metrics for each log and each evaluation; raises WorkError when a number is not finite."""

    def __init__(
        self,
        stage: str,
        path: Path,
        *,
        evaluate: Callable[[], dict[str, float]] | None,
        every: int | None,
        resumed_step: int,
    ) -> None:
        """Append to `path`; a resumed run first removes the rows past the step that it resumes from."""
        self.stage, self.path, self.evaluate, self.every = stage, path, evaluate, every
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
                except ValueError:  # the last line of a killed process
                    continue
                if row["step"] <= resumed_step:
                    rows.append(line + "\n")
                    if "eval/loss" in row:
                        self.last_evaluation, self._evaluated_step = row, row["step"]
                        self.first_evaluation = self.first_evaluation or row
        self.path.write_text("".join(rows), encoding="utf-8")

    def _write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            require_finite(step, name, value)
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
        """Start the clocks and evaluate the model as it came (step 0)."""
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
        """Say how far the run is, every ten seconds, and evaluate every n steps."""
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
        if self.every and state.global_step % self.every == 0:
            self._evaluate(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate what was trained."""
        self._evaluate(state.global_step)

    def report_end(self, seconds: float, directory: Path) -> None:
        """Log one line on the whole run."""
        parts = [f"loss {self.last_loss:.4g}"]
        if self.last_evaluation:
            first, last = self.first_evaluation, self.last_evaluation
            names = [name for name in ("eval/loss", "eval/bits_per_byte", "eval/rewards/accuracies") if name in last]
            parts += [f"{name} {first[name]:.4g} -> {last[name]:.4g}" for name in names]
        log.info("%s  done in %.1f s: %s: %s", self.stage, seconds, directory, ", ".join(parts))

"""The line on the console: at most one every so many seconds, the same in a pipe as on a terminal."""

from __future__ import annotations

import logging
import time

__all__ = ["Console", "clock", "scaled"]

log = logging.getLogger(__name__)


def scaled(value: float) -> str:
    """A figure with three digits and a unit prefix."""
    for limit, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g} "


def clock(seconds: float) -> str:
    """Seconds as `12:34` or `1:12:34`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


class Console:
    """Says where a run of `steps` steps is."""

    def __init__(self, steps: int, first_step: int, every_s: float) -> None:
        self.steps, self.first_step, self.every_s = steps, first_step, every_s
        self._begun = time.monotonic()
        self._next = self._begun

    def step(self, step: int, values: dict[str, float]) -> None:
        """Log a line if one is due; the time left is reckoned from this start's pace, validation included."""
        now = time.monotonic()
        if now < self._next and step != self.steps:
            return
        self._next = now + self.every_s
        left = (now - self._begun) / max(1, step - self.first_step) * (self.steps - step)
        bpb = f"  bpb {values['eval/bpb']:.3f}" if "eval/bpb" in values else ""
        log.info(
            "train  step %d/%d  loss %.4f%s  lr %.2e  grad %.2f  %stok/s  eta %s",
            step,
            self.steps,
            values["train/CrossEntropyLoss"],
            bpb,
            values["optim/learning_rate_group0"],
            values["optim/total_grad_norm"],
            scaled(values["throughput/device/tokens_per_second"]),
            clock(left),
        )

"""Learning rate of a step: a pure function, so that a resumed run needs no state for it."""

from __future__ import annotations

import math

from ..config.schema import ScheduleConfig

__all__ = ["learning_rate"]


def learning_rate(step: int, steps: int, peak: float, schedule: ScheduleConfig) -> float:
    """The rate of update `step` (from 1) of `steps`.

    Warmup rises linearly from 0, not reached, to the peak at step `warmup_steps`; then the shape falls to
    `final_ratio · peak` at the last step.
    """
    warmup = schedule.warmup_steps
    if step <= warmup:
        return peak * step / warmup
    if schedule.kind == "constant":
        return peak
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    low = schedule.final_ratio * peak
    if schedule.kind == "linear":
        return low + (peak - low) * (1 - progress)
    return low + (peak - low) * (1 + math.cos(math.pi * progress)) / 2

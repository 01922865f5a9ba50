"""What is done about bad steps: a warning, a way back that leaves their batches out, or giving up.

A step is bad if its update was refused, and where `stability.rewind_after` is set also if it is an outlier. After so
many in a row the run goes back to its last checkpoint before the first of them, takes the same batches as before up to
it, and then those that come after the bad ones. What was left out is in the state, so a resume goes on exactly; a run
that is killed between going back and its next checkpoint meets the bad steps again and does the same again.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from ..checkpoint.save import Progress
from ..config.schema import RunConfig
from ..data.batches import BatchPlan
from ..data.order import DataOrder, joined
from ..data.order_manifest import keep_left_out

__all__ = ["Rewind", "TrainingFailed", "advance", "may_save", "react", "slow_rise", "take_up"]

log = logging.getLogger(__name__)


class TrainingFailed(RuntimeError):
    """The run gave up: too many bad steps in a row, or ways back."""


class Rewind(Exception):
    """The run is to go back to before a step."""

    def __init__(self, first_bad_step: int) -> None:
        self.first_bad_step = first_bad_step
        super().__init__(f"back to before step {first_bad_step}")


def advance(
    progress: Progress, windows: int, config: RunConfig, *, rate: float, accepted: bool, outlier: bool
) -> Progress:
    """The progress after a step of so many windows at a learning rate."""
    bad = not accepted or (outlier and config.stability.rewind_after is not None)
    return replace(
        progress,
        step=progress.step + 1,
        position=progress.position + windows,
        learning_rate=rate,
        skipped_steps=progress.skipped_steps + (not accepted),
        consecutive_bad_steps=progress.consecutive_bad_steps + 1 if bad else 0,
    )


def may_save(progress: Progress, config: RunConfig) -> bool:
    """Whether the state is worth going back to; always so where the run never goes back."""
    return config.stability.rewind_after is None or progress.consecutive_bad_steps == 0


def react(progress: Progress, config: RunConfig) -> None:
    """Warn of a bad step and go on.

    Raises: Rewind: there have been enough of them to go back; TrainingFailed: or to give up.
    """
    bad, where, rewind_after = progress.consecutive_bad_steps, config.run_directory, config.stability.rewind_after
    if not bad:
        return
    log.warning(
        "step %d: one whose loss or gradient is not finite, in which no token counts, or an outlier; %d in a row",
        progress.step,
        bad,
    )
    if rewind_after is not None and bad >= rewind_after:
        if progress.rewinds < config.stability.max_rewinds:
            raise Rewind(progress.step - bad + 1)
        raise TrainingFailed(
            f"{where}: {bad} bad steps in a row at step {progress.step} after going back {progress.rewinds} times; "
            "expected no more (stability.max_rewinds)"
        )
    if bad >= config.train.max_skipped_steps:
        raise TrainingFailed(
            f"{where}: loss or gradient is not finite or an outlier, or no token counts, for {bad} steps in a row; "
            "expected fewer (train.max_skipped_steps)"
        )


def slow_rise(step: int, rise_nats: float, config: RunConfig) -> TrainingFailed | None:
    """Warn of a smoothed loss above its lowest, once in so many steps as it is smoothed over.

    What is returned is to end the run, once it is saved.
    """
    stability = config.stability
    if step % stability.slow_rise_steps or rise_nats <= stability.slow_rise_nats:
        return None
    told = f"step {step}: the mean loss of {stability.slow_rise_steps} steps is {rise_nats:.3f} nats above its lowest"
    if stability.slow_rise_action == "stop":
        limit = f"{stability.slow_rise_nats} at most (stability.slow_rise_nats)"
        return TrainingFailed(f"{config.run_directory}: {told}; expected {limit}; saved")
    log.warning(told)
    return None


def take_up(
    restored: Progress, failed: Progress, rewind: Rewind, batches: BatchPlan, order: DataOrder, directory: Path | None
) -> Progress:
    """The progress with which a run goes on at `restored`, leaving out the batches from the first bad step on.

    Written to order.json in `directory` too, where `olmo inspect` finds it; by the rank that has one.
    """
    first = order.shifted(batches.first_window(rewind.first_bad_step))
    last = order.shifted(batches.first_window(failed.step + 1) - 1) + 1
    left_out = joined((*failed.left_out, (first, last)))
    log.warning(
        "going back from step %d to %d; positions %d to %d are left out", failed.step, restored.step, first, last
    )
    if directory is not None:
        keep_left_out(left_out, directory)
    order.gaps = left_out
    return replace(restored, rewinds=failed.rewinds + 1, left_out=left_out)

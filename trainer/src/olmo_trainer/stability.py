"""Is a step like those before it, and what is done if not: SkipStep, spike score, slow rise, rewinding, giving up.

The guard's state is tensors on the device, so that judging a step does not wait for it; checkpoints save it, and the
guard continues exactly after a resume.

A step is bad if its update was rejected, and with `stability.rewind_after` also if it is an outlier. After that many
bad steps in a row, the run goes back to its last checkpoint before the first of them, takes the same batches as before
up to it, and skips the batches of the bad steps. The skipped ranges are saved, so a resume continues exactly; a run
that is killed between going back and its next checkpoint meets the bad steps again and does the same again.
"""

import logging
from dataclasses import replace

import torch

from .config.schema import RunConfig, StabilityConfig
from .data.order import BatchSchedule, DataOrder, joined
from .progress import Progress

__all__ = ["Guard", "Rewind", "advance", "handle_bad_step", "may_save", "resume_after_rewind", "slow_rise"]

log = logging.getLogger(__name__)


# ---- judge a step

_SPIKE_WINDOW = 128  # spike score of OLMo-2 (arXiv 2501.00656, section 3): outliers among the last 10,000 steps
_SPIKE_STEPS = 10_000


class History:
    """The last `window` pairs of loss and gradient norm."""

    def __init__(self, window: int, sigma: float, device: torch.device) -> None:
        self.sigma = sigma
        self.values_W2 = torch.zeros(window, 2, dtype=torch.float64, device=device)
        self.count = torch.zeros((), dtype=torch.int64, device=device)
        self._slots_W = torch.arange(window, device=device)

    def is_outlier(self, sample_2: torch.Tensor) -> torch.Tensor:
        """Whether either value is more than σ deviations above the mean; never before half the window is filled."""
        window = len(self.values_W2)
        filled = self.count.clamp(max=window)
        counted_W1 = (self._slots_W < filled)[:, None]
        mean_2 = torch.where(counted_W1, self.values_W2, 0.0).sum(0) / filled
        squares_2 = torch.where(counted_W1, (self.values_W2 - mean_2) ** 2, 0.0).sum(0)
        bound_2 = mean_2 + self.sigma * (squares_2 / (filled - 1)).sqrt()
        return (filled >= max(2, window // 2)) & (sample_2 > bound_2).any()

    def add(self, sample_2: torch.Tensor, where: torch.Tensor) -> None:
        """Put a sample in the slot of the oldest, if `where`."""
        here_W1 = ((self._slots_W == self.count % len(self.values_W2)) & where)[:, None]
        self.values_W2.copy_(torch.where(here_W1, sample_2, self.values_W2))
        self.count += where


class Guard:
    """Judges steps one after the other."""

    def __init__(self, stability: StabilityConfig, device: torch.device) -> None:
        self.stability = stability
        self.accepted = History(stability.outlier_window, stability.outlier_sigma, device)
        self.spikes = History(_SPIKE_WINDOW, 6.0, device)
        self.spiked = torch.zeros(_SPIKE_STEPS, dtype=torch.uint8, device=device)
        self.judged = torch.zeros((), dtype=torch.int64, device=device)
        self.smooth = torch.zeros((), dtype=torch.float64, device=device)
        self.smooth_count = torch.zeros((), dtype=torch.int64, device=device)
        self.lowest = torch.full((), torch.inf, dtype=torch.float64, device=device)

    def judge(self, nats: torch.Tensor, grad_norm: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Whether a step may change the weights, and whether it is an outlier; adds the step to the history.

        Later steps are compared only with finite steps that are no outliers: an outlier among them would widen σ and
        hide the next one.
        """
        sample_2 = torch.stack([nats.double(), grad_norm.double()])
        finite = torch.isfinite(sample_2).all()
        outlier = finite & self.accepted.is_outlier(sample_2)
        self.accepted.add(sample_2, finite & ~outlier)
        self._follow(sample_2, finite)
        return (finite & ~outlier) if self.stability.skip_outliers else finite, outlier

    def _follow(self, sample_2: torch.Tensor, finite: torch.Tensor) -> None:
        spiked = (finite & self.spikes.is_outlier(sample_2)) | ~finite
        self.spikes.add(sample_2, finite)
        self.spiked.index_copy_(0, (self.judged % _SPIKE_STEPS)[None], spiked.to(torch.uint8)[None])
        self.judged += 1
        self.smooth_count += finite
        weight = 1.0 / self.smooth_count.clamp(1, self.stability.slow_rise_steps)
        self.smooth.copy_(torch.where(finite, torch.lerp(self.smooth, sample_2[0], weight.double()), self.smooth))
        whole = self.smooth_count >= self.stability.slow_rise_steps
        self.lowest.copy_(torch.where(whole, torch.minimum(self.lowest, self.smooth), self.lowest))

    def values(self) -> dict[str, float]:
        """The metrics of a step.

        `spike/SpikeScore` is the share of the last 10,000 steps whose loss or gradient norm was not finite or more
        than 6 deviations above the mean of the 128 steps before. `stability/slow_rise` is how many nats the smoothed
        loss is above its lowest: smoothed sₜ = sₜ₋₁ + (lossₜ − sₜ₋₁) / min(t, N) with N = `slow_rise_steps`, lowest
        over t ≥ N; 0 before.
        """
        judged = max(1, min(int(self.judged), _SPIKE_STEPS))
        rise = float(self.smooth - self.lowest)
        return {"spike/SpikeScore": int(self.spiked.sum()) / judged, "stability/slow_rise": max(0.0, rise)}

    def capture(self) -> dict[str, torch.Tensor]:
        """All state, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self._tensors().items()}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Restore what `capture` returned."""
        for name, tensor in self._tensors().items():
            tensor.copy_(tensors[name])

    def _tensors(self) -> dict[str, torch.Tensor]:
        histories = {"accepted": self.accepted, "spikes": self.spikes}
        named = {f"{name}_values": history.values_W2 for name, history in histories.items()}
        named |= {f"{name}_count": history.count for name, history in histories.items()}
        return named | {name: getattr(self, name) for name in ("spiked", "judged", "smooth", "smooth_count", "lowest")}


# ---- act on a bad step


class TrainingFailed(RuntimeError):
    """The run gave up: too many bad steps in a row, or too many rewinds."""


class Rewind(Exception):
    """The run must go back to before the first of its last bad steps."""

    def __init__(self, failed: Progress) -> None:
        self.failed, self.first_bad_step = failed, failed.step - failed.consecutive_bad_steps + 1
        super().__init__(f"back to before step {self.first_bad_step}")


def advance(
    progress: Progress, windows: int, config: RunConfig, *, rate: float, accepted: bool, outlier: bool
) -> Progress:
    """The progress after a step on that many windows."""
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
    """Whether the state is worth going back to; always, if the run never goes back."""
    return config.stability.rewind_after is None or progress.consecutive_bad_steps == 0


def handle_bad_step(progress: Progress, config: RunConfig) -> None:
    """Warn of a bad step and continue.

    Raises: Rewind: after `stability.rewind_after` in a row; TrainingFailed: after too many rewinds or skipped steps.
    """
    bad, run, rewind_after = progress.consecutive_bad_steps, config.output_dir, config.stability.rewind_after
    if not bad:
        return
    log.warning(
        "step %d: loss or gradient is not finite or an outlier, or no token counts; %d in a row",
        progress.step,
        bad,
    )
    if rewind_after is not None and bad >= rewind_after:
        if progress.rewinds < config.stability.max_rewinds:
            raise Rewind(progress)
        raise TrainingFailed(
            f"{run}: {bad} bad steps in a row at step {progress.step} after going back {progress.rewinds} times; "
            "expected no more (stability.max_rewinds)"
        )
    if bad >= config.train.max_skipped_steps:
        raise TrainingFailed(
            f"{run}: loss or gradient is not finite or an outlier, or no token counts, for {bad} steps in a row; "
            "expected fewer (train.max_skipped_steps)"
        )


def slow_rise(step: int, rise_nats: float, config: RunConfig) -> TrainingFailed | None:
    """Warn of a smoothed loss above its lowest value, at every `slow_rise_steps`-th step.

    Returns the failure that ends the run, once it is saved; None to continue.
    """
    stability = config.stability
    if step % stability.slow_rise_steps or rise_nats <= stability.slow_rise_nats:
        return None
    seen = f"step {step}: the mean loss of {stability.slow_rise_steps} steps is {rise_nats:.3f} nats above its lowest"
    if stability.slow_rise_action == "stop":
        limit = f"{stability.slow_rise_nats} at most (stability.slow_rise_nats)"
        return TrainingFailed(f"{config.output_dir}: {seen}; expected {limit}; saved")
    log.warning(seen)
    return None


def resume_after_rewind(restored: Progress, rewind: Rewind, batches: BatchSchedule, order: DataOrder) -> Progress:
    """The progress that continues from `restored`, skipping the batches of all bad steps, also in `order`."""
    failed = rewind.failed
    first = order.shifted(batches.first_window(rewind.first_bad_step))
    last = order.shifted(batches.first_window(failed.step + 1) - 1) + 1
    log.warning(
        "going back from step %d to %d; positions %d to %d are skipped", failed.step, restored.step, first, last
    )
    order.gaps = joined((*failed.skipped, (first, last)))
    return replace(restored, rewinds=failed.rewinds + 1, skipped=order.gaps)

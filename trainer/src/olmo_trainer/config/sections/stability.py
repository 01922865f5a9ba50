"""What is done about steps that are not like the others. Plain data: nothing is worked out here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .findings import Finding, more_than_zero, zero_or_more

__all__ = ["StabilityConfig", "problems"]


@dataclass(frozen=True, kw_only=True)
class StabilityConfig:
    """Outliers: steps whose loss or gradient norm is far above those of the steps before."""

    skip_outliers: bool = False
    """Whether an outlier leaves weights and moments as they are (OLMo-3's SkipStep); what is not finite always does."""
    outlier_window: int = 128
    """Steps that are compared with; none is an outlier before half of them are there."""
    outlier_sigma: float = 6.0
    """Standard deviations above their mean."""
    rewind_after: int | None = None
    """Bad steps in a row (not finite, or outliers) after which the run goes back to before them and leaves them out."""
    max_rewinds: int = 3
    """How often it may, before it gives up."""
    slow_rise_steps: int = 1000
    """Steps over which the loss is smoothed to see whether it rises."""
    slow_rise_nats: float = 0.05
    """Rise above the lowest smoothed loss that something is done about, looked at every `slow_rise_steps`."""
    slow_rise_action: Literal["warn", "stop"] = "warn"
    """`stop` saves, says what was seen and ends with status 1; no batch is to blame, so there is none to leave out."""


def problems(stability: StabilityConfig) -> list[Finding]:
    """What is wrong with the group `stability` by itself."""
    found = more_than_zero(
        {
            "stability.outlier_sigma": stability.outlier_sigma,
            "stability.rewind_after": stability.rewind_after,
            "stability.slow_rise_steps": stability.slow_rise_steps,
        }
    ) + zero_or_more(
        {"stability.slow_rise_nats": stability.slow_rise_nats, "stability.max_rewinds": stability.max_rewinds}
    )
    if stability.outlier_window < 4:
        found.append(("stability.outlier_window", stability.outlier_window, "4 or more", None))
    return found

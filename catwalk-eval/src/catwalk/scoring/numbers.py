"""How numbers are rounded before they are stored. Everything derived is derived from the rounded ones."""

import math

__all__ = ["round_logprob", "round_significant"]

_LOGPROB_DECIMALS = 6
_SIGNIFICANT_DIGITS = 10


def round_logprob(value: float) -> float:
    """Six decimals: finer than float32 noise of a sum, coarse enough to be equal from run to run. Never −0.0.

    A log-probability is at most 0; float32 rounding may lift that of a certain token a hair above.
    """
    return min(round(float(value), _LOGPROB_DECIMALS), 0.0) + 0.0


def round_significant(value: float) -> float:
    """Ten significant digits."""
    if value == 0 or not math.isfinite(value):
        return float(value)
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}")

"""How numbers are rounded before they are stored. Everything derived is derived from the rounded ones."""

import math

__all__ = ["round_logprob", "round_significant"]

_LOGPROB_DECIMALS = 6
_SIGNIFICANT_DIGITS = 10
_ABOVE_ZERO = 1e-2  # nats of slack for other kernels: float32 on a CPU never rounds a token above 0


def round_logprob(value: float) -> float:
    """Six decimals: finer than float32 noise of a sum, coarse enough to be equal from run to run. Never −0.0.

    Raises:
        ValueError: for NaN, infinity, or a value further above 0 than rounding explains.
    """
    if not math.isfinite(value) or value > _ABOVE_ZERO:
        raise ValueError(f"the log-probability is {value}; expected a finite number of at most 0")
    return min(round(float(value), _LOGPROB_DECIMALS), 0.0) + 0.0


def round_significant(value: float) -> float:
    """Ten significant digits.

    Raises:
        ValueError: for NaN and infinity.
    """
    if not math.isfinite(value):
        raise ValueError(f"a result is {value}; expected a finite number")
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}") if value else 0.0

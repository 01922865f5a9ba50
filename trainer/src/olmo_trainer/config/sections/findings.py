"""What the groups of settings say of their own values."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Finding", "at_most", "more_than_zero", "zero_or_more"]

Finding = tuple[str, object, str, str | None]
"""(key, value, what is expected, hint)."""


def more_than_zero(values: Mapping[str, float | None]) -> list[Finding]:
    """A finding for each value that is 0 or less."""
    return [(key, value, "more than 0", None) for key, value in values.items() if value is not None and value <= 0]


def at_most(limit: int, values: Mapping[str, float | None]) -> list[Finding]:
    """A finding for each value above a limit."""
    return [
        (key, value, f"{limit} or less", None) for key, value in values.items() if value is not None and value > limit
    ]


def zero_or_more(values: Mapping[str, float | None]) -> list[Finding]:
    """A finding for each value below 0."""
    return [(key, value, "0 or more", None) for key, value in values.items() if value is not None and value < 0]

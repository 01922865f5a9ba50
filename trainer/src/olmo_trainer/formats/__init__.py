"""This package's own readers and writers of the formats it touches (docs/formats); stdlib and numpy only, no torch."""

from __future__ import annotations

from .errors import FormatError

__all__ = ["FormatError"]

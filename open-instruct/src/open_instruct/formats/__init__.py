"""The formats of docs/formats that this package reads and writes."""

from .contract import FormatError

__all__ = ["MODULES", "FormatError"]

MODULES = ("chat", "checkpoint")
"""The modules with `READERS`, for `python -m open_instruct.formats`."""

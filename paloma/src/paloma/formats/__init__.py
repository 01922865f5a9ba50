"""The formats of docs/formats that this package reads and writes."""

from .contract import FormatError

__all__ = ["MODULES", "FormatError"]

MODULES = ("document", "results")
"""The modules with `READERS`, for `python -m paloma.formats`."""

"""The formats of docs/formats that this package reads and writes."""

from .contract import FormatError

__all__ = ["MODULES", "FormatError"]

MODULES = ("document", "tokens", "checkpoint")
"""The modules with `READERS`, for `python -m olmo_trainer.formats`."""

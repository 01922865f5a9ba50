"""This package's copy of the contract in docs/formats: chat, preference, checkpoint and manifest."""

from .errors import FormatError

__all__ = ["FormatError"]

"""What a tagger written in Python needs; the module names are those of dolma 1.x."""

from dolma.core.registry import TaggerRegistry

__all__ = ["TaggerRegistry"]

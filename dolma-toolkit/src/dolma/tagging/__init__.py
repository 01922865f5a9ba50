"""Taggers that run in Python. Importing this registers the package's own; each imports what it needs when made."""

from dolma.tagging import code, detectors

__all__ = ["code", "detectors"]

"""Scores a checkpoint on multiple-choice tasks and on the perplexity of documents; the main path is `evaluate.py`."""

__all__ = ["DISTRIBUTION", "WRITER", "__version__"]

DISTRIBUTION = "catwalk-eval"
__version__ = "0.1.0"
WRITER = {"name": DISTRIBUTION, "version": __version__}

"""Scores a checkpoint on multiple-choice tasks and on the perplexity of documents; the main path is `evaluate.py`."""

__all__ = ["DISTRIBUTION", "__version__"]

DISTRIBUTION = "catwalk-eval"
__version__ = "0.1.0"

"""The perplexity benchmark: many domains, one number each, and what may be compared with what."""

__all__ = ["__version__"]

__version__ = "0.1.0"
WRITER = {"name": "paloma-eval", "version": __version__}

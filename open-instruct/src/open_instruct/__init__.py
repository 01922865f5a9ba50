"""Checkpoints to chat models: supervised fine-tuning and preference training with TRL, from files to files."""

__all__ = ["WRITER", "__version__"]

__version__ = "0.1.0"
WRITER = {"name": "open-instruct", "version": __version__}

"""Checkpoint directories to models, and models to checkpoint directories (docs/formats/checkpoint.md)."""

__all__: list[str] = []

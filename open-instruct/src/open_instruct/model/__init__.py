"""Checkpoint directories to models and back."""

__all__: list[str] = []

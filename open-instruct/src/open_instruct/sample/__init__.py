"""Answers of a model that a reward model or a verifier chose from."""

__all__: list[str] = []

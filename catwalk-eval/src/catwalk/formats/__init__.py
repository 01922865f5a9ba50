"""This package's copy of docs/formats: manifest, document, checkpoint and results, version 1."""

__all__: list[str] = []

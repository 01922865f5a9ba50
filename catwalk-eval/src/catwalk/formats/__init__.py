"""This package's copy of docs/formats: manifest, document, checkpoint and results, version 1. Standard library and msgspec only."""

__all__: list[str] = []

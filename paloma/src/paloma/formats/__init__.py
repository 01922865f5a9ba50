"""This package's reading of docs/formats: manifest, document, results."""

__all__: list[str] = []

"""The golden vectors, one module per format; `tests/make_vectors.py` writes them."""

__all__: list[str] = []

"""The golden vectors, one module a format; `tests/make_vectors.py` writes them."""

__all__: list[str] = []

"""One file a benchmark: where its data are and how a row becomes an item. `registry.py` lists them."""

__all__: list[str] = []

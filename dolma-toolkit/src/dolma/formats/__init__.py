"""The formats of docs/formats that this package reads and writes, in Python: stdlib, numpy and msgspec.

``python -m dolma.formats {lineage,validate,dump}`` is the command.
"""

__all__: list[str] = []

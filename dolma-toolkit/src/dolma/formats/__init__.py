"""The formats of docs/formats that this package reads and writes.

``contract.py``, ``manifest.py`` and ``__main__.py`` are the files of the other packages, byte for byte. The core reads
rows, so that Parquet is read too.
"""

__all__ = ["MODULES"]

MODULES = ("document", "attributes", "tokens")
"""The modules with ``READERS``, for ``python -m dolma.formats``."""

from collections.abc import Callable
from typing import final

__all__ = ["NativeError", "__version__", "dedupe", "taggers"]

__version__: str

class NativeError(Exception):
    """What the core refused; the only argument is JSON, see rust/py/src/error.rs."""

def dedupe(settings: str, report: Callable[[int, int, int, int, int, float], object] | None = None) -> str: ...
def taggers() -> list[tuple[str, str]]: ...

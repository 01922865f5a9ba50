from collections.abc import Callable
from typing import TypeAlias, final

__all__ = [
    "DocumentReader",
    "NativeError",
    "__version__",
    "dedupe",
    "mix",
    "mix_check",
    "stat",
    "tag",
    "tag_pending",
    "taggers",
    "tokens",
]

__version__: str

_Report: TypeAlias = Callable[[int, int, int, int, int, float], None]
"""documents, bytes done, files done, files to do, bytes to do, seconds; called every ten seconds"""

class NativeError(Exception):
    """What the core refused; the only argument is JSON, see rust/py/src/error.rs."""

@final
class DocumentReader:
    def __new__(cls, path: str, name: str, compression: str | None = None) -> DocumentReader: ...
    def __iter__(self) -> DocumentReader: ...
    def __next__(self) -> tuple[str, str, str, str | None, str | None]: ...
    @property
    def line(self) -> int: ...

def dedupe(settings: str, report: _Report | None = None) -> str: ...
def mix(settings: str, report: _Report | None = None) -> str: ...
def mix_check(settings: str) -> list[str]: ...
def stat(settings: str, report: _Report | None = None) -> str: ...
def taggers() -> list[tuple[str, str]]: ...
def tag(plan: str, report: _Report | None = None) -> tuple[int, int, int, int]: ...
def tag_pending(plan: str) -> list[int]: ...
def tokens(plan: str, report: _Report | None = None) -> dict[str, int]: ...

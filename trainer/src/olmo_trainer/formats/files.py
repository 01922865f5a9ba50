"""Paths that users name, and small files that are replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["place", "write_atomically"]


def place(text: str) -> Path:
    """A path of a command line, where the shell may have left `~` as it is (`--output=~/page.html`)."""
    return Path(os.path.expanduser(text))


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, flush it to the disk and rename it: it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.writing")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)

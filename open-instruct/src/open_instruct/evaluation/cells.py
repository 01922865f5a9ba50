"""Finished answers and scores: a line for each, named by everything that it depends on, so that nothing is done twice.

A directory of cells may be shared by several runs and models. A line is complete or ignored: the last one may be cut
where a process was killed.
"""

import fcntl
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..formats.contract import canonical_line

__all__ = ["Cells"]

_LAYOUT = 1  # of the lines; changes when they are read differently


class Cells:
    """The cells of one model."""

    def __init__(self, directory: Path, identity: Mapping[str, Any]) -> None:
        """`identity` is everything about the model, and the versions of the software, that an answer depends on."""
        name = hashlib.sha256(canonical_line({"layout": _LAYOUT, **identity}).encode()).hexdigest()
        self._path = directory / f"{name}.jsonl"
        self._found: dict[str, Any] = {}
        if self._path.is_file():
            for line in self._path.read_bytes().split(b"\n"):
                try:
                    cell = json.loads(line)
                    self._found[cell["key"]] = cell["value"]
                except (ValueError, TypeError, KeyError):
                    continue

    @staticmethod
    def key(*parts: Any) -> str:
        """The name of a cell."""
        return hashlib.sha256(canonical_line(list(parts)).encode()).hexdigest()

    def get(self, key: str) -> Any:
        """A finished cell, or None."""
        return self._found.get(key)

    def keep(self, cells: Sequence[tuple[str, Any]]) -> None:
        """Store finished cells. Other processes may write the same file."""
        self._found |= dict(cells)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(canonical_line({"key": key, "value": value}) for key, value in cells)
        with self._path.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.write(b"\n" + text.encode())  # after a line that was cut short, this begins a new one

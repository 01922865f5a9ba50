"""Read document rows (docs/formats/document.md) strictly, for the demo's own steps."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path


def read_documents(path: Path) -> Iterator[dict]:
    """The rows of one file.

    Raises ValueError: `path:line: …` for a row that is no document.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: not JSON ({error})") from error
            for field in ("id", "text"):
                if not isinstance(row, dict) or not isinstance(row.get(field), str):
                    raise ValueError(f'{path}:{number}: "{field}" is missing or no string; expected a document')
            yield row


def read_directory(directory: Path) -> Iterator[dict]:
    """The rows of every document file that the directory's manifest lists, in sorted path order."""
    manifest = json.loads((directory / "manifest.json").read_text("utf-8"))
    for file in manifest["files"]:
        if file["path"].endswith((".jsonl", ".jsonl.gz", ".json.gz")):
            yield from read_documents(directory / file["path"])

"""Finished cells: a file for each model × task, or model × chunk of documents, so that nothing is scored twice.

The name of a file is the sha256 of everything that its content depends on: the hashes of weights and tokenizer, the
settings, the versions of the software, and the rendered items or the documents' texts. So a cell of another model or
prompt has another name. A file is complete or absent: it is renamed to its name once it is on the disk.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from catwalk.formats.contract import canonical_line, write_file
from catwalk.formats.document import Document
from catwalk.types import DocumentScore, TaskPart

__all__ = ["Cells", "documents_key"]

_LAYOUT = 3  # of the files; changes when their content is written or read differently


def documents_key(documents: Sequence[Document]) -> str:
    """sha256 of what is scored and stored of documents."""
    rows = ([document.source, document.subdomain, document.id, document.text] for document in documents)
    return hashlib.sha256("".join(canonical_line(row) for row in rows).encode()).hexdigest()


class Cells:
    """The cells of one model in a directory, which several models may share."""

    def __init__(self, directory: Path, identity: dict[str, Any]) -> None:
        self._directory = directory
        self._identity = canonical_line({"layout": _LAYOUT, **identity})

    def _path(self, content_key: str) -> Path:
        digest = hashlib.sha256((self._identity + content_key).encode()).hexdigest()
        return self._directory / f"{digest}.json"

    def _read(self, content_key: str) -> Any:
        path = self._path(content_key)
        return json.loads(path.read_bytes()) if path.is_file() else None

    def _write(self, content_key: str, value: Any) -> None:
        write_file(self._path(content_key), canonical_line(value).encode())

    def has(self, content_key: str) -> bool:
        """Whether the cell is finished."""
        return self._path(content_key).is_file()

    def task(self, content_key: str) -> TaskPart | None:
        """A finished task, or None."""
        value = self._read(content_key)
        return None if value is None else TaskPart(**value)

    def keep_task(self, content_key: str, part: TaskPart) -> None:
        """Store a finished task."""
        self._write(content_key, asdict(part))

    def documents(self, content_key: str) -> list[DocumentScore] | None:
        """A finished chunk of documents, or None."""
        value = self._read(content_key)
        if value is None:
            return None
        return [DocumentScore(**row | {"types": tuple(map(tuple, row["types"]))}) for row in value]

    def keep_documents(self, content_key: str, scores: Sequence[DocumentScore]) -> None:
        """Store a finished chunk of documents."""
        self._write(content_key, [asdict(score) for score in scores])

    def remove(self) -> None:
        """Delete every cell of the directory."""
        shutil.rmtree(self._directory, ignore_errors=True)

"""Finished parts of a run, kept inside the output directory until it is whole, so that a killed run resumes.

A part's name is the sha256 of all that its scores depend on: the weights' and tokenizer's hashes, the settings, the
rendered items or the documents' texts. A part of another model or prompt can never be taken for it.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from catwalk.formats.document import Document
from catwalk.formats.json_lines import atomic_file, canonical_line
from catwalk.types import DocumentScore, Item, ItemScore

__all__ = ["TaskPart", "Workspace", "documents_key", "items_key"]


def items_key(items: Sequence[Item]) -> str:
    """sha256 of rendered items."""
    return hashlib.sha256("".join(canonical_line(asdict(item)) for item in items).encode()).hexdigest()


def documents_key(documents: Sequence[Document]) -> str:
    """sha256 of what is scored and stored of documents."""
    rows = ([document.source, document.subdomain, document.id, document.text] for document in documents)
    return hashlib.sha256("".join(canonical_line(row) for row in rows).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class TaskPart:
    """Scores of one task with the counts that a reader should know."""

    scores: list[ItemScore]
    truncated: int
    crossings: int
    windowed: int


def _item_score(row: dict[str, Any]) -> ItemScore:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return ItemScore(**fields)


class Workspace:
    """`<output>/work`: one JSON file a finished part."""

    def __init__(self, output: Path, settings: dict[str, Any]) -> None:
        self._directory = output / "work"
        self._settings = canonical_line(settings)

    def _path(self, content_key: str) -> Path:
        digest = hashlib.sha256((self._settings + content_key).encode()).hexdigest()
        return self._directory / f"{digest}.json"

    def _read(self, content_key: str) -> Any:
        path = self._path(content_key)
        return json.loads(path.read_bytes()) if path.is_file() else None

    def _write(self, content_key: str, value: Any) -> None:
        with atomic_file(self._path(content_key)) as stream:
            stream.write(canonical_line(value).encode())

    def task(self, content_key: str) -> TaskPart | None:
        """A finished task, or None."""
        value = self._read(content_key)
        if value is None:
            return None
        return TaskPart(**value | {"scores": [_item_score(row) for row in value["scores"]]})

    def keep_task(self, content_key: str, part: TaskPart) -> None:
        """Store a finished task."""
        self._write(content_key, asdict(part))

    def documents(self, content_key: str) -> list[DocumentScore] | None:
        """A finished chunk of documents, or None."""
        value = self._read(content_key)
        return None if value is None else [DocumentScore(**row) for row in value]

    def keep_documents(self, content_key: str, scores: Sequence[DocumentScore]) -> None:
        """Store a finished chunk of documents."""
        self._write(content_key, [asdict(score) for score in scores])

    def remove(self) -> None:
        """Everything kept; called when the results are whole."""
        shutil.rmtree(self._directory, ignore_errors=True)

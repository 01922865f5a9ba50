"""What the core is asked to do: stages over document files, as ``dolma_core::pipeline::Plan`` takes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dolma import _native
from dolma.files.store import Store, current

if TYPE_CHECKING:
    from dolma.tagging.workers import UserTaggers  # it imports multiprocessing

__all__ = ["Document", "Plan", "skipped_rows"]


@dataclass(frozen=True)
class Document:
    """A document file."""

    path: str
    """Where it can be opened."""
    name: str
    """As the user named it: a URL if ``path`` is a copy."""
    compression: str | None = None
    """Packing, as an extension, if the name does not tell it."""


@dataclass
class Plan:
    """Stages whose data goes from one to the next in memory. ``keep``: what the stage makes is written too."""

    documents: Iterable[Document]
    threads: int
    generate_ids: bool = False
    skip_bad_rows: int = 0
    lazy: bool = False
    """Documents that cheap rules drop are not tagged by expensive taggers."""
    share: tuple[int, int] | None = None
    """The part of the work to do, and how many there are, if other processes do the rest."""
    merge: int | None = None
    """Only publish what so many shares made."""
    stages: dict[str, Any] = field(default_factory=dict)
    users: Sequence[UserTaggers | None] = ()
    """For each tagging stage: its taggers that are written in Python."""
    extract: Sequence[Any] | None = None
    """Of a stage that extracts: its extractors, and the taggers before and after them."""

    def add(self, command: str, settings: Mapping[str, Any], keep: bool = True) -> None:
        """Adds a stage: `tag` and `dedupe` any number of times, `mix` and `tokens` once, `extract` alone."""
        stage = {"stage": settings, "keep": keep}
        if command in ("tag", "dedupe"):
            self.stages.setdefault(command, []).append(stage)
        else:
            self.stages[command] = settings if command in ("tokens", "extract") else stage

    def to_json(self) -> str:
        """As the core takes it."""
        plan = {
            "documents": list({document.path: document for document in self.documents}.values()),
            "threads": self.threads,
            "lazy": self.lazy,
            "rows": {"generate_ids": self.generate_ids, "skip_bad_rows": self.skip_bad_rows},
            "share": dict(zip(("index", "count"), self.share, strict=True)) if self.share else None,
            "merge": self.merge,
            **self.stages,
        }
        return json.dumps(plan, default=vars)

    def pending(self) -> list[list[int]]:
        """For each tagging stage, the positions of the files that it still has to read."""
        store = self._store()
        return _native.pending(self.to_json(), store)

    def run(self, report: Callable[..., None]) -> dict[str, Any]:
        """Does what is not done, and gives a summary: by command, a list of `tag` and `dedupe`."""
        found: dict[str, Any] = json.loads(_native.run(self.to_json(), report, self._store(), self.users, self.extract))
        return found

    @staticmethod
    def _store() -> Store | None:
        store = current()
        if store is not None:
            store.settle()  # what is known of a file does not change when its upload ends
        return store


def skipped_rows(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, int, str, str]]:
    """File, line, code and message of each row that a summary says was skipped."""
    return [(row["file"], row["line"], row["code"], row["message"]) for row in rows]

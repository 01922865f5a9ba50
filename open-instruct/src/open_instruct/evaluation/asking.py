"""Answers and scores of a model, from the cells where they are finished, else from the model; with progress."""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import WRITER
from .cells import Cells
from .items import Answer, Decoding, Model, Prompt, Score

__all__ = ["Asker"]

log = logging.getLogger(__name__)
_LINE_EVERY_S = 10.0
_STORED_AT_ONCE = 16  # what a killed run does again at most


class Asker:
    """Asks models, and keeps what they say in a directory of cells."""

    def __init__(self, cells: Path) -> None:
        self._directory = cells
        self._cells: dict[str, Cells] = {}

    def _of(self, model: Model) -> Cells:
        identity = {"model": model.identity, "writer": WRITER}
        return self._cells.setdefault(Cells.key(identity), Cells(self._directory, identity))

    def answers(self, title: str, model: Model, prompts: Sequence[Prompt], decoding: Decoding) -> list[Answer]:
        """Answer the prompts; equal ones once. Raises WorkError; what was answered before is kept."""
        cells = self._of(model)
        keys = [Cells.key("answer", asdict(prompt), asdict(decoding)) for prompt in prompts]
        found = {key: Answer(**value) for key in keys if (value := cells.get(key)) is not None}
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in found}
        progress = _Progress(title, len(missing))
        waiting: list[tuple[str, Any]] = []
        names = list(missing)

        def keep(index: int, answer: Answer) -> None:
            found[names[index]] = answer
            waiting.append((names[index], asdict(answer)))
            progress.add()
            if len(waiting) >= _STORED_AT_ONCE:
                cells.keep(waiting)
                waiting.clear()

        try:
            if missing:
                model.generate(list(missing.values()), decoding, keep)
        finally:
            if waiting:
                cells.keep(waiting)
        return [found[key] for key in keys]

    def scores(
        self, title: str, model: Model, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]]
    ) -> list[list[Score]]:
        """Score the continuations of each prompt. Raises WorkError; what was scored before is kept."""
        cells = self._of(model)
        progress = _Progress(title, len(prompts))
        found, waiting = [], list[tuple[str, Any]]()
        try:
            for prompt, choices in zip(prompts, continuations, strict=True):
                key = Cells.key("score", asdict(prompt), list(choices))
                value = cells.get(key)
                if value is None:
                    value = [asdict(score) for score in model.score(prompt, choices)]
                    waiting.append((key, value))
                found.append([Score(**score) for score in value])
                progress.add()
                if len(waiting) >= _STORED_AT_ONCE:
                    cells.keep(waiting)
                    waiting.clear()
        finally:
            if waiting:
                cells.keep(waiting)
        return found


class _Progress:
    """A line every ten seconds."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total, self._done = title, total, 0
        self._began = self._last = time.monotonic()

    def add(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._last >= _LINE_EVERY_S:
            self._last = now
            left = int((self._total - self._done) * (now - self._began) / self._done)
            log.info("%s  %d/%d items  eta %d:%02d", self._title, self._done, self._total, left // 60, left % 60)

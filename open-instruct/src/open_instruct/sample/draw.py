"""Several answers of a checkpoint to each prompt, kept as they finish."""

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import WRITER
from ..config import RuntimeSettings, SamplingSettings, TemplateSettings
from ..evaluation.cells import Cells
from ..evaluation.items import Answer, Decoding
from ..evaluation.items import Prompt as Question
from ..evaluation.local import LocalModel
from ..verifiers.prompts import Prompt

__all__ = ["draw", "seed_of"]

log = logging.getLogger(__name__)
_LINE_EVERY_S = 10.0
_STORED_AT_ONCE = 16  # answers: what a killed run does again at most


def seed_of(prompt: Prompt, sample: int, seed: int) -> int:
    """Return the seed of one answer: from the prompt's text, not from its place, so that other rows do not matter."""
    text = json.dumps([seed, sample, list(prompt.messages)], sort_keys=True, ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def draw(
    directory: Path,
    prompts: Sequence[Prompt],
    count: int,
    sampling: SamplingSettings,
    template: TemplateSettings,
    runtime: RuntimeSettings,
    dtype: str,
    batch: int,
    kept: Path,
) -> list[list[Answer] | None]:
    """Return `count` answers to each prompt; None for a prompt that leaves no room for the longest answer.

    Finished answers are stored in the directory `kept` and not generated again.

    Raises:
        ConfigError, FormatError: a checkpoint or a template that does not fit.
        WorkError: the template refuses a prompt, or the model fails.
    """
    model = LocalModel(directory, directory.name, runtime, template, dtype, batch)
    try:
        cells = Cells(kept, {"model": model.identity, "writer": WRITER})
        decoding = Decoding(
            max_tokens=sampling.max_new_tokens, temperature=sampling.temperature, top_p=sampling.top_p, seed=0
        )
        questions = [Question(messages=prompt.messages) for prompt in prompts]
        fitting = [model.fits(question, sampling.max_new_tokens) for question in questions]
        wanted: dict[str, tuple[Question, int]] = {}
        names: list[list[str]] = []
        for prompt, question, fits in zip(prompts, questions, fitting, strict=True):
            seeds = [seed_of(prompt, sample, sampling.seed) for sample in range(count)] if fits else []
            names.append([Cells.key("sample", list(prompt.messages), asdict(decoding), seed) for seed in seeds])
            wanted |= {name: (question, seed) for name, seed in zip(names[-1], seeds, strict=True)}
        found = {name: Answer(**value) for name in wanted if (value := cells.get(name)) is not None}
        if found:
            log.info("sample  %d of %d answers are there already", len(found), len(wanted))
        _generate(model, {name: one for name, one in wanted.items() if name not in found}, decoding, cells, found)
        return [[found[name] for name in own] if fits else None for own, fits in zip(names, fitting, strict=True)]
    finally:
        model.close()


def _generate(
    model: LocalModel,
    missing: dict[str, tuple[Question, int]],
    decoding: Decoding,
    cells: Cells,
    found: dict[str, Answer],
) -> None:
    names = list(missing)
    waiting: list[tuple[str, Any]] = []
    done, began = 0, time.monotonic()
    last = began

    def keep(index: int, answer: Answer) -> None:
        nonlocal done, last
        found[names[index]] = answer
        waiting.append((names[index], asdict(answer)))
        if len(waiting) >= _STORED_AT_ONCE:
            cells.keep(waiting)
            waiting.clear()
        done, now = done + 1, time.monotonic()
        if now - last >= _LINE_EVERY_S:
            last = now
            left = int((len(names) - done) * (now - began) / done)
            log.info("sample  %d/%d answers  eta %d:%02d", done, len(names), left // 60, left % 60)

    try:
        if names:
            model.generate([one for one, _ in missing.values()], decoding, keep, [seed for _, seed in missing.values()])
    finally:
        if waiting:
            cells.keep(waiting)

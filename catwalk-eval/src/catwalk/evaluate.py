"""THE main path: a checkpoint, tasks and documents in; a results directory out. Read it top to bottom.

config → items and documents (checked before any work) → checkpoint (checked before any weight is read) → requests →
log-probabilities → scores, kept part by part → results.json, predictions, manifest.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from catwalk.config import RunConfig
from catwalk.formats.checkpoint import Checkpoint, read_checkpoint
from catwalk.formats.document import Document, document_files, read_documents
from catwalk.formats.jsonl import atomic_file
from catwalk.model.load import Tokenizer, load_model, load_tokenizer, resolve_device
from catwalk.model.scorer import Scorer
from catwalk.progress import Progress
from catwalk.results.provenance import (
    describe_inputs,
    describe_model,
    is_finished,
    part_settings,
    resolve_settings,
    save_config,
)
from catwalk.results.workspace import TaskPart, Workspace, documents_key, items_key
from catwalk.results.write import write_results
from catwalk.scoring.perplexity import document_score, windows
from catwalk.scoring.requests import build_requests, collect_scores
from catwalk.tasks.data import TaskData, load_items, locate, sample_items
from catwalk.tasks.registry import find_tasks
from catwalk.types import DocumentScore, Item, Task

__all__ = ["run"]

log = logging.getLogger(__name__)

_CHUNK_CHARS = 1 << 20  # documents scored, and kept, at a time


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What is to be scored, read and checked: items by task, document files with their numbers of rows."""

    tasks: list[tuple[Task, TaskData, list[Item]]]
    items_available: dict[str, int]
    document_files: list[Path]
    num_documents: int


def run(config: RunConfig) -> bool:
    """Score and write `config.output`; False when it already holds exactly these results.

    Raises:
        ConfigError: the request cannot be carried out.
        FormatError, DataError: an input is damaged.
    """
    work = _read_inputs(config)
    checkpoint = read_checkpoint(config.model)
    tokenizer = load_tokenizer(config.model)
    tokenizer.prefix_id(config.prefix)
    device = resolve_device(config.device)
    settings = resolve_settings(config, checkpoint, device, [task.name for task, _, _ in work.tasks])
    inputs = describe_inputs(config, checkpoint, [data for _, data, _ in work.tasks])
    if is_finished(config.output, settings, inputs):
        log.info("%s already holds these results", config.output)
        return False
    config.output.mkdir(parents=True, exist_ok=True)
    save_config(config)

    workspace = Workspace(config.output, part_settings(settings, checkpoint))
    engine = _Engine(config, checkpoint, tokenizer, device, settings)
    parts = {task.name: (task, _score_task(task, items, engine, workspace)) for task, _, items in work.tasks}
    documents = _score_documents(work, engine, workspace)

    write_results(
        config.output,
        model=describe_model(config, checkpoint),
        inference={key: settings[key] for key in ("dtype", "max_length_tokens", "windowing", "prefix")},
        tasks=parts,
        items_available=work.items_available,
        documents=documents,
        config=settings,
        inputs=inputs,
    )
    engine.write_metrics(config.output / "metrics.jsonl")
    workspace.remove()
    return True


def _read_inputs(config: RunConfig) -> _Work:
    """Everything to be scored; a damaged row or an absent file stops the run here, before the model is loaded."""
    tasks = []
    items_available = {}
    for task in find_tasks(config.tasks):
        data = locate(task, config.data)
        items = load_items(task, data)
        items_available[task.name] = len(items)
        tasks.append((task, data, sample_items(items, config.limit, config.seed)))
    files = [file for path in config.documents for file in document_files(path)]
    num_documents = sum(1 for file in files for _ in read_documents(file))
    return _Work(tasks=tasks, items_available=items_available, document_files=files, num_documents=num_documents)


class _Engine:
    """The loaded model, made when the first part needs it: a run that only resumes its end loads nothing."""

    def __init__(
        self,
        config: RunConfig,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        device: torch.device,
        settings: dict[str, Any],
    ) -> None:
        self.tokenizer = tokenizer
        self.prefix_id = tokenizer.prefix_id(config.prefix)
        self.max_length_tokens: int = settings["max_length_tokens"]
        self.windowing: str = settings["windowing"]
        self._config, self._checkpoint, self._device, self._settings = config, checkpoint, device, settings
        self._scorer: Scorer | None = None
        self._metrics: list[dict[str, Any]] = []

    @property
    def scorer(self) -> Scorer:
        """Loaded once."""
        if self._scorer is None:
            model = load_model(self._checkpoint, self.tokenizer, self._config.dtype, self._device)
            self._scorer = Scorer(
                model=model,
                architecture=self._checkpoint.architecture,
                device=self._device,
                vocab_size=model.get_input_embeddings().weight.shape[0],
                batch_tokens=self._settings["batch_tokens"],
                share_context=self._settings["share_context"],
            )
        return self._scorer

    def finished(self, progress: Progress) -> None:
        """Close a stage."""
        self._metrics.append(progress.finish())

    def write_metrics(self, path: Path) -> None:
        """Rates and times, which are not part of the artifact."""
        with atomic_file(path) as stream:
            stream.writelines((json.dumps(row) + "\n").encode() for row in self._metrics)


def _score_task(task: Task, items: list[Item], engine: _Engine, workspace: Workspace) -> TaskPart:
    """One task: kept from an interrupted run, or scored now."""
    key = items_key(items)
    part = workspace.task(key)
    if part is not None:
        log.info("%s: kept from an earlier run", task.name)
        return part
    built = build_requests(items, engine.tokenizer, engine.prefix_id, engine.max_length_tokens)
    scorer = engine.scorer
    progress = Progress(task.name, "requests", len(built.requests))
    sums = scorer.score(built.requests, progress)
    part = TaskPart(collect_scores(items, built, [float(value) for value in sums]), built.truncated, built.crossings)
    workspace.keep_task(key, part)
    engine.finished(progress)
    if part.truncated:
        log.warning("%s: %d contexts were cut on the left to fit the window", task.name, part.truncated)
    if part.crossings:
        log.warning("%s: %d continuations begin within a token of the context", task.name, part.crossings)
    return part


def _score_documents(work: _Work, engine: _Engine, workspace: Workspace) -> list[DocumentScore]:
    """Every document's sums, in the order of the files."""
    scores: list[DocumentScore] = []
    if not work.document_files:
        return scores
    progress = Progress("perplexity", "documents", work.num_documents)
    for chunk in _chunks(work.document_files):
        key = documents_key(chunk)
        part = workspace.documents(key)
        if part is None:
            part = _score_chunk(chunk, engine, progress)
            workspace.keep_documents(key, part)
        scores += part
    engine.finished(progress)
    return scores


def _chunks(files: list[Path]) -> Iterator[list[Document]]:
    chunk: list[Document] = []
    chars = 0
    for file in files:
        for document in read_documents(file):
            chunk.append(document)
            chars += len(document.text)
            if chars >= _CHUNK_CHARS:
                yield chunk
                chunk, chars = [], 0
    if chunk:
        yield chunk


def _score_chunk(chunk: list[Document], engine: _Engine, progress: Progress) -> list[DocumentScore]:
    ids = engine.tokenizer.encode([document.text for document in chunk])
    pieces = [windows(tokens, engine.prefix_id, engine.max_length_tokens, engine.windowing) for tokens in ids]
    requests = [request for piece in pieces for request in piece]
    sums = iter(engine.scorer.score(requests, progress, len(chunk) / max(1, len(requests))))
    scores = []
    for document, tokens, piece in zip(chunk, ids, pieces, strict=True):
        scores.append(document_score(document, len(tokens), sum(float(next(sums)) for _ in piece)))
    return scores

"""THE main path: a checkpoint, tasks and documents in; a results directory out. Read it top to bottom.

config → items and documents (checked before any work) → checkpoint (checked before any weight is read) → requests →
log-probabilities → scores, kept part by part → results.json, predictions, manifest.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from catwalk.config import RunConfig
from catwalk.corpus import Corpus, find_corpus
from catwalk.errors import DataError
from catwalk.formats.checkpoint import Checkpoint, read_checkpoint
from catwalk.formats.document import Document, read_documents
from catwalk.formats.inspection import Inspection, inspect_checkpoint
from catwalk.formats.json_lines import atomic_file
from catwalk.model.load import Tokenizer, load_model, load_tokenizer, resolve_device
from catwalk.model.scorer import NonFiniteError, Scorer, non_finite_cause, probed_scorer
from catwalk.progress import Progress
from catwalk.results.provenance import (
    describe_inference,
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
from catwalk.scoring.requests import ItemRequests, build_requests, collect_scores
from catwalk.tasks.data import TaskData, load_items, locate, sample_items
from catwalk.tasks.registry import find_tasks
from catwalk.types import DocumentScore, Item, Request, Task

__all__ = ["run"]

log = logging.getLogger(__name__)

_CHUNK_CHARS = 1 << 20  # documents scored, and kept, at a time


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What is to be scored, read and checked: items by task, document files with their numbers of rows."""

    tasks: list[tuple[Task, TaskData, list[Item]]]
    items_available: dict[str, int]
    corpus: Corpus


def run(config: RunConfig) -> bool:
    """Score and write `config.output`; False when it already holds exactly these results.

    Raises:
        ConfigError: the request cannot be carried out.
        FormatError, DataError: an input is damaged.
    """
    work = _read_inputs(config)
    checkpoint = read_checkpoint(config.model)
    inspection = inspect_checkpoint(config.model)
    tokenizer = load_tokenizer(inspection)
    prefix = tokenizer.prefix(config.prefix)
    device = resolve_device(config.device)
    names = [task.name for task, _, _ in work.tasks]
    settings = resolve_settings(config, inspection, prefix, work.corpus.split, device, names)
    inputs = describe_inputs(config, checkpoint, [data for _, data, _ in work.tasks], work.corpus.inputs)
    if is_finished(config.output, settings, inputs):
        log.info("%s already holds these results", config.output)
        return False

    workspace = Workspace(config.output, part_settings(settings, checkpoint))
    engine = _Engine(checkpoint, inspection, tokenizer, settings, device)
    # all tasks before the first is scored, so that a choice that cannot be scored stops the run now
    prepared = [(task, items, _prepare(task, items, engine, workspace)) for task, _, items in work.tasks]
    config.output.mkdir(parents=True, exist_ok=True)
    save_config(config)
    parts = {task.name: (task, _score_task(task, items, ready, engine, workspace)) for task, items, ready in prepared}
    documents = _score_documents(work.corpus, engine, workspace)

    write_results(
        config.output,
        model=describe_model(config, checkpoint, inspection),
        inference=describe_inference(settings, tokenizer.document_prefix),
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
    return _Work(tasks=tasks, items_available=items_available, corpus=find_corpus(config.documents, config.split))


class _Engine:
    """The loaded model, made when the first part needs it: a run that only resumes its end loads nothing."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        inspection: Inspection,
        tokenizer: Tokenizer,
        settings: dict[str, Any],
        device: torch.device,
    ) -> None:
        self.tokenizer = tokenizer
        self.prefix_id = tokenizer.prefix_id(settings["prefix"])
        self.max_length_tokens: int = settings["max_length_tokens"]
        self.windowing: str = settings["windowing"]
        self.unknown_tokens = 0
        self._checkpoint, self._inspection, self._settings, self._device = checkpoint, inspection, settings, device
        self._scorer: Scorer | None = None
        self._metrics: list[dict[str, Any]] = []

    @property
    def scorer(self) -> Scorer:
        """Loaded once."""
        if self._scorer is None:
            self._scorer = probed_scorer(
                load_model(self._checkpoint, self._settings["dtype"], self._device),
                device=self._device,
                batch_tokens=self._settings["batch_tokens"],
                shared_length=self._inspection.plain_length if self._settings["share_context"] else 0,
                max_length_tokens=self.max_length_tokens,
                border=self._inspection.rotary_switch,
            )
        return self._scorer

    def score(
        self, requests: Sequence[Request], where: Callable[[int], str], progress: Progress, weight: float = 1.0
    ) -> list[float]:
        """Σ ln p of each request; `where` names the text of a request.

        Raises:
            DataError: for a log-probability that is not finite, with the likely cause.
        """
        scorer = self.scorer
        try:
            return [float(value) for value in scorer.score(requests, progress, weight)]
        except NonFiniteError as error:
            problem = f"{where(error.request)}: the model's log-probability is {error.value}; expected a finite number"
            raise DataError(problem, hint=non_finite_cause(scorer.model)) from error

    def finished(self, progress: Progress) -> None:
        """Close a stage."""
        self._metrics.append(progress.finish())

    def write_metrics(self, path: Path) -> None:
        """Rates and times, which are not part of the artifact."""
        with atomic_file(path) as stream:
            stream.writelines((json.dumps(row) + "\n").encode() for row in self._metrics)


def _prepare(task: Task, items: list[Item], engine: _Engine, workspace: Workspace) -> TaskPart | ItemRequests:
    """A task's scores where an interrupted run left them, else its requests."""
    part = workspace.task(items_key(items))
    if part is not None:
        return part
    try:
        return build_requests(items, engine.tokenizer, engine.prefix_id, engine.max_length_tokens)
    except DataError as error:
        raise DataError(f"{task.name}, {error}", hint=error.hint) from error


def _score_task(
    task: Task, items: list[Item], ready: TaskPart | ItemRequests, engine: _Engine, workspace: Workspace
) -> TaskPart:
    """One task: kept from an interrupted run, or scored now."""
    if isinstance(ready, TaskPart):
        log.info("%s: kept from an earlier run", task.name)
        return ready
    progress = Progress(task.name, "requests", len(ready.requests))
    sums = engine.score(ready.requests, lambda one: f'{task.name}, item "{items[ready.item_of(one)].id}"', progress)
    part = TaskPart(
        scores=collect_scores(items, ready, sums),
        truncated=ready.truncated,
        crossings=ready.crossings,
        windowed=len(ready.further),
    )
    workspace.keep_task(items_key(items), part)
    engine.finished(progress)
    if part.truncated:
        log.warning("%s: %d contexts were cut on the left to fit the window", task.name, part.truncated)
    if part.crossings:
        log.warning("%s: %d continuations begin within a token of the context", task.name, part.crossings)
    if part.windowed:
        log.warning("%s: %d continuations are longer than one window; scored in several", task.name, part.windowed)
    return part


def _score_documents(corpus: Corpus, engine: _Engine, workspace: Workspace) -> list[DocumentScore]:
    """Every document's sums, in the order of the files."""
    scores: list[DocumentScore] = []
    if not corpus.files:
        return scores
    progress = Progress("perplexity", "documents", corpus.num_documents)
    for chunk in _chunks(corpus.files):
        key = documents_key(chunk)
        part = workspace.documents(key)
        if part is None:
            part = _score_chunk(chunk, engine, progress)
            workspace.keep_documents(key, part)
        scores += part
    engine.finished(progress)
    if engine.unknown_tokens:
        message = "perplexity: the tokenizer has no token for %d pieces of text (unk): bits per byte come out too low"
        log.warning(message, engine.unknown_tokens)
    return scores


def _chunks(files: Sequence[Path]) -> Iterator[list[Document]]:
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


def _place(document: Document) -> str:
    return f'document "{document.id}" of source "{document.source}"'


def _score_chunk(chunk: list[Document], engine: _Engine, progress: Progress) -> list[DocumentScore]:
    tokenizer = engine.tokenizer
    ids = tokenizer.encode([document.text for document in chunk])
    for document, tokens in zip(chunk, ids, strict=True):
        tokenizer.check(tokens, _place(document))
        if document.text.strip() and not tokens:
            problem = f"{_place(document)}: the tokenizer turns its text into no tokens; expected at least one"
            raise DataError(problem, hint="remove the document, or use another tokenizer")
        engine.unknown_tokens += sum(token == tokenizer.unk_token_id for token in tokens)
    pieces = [windows(tokens, engine.prefix_id, engine.max_length_tokens, engine.windowing) for tokens in ids]
    requests = [request for piece in pieces for request in piece]
    owners = [document for document, piece in zip(chunk, pieces, strict=True) for _ in piece]
    weight = len(chunk) / max(1, len(requests))
    sums = iter(engine.score(requests, lambda one: _place(owners[one]), progress, weight))
    scores = []
    for document, tokens, piece in zip(chunk, ids, pieces, strict=True):
        scores.append(document_score(document, len(tokens), sum(next(sums) for _ in piece)))
    return scores

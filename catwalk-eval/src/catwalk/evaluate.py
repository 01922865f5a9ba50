"""`catwalk run`, the main path: a checkpoint, tasks and documents in; a results directory out. Read it top to bottom.

Everything to be scored and the checkpoint are read and checked first. Then each task, and each million characters of
documents, is scored and kept, so that the same command resumes a stopped run. The artifact is written at the end.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
import yaml

from catwalk import DISTRIBUTION, WRITER, __version__
from catwalk.config import RunConfig
from catwalk.corpus import Corpus, find_corpus
from catwalk.formats.checkpoint import Checkpoint, Inspection, inspect_checkpoint, read_checkpoint
from catwalk.formats.contract import ConfigError, WorkError, atomic_file, write_file
from catwalk.formats.document import Document, read_documents
from catwalk.formats.manifest import MANIFEST, describe_input, read_manifest
from catwalk.items import load_items, locate, sample_items
from catwalk.model.load import Tokenizer, load_model, load_tokenizer, resolve_device
from catwalk.model.scorer import NonFiniteError, Scorer, non_finite_cause, probed_scorer
from catwalk.perplexity import Windowing, document_score, windows
from catwalk.progress import Progress
from catwalk.requests import ItemRequests, build_requests, collect_scores
from catwalk.results import (
    ScoredTask,
    TaskPart,
    Workspace,
    describe_inference,
    describe_model,
    documents_key,
    items_key,
    write_results,
)
from catwalk.settings import as_mapping
from catwalk.tasks import find_tasks
from catwalk.types import DocumentScore, Item, Request, Task

__all__ = ["run"]

log = logging.getLogger(__name__)

_DEFAULT_LENGTH = 2048  # OLMo and Paloma score with 2048 tokens
_BATCH_TOKENS = {"cpu": 1024}  # more only leaves the caches: measured 1.4 times slower at 4096
_BATCH_TOKENS_DEVICE = 32768
_CHUNK_CHARS = 1 << 20  # documents scored, and kept, at a time


def run(config: RunConfig) -> bool:
    """Score and write `config.output_dir`; False when it already contains exactly these results.

    Raises:
        ConfigError: the request cannot be carried out.
        FormatError, WorkError: an input is damaged.
    """
    # ---- read what is to be scored: a damaged row or a missing file stops the run before the model is loaded
    tasks: list[tuple[Task, list[Item]]] = []
    items_available: dict[str, int] = {}
    inputs: list[dict[str, Any]] = []
    for task in find_tasks(config.tasks):
        data = locate(task, config.data)
        items = load_items(task, data)
        items_available[task.name] = len(items)
        tasks.append((task, sample_items(items, config.limit, config.seed)))
        inputs += data.manifest_inputs()
    corpus = find_corpus(config.documents, config.split)

    # ---- read the checkpoint, but no weights yet
    checkpoint = read_checkpoint(config.model)
    inspection = inspect_checkpoint(config.model)
    tokenizer = load_tokenizer(inspection)
    device = resolve_device(config.device)

    # ---- resolve the settings; done if the output already has these results
    settings = _resolve_settings(config, inspection, tokenizer, corpus, device, [task.name for task, _ in tasks])
    inputs = _sorted_inputs(inputs, config, checkpoint, corpus)
    if _is_finished(config.output_dir, settings, inputs):
        log.info("%s already contains these results", config.output_dir)
        return False
    workspace = Workspace(config.output_dir, _part_settings(settings, checkpoint))
    engine = _Engine(checkpoint, inspection, tokenizer, settings, device)

    # ---- turn every task into requests, so that a choice that cannot be scored stops the run before any is scored
    prepared = [(task, items, _prepare(task, items, engine, workspace)) for task, items in tasks]

    # ---- score
    config.output_dir.mkdir(parents=True, exist_ok=True)
    _save_config(config)
    scored = [
        ScoredTask(
            task=task,
            items_available=items_available[task.name],
            part=_score_task(task, items, ready, engine, workspace),
        )
        for task, items, ready in prepared
    ]
    documents = _score_documents(corpus, engine, workspace)

    # ---- write
    write_results(
        config.output_dir,
        model=describe_model(settings["name"], checkpoint, inspection),
        inference=describe_inference(settings, tokenizer.document_prefix),
        tasks=scored,
        documents=documents,
        config=settings,
        inputs=inputs,
    )
    engine.write_metrics(config.output_dir / "metrics.jsonl")
    workspace.remove()
    return True


# ---- settings and inputs: what the results depend on


def _resolve_settings(
    config: RunConfig,
    inspection: Inspection,
    tokenizer: Tokenizer,
    corpus: Corpus,
    device: torch.device,
    tasks: list[str],
) -> dict[str, Any]:
    """`config` of the manifest: all that the bytes of the results depend on, except the inputs.

    Raises:
        ConfigError: for a window longer than the model's positions, or a prefix that the tokenizer lacks.
    """
    limit = inspection.max_positions
    length = config.max_length_tokens or limit or _DEFAULT_LENGTH
    prefix = tokenizer.prefix(config.prefix)
    if limit is not None and length > limit:
        problem = f"max_length_tokens: {length} is more than the model's {limit} positions"
        raise ConfigError(problem, hint=f"--max-length-tokens {limit}")
    return {
        "batch_tokens": config.batch_tokens or _BATCH_TOKENS.get(device.type, _BATCH_TOKENS_DEVICE),
        "device": device.type,
        "dtype": config.dtype,
        "limit": config.limit,
        "max_length_tokens": length,
        "name": config.name or config.model.resolve().name,
        "prefix": prefix,
        "seed": config.seed,
        "share_context": config.share_context and inspection.plain_length != 0,
        "split": corpus.split,
        "tasks": tasks,
        "windowing": config.windowing,
    }


def _part_settings(settings: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """What the scores of one part depend on, except its texts: settings, weights, software."""
    chosen = ("batch_tokens", "device", "dtype", "max_length_tokens", "prefix", "share_context", "windowing")
    software = {DISTRIBUTION: __version__, "torch": torch.__version__, "transformers": transformers.__version__}
    software["tokenizers"] = tokenizers.__version__
    identity = hashlib.sha256(json.dumps(checkpoint.sha256, sort_keys=True).encode()).hexdigest()
    return {"checkpoint": identity, "software": software, **{key: settings[key] for key in chosen}}


def _sorted_inputs(
    task_data: list[dict[str, Any]], config: RunConfig, checkpoint: Checkpoint, corpus: Corpus
) -> list[dict[str, Any]]:
    """`inputs` of the manifest: the tasks' data, the checkpoint, the documents."""
    inputs = list(task_data)
    if checkpoint.manifest is None:
        for name in checkpoint.sha256:
            inputs += describe_input("checkpoint", config.model / name, config.output_dir)
    else:
        inputs += describe_input("checkpoint", config.model, config.output_dir)
    for path in corpus.inputs:
        inputs += describe_input("documents", path, config.output_dir)
    return sorted(inputs, key=lambda entry: (entry["role"], entry["path"]))


def _is_finished(output: Path, settings: dict[str, Any], inputs: list[dict[str, Any]]) -> bool:
    """Whether the output is exactly these results.

    Raises:
        ConfigError: it is another artifact, which is never overwritten.
    """
    if not (output / MANIFEST).is_file():
        return False
    found = read_manifest(output)
    if (found.format, found.config, found.inputs, found.writer) == ("results", settings, inputs, WRITER):
        return True
    problem = f"output_dir: {output} contains another artifact; expected these results or an empty directory"
    raise ConfigError(problem, hint="choose another --output-dir, or remove that directory")


def _save_config(config: RunConfig) -> None:
    """The request with every default, next to the results but not part of them."""
    text = yaml.safe_dump(as_mapping(config), sort_keys=True, allow_unicode=True)
    write_file(config.output_dir / "config.yaml", text.encode())


# ---- the model


class _Engine:
    """The tokenizer, and the model, which is loaded for the first part to be scored: resuming may not need it."""

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
        self.windowing: Windowing = settings["windowing"]
        self.unknown_tokens = 0
        self._checkpoint, self._inspection, self._settings, self._device = checkpoint, inspection, settings, device
        self._scorer: Scorer | None = None
        self._metrics: list[dict[str, Any]] = []

    def score(
        self, requests: Sequence[Request], where: Callable[[int], str], progress: Progress, weight: float = 1.0
    ) -> list[float]:
        """Σ ln p of each request; `where` names the text of a request.

        Raises:
            WorkError: for a log-probability that is not finite, with the likely cause.
        """
        if self._scorer is None:
            self._scorer = probed_scorer(
                load_model(self._checkpoint, self._settings["dtype"], self._device),
                device=self._device,
                batch_tokens=self._settings["batch_tokens"],
                shared_length=self._inspection.plain_length if self._settings["share_context"] else 0,
                max_length_tokens=self.max_length_tokens,
                rotary_switch=self._inspection.rotary_switch,
            )
        try:
            return [float(value) for value in self._scorer.score(requests, progress, weight)]
        except NonFiniteError as error:
            problem = f"{where(error.request)}: the model's log-probability is {error.value}; expected a finite number"
            raise WorkError(problem, hint=non_finite_cause(self._scorer.model)) from error

    def finished(self, progress: Progress) -> None:
        """Close a stage."""
        self._metrics.append(progress.finish())

    def write_metrics(self, path: Path) -> None:
        """Rates and times, which are not part of the artifact."""
        with atomic_file(path) as stream:
            stream.writelines((json.dumps(row) + "\n").encode() for row in self._metrics)


# ---- tasks


def _prepare(task: Task, items: list[Item], engine: _Engine, workspace: Workspace) -> TaskPart | ItemRequests:
    """A task's scores if an interrupted run kept them, else its requests."""
    part = workspace.task(items_key(items))
    if part is not None:
        return part
    try:
        return build_requests(items, engine.tokenizer, engine.prefix_id, engine.max_length_tokens)
    except WorkError as error:
        raise WorkError(f"{task.name}, {error}", hint=error.hint) from error


def _score_task(
    task: Task, items: list[Item], ready: TaskPart | ItemRequests, engine: _Engine, workspace: Workspace
) -> TaskPart:
    """The scores of one task, kept from an interrupted run or scored now."""
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


# ---- documents


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
        message = "perplexity: the tokenizer has no token for %d pieces of text (unk): bits per byte are too low"
        log.warning(message, engine.unknown_tokens)
    return scores


def _chunks(files: Sequence[Path]) -> Iterator[list[Document]]:
    chunk: list[Document] = []
    chars = 0
    for document in read_documents(files):
        chunk.append(document)
        chars += len(document.text)
        if chars >= _CHUNK_CHARS:
            yield chunk
            chunk, chars = [], 0
    if chunk:
        yield chunk


def _score_chunk(chunk: list[Document], engine: _Engine, progress: Progress) -> list[DocumentScore]:
    tokenizer = engine.tokenizer
    ids = tokenizer.encode([document.text for document in chunk])
    for document, tokens in zip(chunk, ids, strict=True):
        tokenizer.check(tokens, _name(document))
        if document.text.strip() and not tokens:
            problem = f"{_name(document)}: the tokenizer produces no tokens; expected at least one"
            raise WorkError(problem, hint="remove the document, or use another tokenizer")
        engine.unknown_tokens += sum(token == tokenizer.unk_token_id for token in tokens)
    pieces = [windows(tokens, engine.prefix_id, engine.max_length_tokens, engine.windowing) for tokens in ids]
    requests = [request for piece in pieces for request in piece]
    owners = [document for document, piece in zip(chunk, pieces, strict=True) for _ in piece]
    weight = len(chunk) / max(1, len(requests))
    sums = iter(engine.score(requests, lambda one: _name(owners[one]), progress, weight))
    return [
        document_score(document, len(tokens), sum(next(sums) for _ in piece))
        for document, tokens, piece in zip(chunk, ids, pieces, strict=True)
    ]


def _name(document: Document) -> str:
    return f'document "{document.id}" of source "{document.source}"'

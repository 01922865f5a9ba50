"""`catwalk run`, the main path: a checkpoint, tasks and documents in; a results directory out. Read it top to bottom.

Everything to be scored and the checkpoint are read and checked first. Then each task, and each million characters of
documents, is scored and kept, so that the same command resumes a stopped run. The artifact is written at the end.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from catwalk import WRITER
from catwalk.backends.huggingface import HuggingFace, open_checkpoint
from catwalk.config import RunConfig
from catwalk.corpus import Corpus, find_corpus
from catwalk.formats.checkpoint import Checkpoint
from catwalk.formats.contract import ConfigError, WorkError, atomic_file, write_file
from catwalk.formats.document import Document, read_documents
from catwalk.formats.manifest import MANIFEST, describe_input, read_manifest
from catwalk.items import load_items, locate, sample_items
from catwalk.perplexity import document_score
from catwalk.progress import Progress
from catwalk.requests import collect_scores, item_pairs, pair_owner
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
from catwalk.types import DocumentScore, Item, PairError, Task

__all__ = ["run"]

log = logging.getLogger(__name__)

Metrics = list[dict[str, Any]]
"""Rows of metrics.jsonl."""

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
    model = open_checkpoint(
        config.model,
        device=config.device,
        dtype=config.dtype,
        batch_tokens=config.batch_tokens,
        max_length_tokens=config.max_length_tokens,
        prefix=config.prefix,
        windowing=config.windowing,
        share_context=config.share_context,
        token_losses=config.token_losses,
    )

    # ---- done if the output already has these results
    settings = model.settings | {
        "limit": config.limit,
        "name": config.name or config.model.resolve().name,
        "seed": config.seed,
        "split": corpus.split,
        "tasks": [task.name for task, _ in tasks],
    }
    inputs = _sorted_inputs(inputs, config, model.checkpoint, corpus)
    if _is_finished(config.output_dir, settings, inputs):
        log.info("%s already contains these results", config.output_dir)
        return False
    workspace = Workspace(config.output_dir, model.identity)

    # ---- encode every task, so that a choice that cannot be scored stops the run before any is scored
    prepared = [(task, items, _check(task, items, model, workspace)) for task, items in tasks]

    # ---- score
    config.output_dir.mkdir(parents=True, exist_ok=True)
    _save_config(config)
    metrics: Metrics = []
    scored = [
        ScoredTask(
            task=task,
            items_available=items_available[task.name],
            part=_score_task(task, items, part, model, workspace, metrics),
        )
        for task, items, part in prepared
    ]
    documents = _score_documents(corpus, model, workspace, metrics)

    # ---- write
    write_results(
        config.output_dir,
        model=describe_model(settings["name"], model.checkpoint, model.inspection),
        inference=describe_inference(settings, model.tokenizer.document_prefix),
        tasks=scored,
        documents=documents,
        documents_found=corpus.num_documents,
        config=settings,
        inputs=inputs,
    )
    with atomic_file(config.output_dir / "metrics.jsonl") as stream:  # rates and times, not part of the artifact
        stream.writelines((json.dumps(row) + "\n").encode() for row in metrics)
    workspace.remove()
    return True


# ---- inputs: what the results depend on, besides the settings


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


# ---- tasks


def _check(task: Task, items: list[Item], model: HuggingFace, workspace: Workspace) -> TaskPart | None:
    """A task's scores if an interrupted run kept them. If not, whether all its items can be scored is checked."""
    part = workspace.task(items_key(items))
    if part is None:
        pairs = item_pairs(items)
        with _naming(lambda pair: f'{task.name}, item "{items[pair_owner(items, pair)].id}"'):
            model.check(pairs)
    return part


@contextmanager
def _naming(where: Callable[[int], str]) -> Iterator[None]:
    """Say of which text an error is."""
    try:
        yield
    except PairError as error:
        raise WorkError(f"{where(error.pair)}: {error.problems[-1].message}", hint=error.hint) from error


def _score_task(
    task: Task, items: list[Item], part: TaskPart | None, model: HuggingFace, workspace: Workspace, metrics: Metrics
) -> TaskPart:
    """The scores of one task, kept from an interrupted run or scored now."""
    if part is not None:
        log.info("%s: kept from an earlier run", task.name)
        return part
    pairs = item_pairs(items)
    progress = Progress(task.name, "requests", len(set(pairs)))
    model.advance = progress.advance
    with _naming(lambda pair: f'{task.name}, item "{items[pair_owner(items, pair)].id}"'):
        found = model.score(pairs)
    part = TaskPart(
        scores=collect_scores(items, found),
        truncated=len({pair.context for pair, one in zip(pairs, found, strict=True) if one.truncated}),
        crossings=len({pair for pair, one in zip(pairs, found, strict=True) if one.crossing}),
        windowed=len({pair for pair, one in zip(pairs, found, strict=True) if one.windows > 1}),
    )
    workspace.keep_task(items_key(items), part)
    metrics.append(progress.finish())
    if part.truncated:
        log.warning("%s: %d contexts were cut on the left to fit the window", task.name, part.truncated)
    if part.crossings:
        log.warning("%s: %d continuations begin within a token of the context", task.name, part.crossings)
    if part.windowed:
        log.warning("%s: %d continuations are longer than one window; scored in several", task.name, part.windowed)
    return part


# ---- documents


def _score_documents(corpus: Corpus, model: HuggingFace, workspace: Workspace, metrics: Metrics) -> list[DocumentScore]:
    """Every document's sums, in the order of the files."""
    scores: list[DocumentScore] = []
    if not corpus.files:
        return scores
    progress = Progress("perplexity", "documents", corpus.num_documents)
    for chunk in _chunks(corpus.files):
        key = documents_key(chunk)
        part = workspace.documents(key)
        if part is None:
            part = _score_chunk(chunk, model, progress)
            workspace.keep_documents(key, part)
        scores += part
    metrics.append(progress.finish())
    if model.unknown_tokens:
        message = "perplexity: the tokenizer has no token for %d pieces of text (unk): bits per byte are too low"
        log.warning(message, model.unknown_tokens)
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


def _score_chunk(chunk: list[Document], model: HuggingFace, progress: Progress) -> list[DocumentScore]:
    model.advance = lambda _, tokens: progress.advance(0, tokens)
    with _naming(lambda index: _name(chunk[index])):
        found = model.documents([document.text for document in chunk])
    progress.advance(len(chunk), 0)
    return [
        document_score(document, one.tokens, one.sum_logprob, one.types)
        for document, one in zip(chunk, found, strict=True)
    ]


def _name(document: Document) -> str:
    return f'document "{document.id}" of source "{document.source}"'

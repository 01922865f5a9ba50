"""`catwalk run`, the main path: models, tasks and documents in; results out. Read it from top to bottom.

1. Read the tasks' items and find the documents.
2. Open every model: tokenizer and configuration, but no weights yet.
3. Score. A cell is one model on one task, or on a million characters of documents; a finished cell is a file.
4. Write the results of each model from its cells.

With one `model`, the first error stops the run. With several `models`, a model or task that fails is reported at the
end, and the others are written.
"""

import errno
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from catwalk import WRITER
from catwalk.backends.opening import open_model
from catwalk.cells import Cells, documents_key
from catwalk.chat import Chat
from catwalk.config import RunConfig
from catwalk.corpus import Corpus, find_corpus
from catwalk.data import locate
from catwalk.formats.contract import ConfigError, FormatError, Problem, WorkError, atomic_file, first_line, write_file
from catwalk.formats.document import Document, read_documents
from catwalk.formats.manifest import MANIFEST, describe_input, read_manifest
from catwalk.generation import judge
from catwalk.items import load_items, sample_items
from catwalk.lm_eval_groups import GroupRule
from catwalk.lm_eval_tasks import Harness
from catwalk.perplexity import document_score
from catwalk.progress import Overall, Progress
from catwalk.questions import ItemQuestions
from catwalk.results import ScoredTask, describe_inference, write_results
from catwalk.rows import alarms
from catwalk.settings import as_mapping
from catwalk.tasks import HARNESS, find_tasks
from catwalk.types import Backend, DocumentScore, PairError, Questions, TaskPart

__all__ = ["plan", "run"]

log = logging.getLogger(__name__)

Metrics = list[dict[str, Any]]
"""Rows of metrics.jsonl."""

_CHUNK_CHARS = 1 << 20  # documents scored, and kept, at a time


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A task to ask, how many items it has before `limit`, and the entries of its data for a manifest."""

    questions: Questions
    items_available: int
    inputs: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A model that is open, what it is asked, and where its results and cells are."""

    name: str
    backend: Backend
    chat: Chat | None
    tasks: list[_Asked]
    output: Path
    cells: Cells


def run(config: RunConfig) -> bool:
    """Score every model and write its results; False when all were there already.

    Raises:
        ConfigError: the request cannot be carried out.
        FormatError: an input is damaged. WorkError: an input cannot be scored, or some models or tasks failed.
    """
    failures = _Failures(keep_going=bool(config.models))
    tasks, corpus, groups = _read(config, failures)
    models = _open(config, tasks, failures)
    overall = Overall([(one.name, _weights(one, corpus)) for one in models])
    wrote = False
    for model in models:
        with failures.caught(model.name):
            wrote |= _evaluate(model, corpus, groups, config, failures, overall)
        overall.leave(model.name)
    failures.report()
    return wrote


def plan(config: RunConfig) -> str:
    """The cells of a run as a table, without scoring any: which are finished, and how many requests the others have.

    Raises:
        ConfigError, FormatError, WorkError: as `run`.
    """
    failures = _Failures(keep_going=bool(config.models))
    tasks, corpus, _ = _read(config, failures)
    models = _open(config, tasks, failures)
    names = [one.questions.name for one in tasks] + (["documents"] if corpus.files else [])
    lines = ["| model | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for model in models:
        cells = []
        for one in model.tasks:
            count = len(set(one.questions.pairs)) + len(one.questions.prompts)
            cells.append("finished" if model.cells.has(one.questions.key) else f"{count:,}")
        if corpus.files:
            rest = sum(len(chunk) for chunk in _chunks(corpus.files) if not model.cells.has(documents_key(chunk)))
            cells.append(f"{rest:,}" if rest else "finished")
        lines.append(f"| {model.name} | " + " | ".join(cells) + " |")
    lines += ["", "Numbers are the requests, or documents, that are not scored yet."]
    failures.report()
    return "\n".join(lines) + "\n"


# ---- 1. read


def _read(config: RunConfig, failures: "_Failures") -> tuple[list[_Asked], Corpus, list[GroupRule]]:
    """Every task's items, the files of the documents, and the groups that the tasks belong to."""
    asked: list[_Asked] = []
    bridged = [name for name in config.tasks if name.startswith(HARNESS)]
    groups: list[GroupRule] = []
    if bridged:
        harness = Harness(bridged, config.lm_eval_include)
        groups = harness.groups
        for name in bridged:
            with failures.caught(name):
                for found in harness.questions(name, config.limit):
                    if any(found.name == one.questions.name for one in asked):
                        continue  # two groups share it
                    asked.append(_Asked(questions=found, items_available=found.items_available, inputs=[]))
    for task in find_tasks(tuple(name for name in config.tasks if name not in bridged)):
        with failures.caught(task.name):
            generated = task.kind == "generation"
            scores = judge(task, allow_code=config.allow_code) if generated else None
            data = locate(task, config.data, hub=config.hub, offline=config.offline)
            items = load_items(task, data)
            questions = ItemQuestions(
                name=task.name,
                split=task.split,
                primary_metric=task.primary_metric,
                items=sample_items(items, config.limit, config.seed),
                num_shots=task.shots.count if task.shots else 0,
                stop=task.stop,
                max_tokens=task.max_tokens,
                judge=scores,
                scoring=task.declaration if generated else "",
            )
            asked.append(_Asked(questions=questions, items_available=len(items), inputs=data.manifest_inputs()))
    asked.sort(key=lambda one: one.questions.name)
    return asked, find_corpus(config.documents, config.split), groups


# ---- 2. open


def _open(config: RunConfig, tasks: list[_Asked], failures: "_Failures") -> list[_Model]:
    """Every model that can be opened."""
    found: list[_Model] = []
    for name, spec in config.named_models().items():
        with failures.caught(name):
            backend = open_model(
                spec,
                device=config.device,
                dtype=config.dtype,
                batch_tokens=config.batch_tokens,
                max_length_tokens=config.max_length_tokens,
                prefix=config.prefix,
                windowing=config.windowing,
                boundary=config.boundary,
                share_context=config.share_context,
                token_losses=config.token_losses,
                offline=config.offline,
            )
            output = config.output_dir / name if config.models else config.output_dir
            cells = Cells(config.output_dir / ("cells" if config.models else "work"), backend.identity)
            chat = _chat(backend, config) if config.chat_template else None
            asked = tasks if chat is None else [_as_chats(one, chat) for one in tasks]
            found.append(_Model(name=name, backend=backend, chat=chat, tasks=asked, output=output, cells=cells))
    return found


def _chat(backend: Backend, config: RunConfig) -> Chat:
    if backend.tokenizer_directory is None:
        problem = "chat_template: the model has no tokenizer on this machine; expected one with a chat template"
        raise ConfigError(problem, hint="leave out --chat-template, or add tokenizer=DIRECTORY to the model")
    return Chat(backend.tokenizer_directory, config.system_instruction, config.fewshot_as_multiturn)


def _as_chats(asked: _Asked, chat: Chat) -> _Asked:
    questions = asked.questions
    assert isinstance(questions, ItemQuestions)  # the harness's tasks are refused with the settings
    return replace(asked, questions=replace(questions, items=[chat.item(item) for item in questions.items]))


# ---- 3. score, 4. write


def _evaluate(
    model: _Model,
    corpus: Corpus,
    groups: list[GroupRule],
    config: RunConfig,
    failures: "_Failures",
    overall: Overall,
) -> bool:
    """Score one model and write its results; False when they are there already."""
    backend = model.backend
    output = model.output
    tasks = model.tasks
    settings = backend.settings | {
        "limit": config.limit,
        "name": model.name,
        "seed": config.seed,
        "split": corpus.split,
        "tasks": [one.questions.name for one in tasks],
        **(model.chat.settings if model.chat else {}),
    }
    inputs = _sorted_inputs([entry for one in tasks for entry in one.inputs], model, corpus)
    if _is_finished(output, settings, inputs, replace=bool(config.models)):
        log.info("%s already contains these results", output)
        return False

    # encode every task, so that a choice that cannot be scored is found before any is scored
    ready: list[_Asked] = []
    for one in tasks:
        with failures.caught(f"{model.name}, {one.questions.name}"):
            if not model.cells.has(one.questions.key):
                with _naming(one.questions.where):
                    backend.check(one.questions.pairs)
            ready.append(one)

    output.mkdir(parents=True, exist_ok=True)
    _save_config(config)
    metrics: Metrics = []
    scored: list[ScoredTask] = []
    for one in ready:
        with failures.caught(f"{model.name}, {one.questions.name}"):
            part = _score_task(one.questions, backend, model.cells, metrics, overall)
            scored.append(ScoredTask(questions=one.questions, items_available=one.items_available, part=part))
    documents: list[DocumentScore] = []
    with failures.caught(f"{model.name}, documents"):
        documents = _score_documents(corpus, backend, model.cells, metrics, overall)
    if not scored and not documents and (tasks or corpus.files):
        return False  # everything failed, and is reported

    for stale in output.glob(".*.part"):
        stale.unlink()  # of a killed run
    write_results(
        output,
        model=backend.describe(model.name),
        inference=describe_inference(settings, backend.document_prefix),
        tasks=scored,
        groups=groups,
        documents=documents,
        documents_found=corpus.num_documents,
        config=settings | {"tasks": [one.questions.name for one in scored]},
        inputs=inputs,
    )
    with atomic_file(output / "metrics.jsonl") as stream:  # rates and times, not part of the artifact
        stream.writelines((json.dumps(row) + "\n").encode() for row in metrics)
    if not config.models:
        model.cells.remove()
    return True


def _sorted_inputs(task_data: list[dict[str, Any]], model: _Model, corpus: Corpus) -> list[dict[str, Any]]:
    """`inputs` of the manifest: the tasks' data, the model, the documents."""
    inputs = [*task_data, *model.backend.inputs(model.output)]
    for path in corpus.inputs:
        inputs += describe_input("documents", path, model.output)
    return sorted(inputs, key=lambda entry: (entry["role"], entry["path"]))


def _is_finished(output: Path, settings: dict[str, Any], inputs: list[dict[str, Any]], *, replace: bool) -> bool:
    """Whether the output is exactly these results. `replace`: other results of the same model may be written again.

    Raises:
        ConfigError: it is another artifact, which is never overwritten.
    """
    if not (output / MANIFEST).is_file():
        return False
    found = read_manifest(output)
    if (found.format, found.config, found.inputs, found.writer) == ("results", settings, inputs, WRITER):
        return True
    if replace and found.format == "results" and found.config.get("name") == settings["name"]:
        if found.writer != WRITER:
            log.warning("%s: written by another version; it is scored and written again", output)
        return False
    problem = f"output_dir: {output} contains another artifact; expected these results or an empty directory"
    raise ConfigError(problem, hint="choose another --output-dir, or remove that directory")


def _save_config(config: RunConfig) -> None:
    """The request with every default, next to the results but not part of them."""
    text = yaml.safe_dump(as_mapping(config), sort_keys=True, allow_unicode=True)
    write_file(config.output_dir / "config.yaml", text.encode())


# ---- what fails


@dataclass(kw_only=True)
class _Failures:
    """Models and tasks that failed. Without `keep_going`, the first error is raised at once."""

    keep_going: bool
    found: list[Problem] = field(default_factory=list)

    @contextmanager
    def caught(self, where: str) -> Iterator[None]:
        """Note an error of the block, and go on. A full disk always stops: nothing more could be kept."""
        try:
            yield
        except (ConfigError, FormatError, WorkError, OSError, RuntimeError, MemoryError) as error:
            if not self.keep_going or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
                raise
            model, comma, task = where.rpartition(", ")
            message = first_line(error)
            message = f"{model}{comma}{message}" if message.startswith(task) else f"{where}: {message}"
            self.found.append(Problem(message, getattr(error, "hint", None)))
            log.warning("failed: %s", message)

    def report(self) -> None:
        """Raise what was noted.

        Raises:
            WorkError: with every failure.
        """
        if self.found:
            number = f"{len(self.found)} of the models and tasks failed; what could be scored is kept"
            hint = "once they are repaired, the same command scores only them"
            raise WorkError(*self.found, Problem(number, hint))


@contextmanager
def _naming(where: Callable[[int], str]) -> Iterator[None]:
    """Say of which text an error is."""
    try:
        yield
    except PairError as error:
        raise WorkError(f"{where(error.pair)}: {error.problems[-1].message}", hint=error.hint) from error


# ---- tasks


def _weights(model: _Model, corpus: Corpus) -> dict[str, float]:
    """What each unfinished part of a model costs, roughly: characters × parameters."""
    size = float(max(1, model.backend.parameters))
    found = {}
    for one in model.tasks:
        if not model.cells.has(one.questions.key):
            texts = {pair.context for pair in one.questions.pairs}
            chars = sum(map(len, texts)) + sum(len(pair.continuation) for pair in set(one.questions.pairs))
            chars += sum(len(prompt.text) + 4 * prompt.max_tokens for prompt in one.questions.prompts)
            found[one.questions.name] = size * chars
    if corpus.files:
        found["perplexity"] = size * sum(file.stat().st_size for file in corpus.files)
    return found


def _score_task(questions: Questions, backend: Backend, cells: Cells, metrics: Metrics, overall: Overall) -> TaskPart:
    """The rows of one task, from its finished cell or scored now."""
    part = cells.task(questions.key)
    if part is not None:
        log.info("%s: kept from an earlier run", questions.name)
        return part
    progress = Progress(questions.name, "requests", len(set(questions.pairs)) + len(questions.prompts), overall)
    backend.advance = progress.advance
    with _naming(questions.where):
        likelihoods = backend.score(questions.pairs) if questions.pairs else []
    generations = backend.generate(questions.prompts) if questions.prompts else []
    part = questions.collect(likelihoods, generations)
    cells.keep_task(questions.key, part)
    metrics.append(progress.finish())
    for text in alarms(part.counts):
        log.warning("%s: %s", questions.name, text)
    return part


# ---- documents


def _score_documents(
    corpus: Corpus, model: Backend, cells: Cells, metrics: Metrics, overall: Overall
) -> list[DocumentScore]:
    """Every document's sums, in the order of the files."""
    scores: list[DocumentScore] = []
    if not corpus.files:
        return scores
    progress = Progress("perplexity", "documents", corpus.num_documents, overall)
    for chunk in _chunks(corpus.files):
        key = documents_key(chunk)
        part = cells.documents(key)
        if part is None:
            part = _score_chunk(chunk, model, progress)
            cells.keep_documents(key, part)
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


def _score_chunk(chunk: list[Document], model: Backend, progress: Progress) -> list[DocumentScore]:
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

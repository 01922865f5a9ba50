"""The results artifact (docs/formats/results.md): its rows, the parts kept for resuming, writing and reading.

`results.json`, `predictions.jsonl.gz` and `perplexity.jsonl.gz` are written once everything is scored, `manifest.json`
last. Until then finished parts are in `<output>/work`. No torch.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from catwalk import WRITER
from catwalk.formats.checkpoint import Checkpoint, Inspection
from catwalk.formats.contract import ConfigError, canonical_json, canonical_line, write_file, write_gzip
from catwalk.formats.document import Document
from catwalk.formats.manifest import find_manifest, write_manifest
from catwalk.formats.results import (
    PER_DOCUMENT,
    PREDICTIONS,
    RESULTS,
    read_document_scores,
    read_predictions,
    read_results,
)
from catwalk.metrics import predicted, round_significant, task_metrics
from catwalk.perplexity import domain_rows
from catwalk.token_losses import TYPES, type_rows
from catwalk.types import DocumentScore, Item, ItemScore, Task

__all__ = [
    "LoadedResults",
    "ScoredTask",
    "TaskPart",
    "Workspace",
    "describe_inference",
    "describe_model",
    "documents_key",
    "item_score",
    "items_key",
    "load_all",
    "prediction_row",
    "read_document_rows",
    "read_item_scores",
    "task_row",
    "write_results",
]


# ---- rows

_CHOICE_FIELDS = {  # of a choice in predictions.jsonl.gz, and of an ItemScore
    "sum_logprob": "sum_logprobs",
    "tokens": "tokens",
    "chars": "chars",
    "bytes": "bytes",
    "sum_logprob_unconditional": "sum_logprobs_unconditional",
}


def prediction_row(task: str, score: ItemScore) -> dict[str, Any]:
    """A row of predictions.jsonl.gz."""
    choices = zip(*(getattr(score, name) for name in _CHOICE_FIELDS.values()), strict=True)
    return {
        "task": task,
        "id": score.id,
        "label": score.label,
        "choices": [dict(zip(_CHOICE_FIELDS, choice, strict=True)) for choice in choices],
        "predicted": predicted(score),
    }


def item_score(row: dict[str, Any]) -> ItemScore:
    """The scores in a row of predictions.jsonl.gz."""
    columns = {name: tuple(choice[key] for choice in row["choices"]) for key, name in _CHOICE_FIELDS.items()}
    return ItemScore(id=row["id"], label=row["label"], **columns)


def read_item_scores(directory: Path) -> dict[str, list[ItemScore]]:
    """Scores by task from predictions.jsonl.gz, in the order of the file."""
    tasks: dict[str, list[ItemScore]] = {}
    for row in read_predictions(directory):
        tasks.setdefault(row["task"], []).append(item_score(row))
    return tasks


def read_document_rows(directory: Path) -> list[DocumentScore]:
    """Scores of documents from perplexity.jsonl.gz; empty when the run had none."""
    return [DocumentScore(**row) for row in read_document_scores(directory)]


def task_row(name: str, split: str, primary_metric: str, scores: Sequence[ItemScore]) -> dict[str, Any]:
    """An entry of `tasks` in results.json."""
    return {
        "task": name,
        "split": split,
        "num_shots": 0,
        "items": len(scores),
        "choices_mean": round_significant(sum(len(score.tokens) for score in scores) / len(scores)),
        "primary_metric": primary_metric,
        "metrics": task_metrics(scores),
    }


# ---- what was scored, and how


def describe_model(name: str, checkpoint: Checkpoint, inspection: Inspection) -> dict[str, Any]:
    """`model` of results.json."""
    size = inspection.text_config.get("vocab_size")
    return {
        "name": name,
        "architecture": checkpoint.architecture,
        "parameters": checkpoint.parameters,
        "vocab_size": size if type(size) is int else inspection.embedding_rows,
        "dtype": "/".join(inspection.dtypes),
        "tokenizer_sha256": checkpoint.sha256.get("tokenizer.json"),
        "manifest_sha256": checkpoint.manifest.identity if checkpoint.manifest else None,
    }


def describe_inference(settings: dict[str, Any], own_prefix: str | None) -> dict[str, Any]:
    """`inference` of results.json. `own_prefix` is the checkpoint's rule for the token before a document."""
    found = {key: settings[key] for key in ("dtype", "max_length_tokens", "windowing", "prefix", "split")}
    if settings["prefix"] != own_prefix:
        reason = "requested"
    elif own_prefix == "bos":
        reason = "the tokenizer begins a text with bos, or has no eos"
    else:
        reason = "the tokenizer puts no bos before a text"
    return {**found, "prefix_reason": reason}


# ---- parts of an unfinished run


def items_key(items: Sequence[Item]) -> str:
    """sha256 of rendered items."""
    return hashlib.sha256("".join(canonical_line(asdict(item)) for item in items).encode()).hexdigest()


def documents_key(documents: Sequence[Document]) -> str:
    """sha256 of what is scored and stored of documents."""
    rows = ([document.source, document.subdomain, document.id, document.text] for document in documents)
    return hashlib.sha256("".join(canonical_line(row) for row in rows).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class TaskPart:
    """Scores of one task, and counts of contexts cut, tokens across the boundary and choices of several windows."""

    scores: list[ItemScore]
    truncated: int
    crossings: int
    windowed: int


class Workspace:
    """`<output>/work`: a JSON file for each finished task or chunk of documents, so that a killed run can resume.

    The name of a file is the sha256 of everything that its scores depend on: the hashes of weights and tokenizer, the
    settings, and the rendered items or the documents' texts. A part of another model or prompt has another name.
    """

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
        write_file(self._path(content_key), canonical_line(value).encode())

    def task(self, content_key: str) -> TaskPart | None:
        """A finished task, or None."""
        value = self._read(content_key)
        if value is None:
            return None
        for row in value["scores"]:
            row |= {name: tuple(entry) for name, entry in row.items() if isinstance(entry, list)}
        return TaskPart(**value | {"scores": [ItemScore(**row) for row in value["scores"]]})

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
        """Delete every part, once the results are complete."""
        shutil.rmtree(self._directory, ignore_errors=True)


# ---- write


@dataclass(frozen=True, kw_only=True)
class ScoredTask:
    """A task with its scores; `items_available` counts the items before `limit`."""

    task: Task
    items_available: int
    part: TaskPart


def write_results(
    output: Path,
    *,
    model: dict[str, Any],
    inference: dict[str, Any],
    tasks: Sequence[ScoredTask],
    documents: Sequence[DocumentScore],
    documents_found: int,
    config: dict[str, Any],
    inputs: list[dict[str, Any]],
) -> None:
    """Write the artifact; `tasks` are sorted by name. Each file is complete or absent, and the manifest comes last."""
    rows = [task_row(one.task.name, one.task.split, one.task.primary_metric, one.part.scores) for one in tasks]
    results: dict[str, Any] = {
        "format": "results",
        "version": 1,
        "model": model,
        "inference": inference,
        "tasks": rows,
        "perplexity": domain_rows(documents),
    }
    files = [output / RESULTS, output / PREDICTIONS]
    write_file(output / RESULTS, canonical_json(results).encode())
    _write_rows(output / PREDICTIONS, (prediction_row(one.task.name, s) for one in tasks for s in one.part.scores))
    if documents:
        files.append(output / PER_DOCUMENT)
        _write_rows(output / PER_DOCUMENT, map(_document_row, documents))
    if any(score.types for score in documents):
        files.append(output / TYPES)
        _write_rows(output / TYPES, type_rows(documents))
    write_manifest(
        output,
        format="results",
        writer=WRITER,
        files=files,
        config=config,
        counts={
            "tasks": len(tasks),
            "items": sum(len(one.part.scores) for one in tasks),
            "domains": len(results["perplexity"]),
        },
        details={
            "tasks": {
                one.task.name: {
                    "items_available": one.items_available,
                    "truncated_contexts": one.part.truncated,
                    "border_crossings": one.part.crossings,
                    "windowed_choices": one.part.windowed,
                }
                for one in tasks
            },
            **({"documents": {"found": documents_found, "scored": len(documents)}} if documents_found else {}),
        },
        inputs=inputs,
    )


def _document_row(score: DocumentScore) -> dict[str, Any]:
    row = asdict(score)
    del row["types"]
    return row


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with write_gzip(path, level=6) as file:
        file.writelines(canonical_line(row).encode() for row in rows)


# ---- read


@dataclass(frozen=True, kw_only=True)
class LoadedResults:
    """One results directory; its rows are read when they are first needed."""

    label: str
    directory: Path
    results: dict[str, Any]
    details: dict[str, Any]

    @cached_property
    def tasks(self) -> dict[str, dict[str, Any]]:
        """Entries of `tasks` by name."""
        return {task["task"]: task for task in self.results["tasks"]}

    @cached_property
    def domains(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Entries of `perplexity` by (source, subdomain)."""
        return {(domain["source"], domain["subdomain"]): domain for domain in self.results["perplexity"]}

    @cached_property
    def items(self) -> dict[str, list[ItemScore]]:
        """Item scores by task."""
        return read_item_scores(self.directory) if self.tasks else {}

    @cached_property
    def documents(self) -> list[DocumentScore]:
        """Document scores; empty for results without them."""
        return read_document_rows(self.directory)


def load_all(directories: Sequence[Path]) -> list[LoadedResults]:
    """Results with different labels: the model's name, with the directory where two models have the same name.

    Raises:
        ConfigError: when a path is not a directory. FormatError: when results are damaged.
    """
    missing = [f"results: {path} not found; expected a results directory" for path in directories if not path.is_dir()]
    if missing:
        raise ConfigError(*missing, hint="catwalk run writes one")
    if len({path.resolve() for path in directories}) < len(directories):
        raise ConfigError("results: one directory is listed twice; expected different results")
    read = [read_results(path, checksums=True) for path in directories]
    names = [str(results["model"]["name"]) for results in read]
    loaded = []
    for path, results, name in zip(directories, read, names, strict=True):
        label = name if names.count(name) == 1 else f"{name} ({path})"
        details = manifest.details if (manifest := find_manifest(path, "results")) else {}
        loaded.append(LoadedResults(label=label, directory=path, results=results, details=details))
    return loaded

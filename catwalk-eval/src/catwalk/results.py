"""The results artifact (docs/formats/results.md): writing and reading. No torch.

`results.json`, `predictions.jsonl.gz`, `items.jsonl.gz` and `perplexity.jsonl.gz` are written once everything is
scored, `manifest.json` last. Until then finished parts are cells (`cells.py`).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from catwalk import WRITER
from catwalk.columns import Column, read_columns
from catwalk.formats.checkpoint import Checkpoint, Inspection
from catwalk.formats.contract import ConfigError, canonical_json, canonical_line, write_file, write_gzip
from catwalk.formats.manifest import MANIFEST, describe_input, find_manifest, write_manifest
from catwalk.formats.results import (
    ITEMS,
    PER_DOCUMENT,
    PREDICTIONS,
    RESULTS,
    read_document_scores,
    read_predictions,
    read_results,
)
from catwalk.lm_eval_groups import GroupRule, group_row
from catwalk.perplexity import domain_rows
from catwalk.rows import item_score, task_row, warnings
from catwalk.token_losses import TYPES, type_rows
from catwalk.types import Described, DocumentScore, ItemScore, TaskPart

__all__ = [
    "LoadedResults",
    "ScoredTask",
    "checkpoint_inputs",
    "checkpoint_sha256",
    "describe_inference",
    "describe_model",
    "load_all",
    "read_document_rows",
    "read_item_scores",
    "read_rows_by_task",
    "task_entry",
    "write_results",
]


# ---- rows


def read_item_scores(directory: Path) -> dict[str, list[ItemScore]]:
    """Scores of choices by task from predictions.jsonl.gz, in the order of the file."""
    tasks: dict[str, list[ItemScore]] = {}
    for row in read_predictions(directory):
        if "choices" in row:
            tasks.setdefault(row["task"], []).append(item_score(row))
    return tasks


def read_rows_by_task(directory: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of predictions.jsonl.gz by task, in the order of the file."""
    tasks: dict[str, list[dict[str, Any]]] = {}
    for row in read_predictions(directory):
        tasks.setdefault(row["task"], []).append(row)
    return tasks


def read_document_rows(directory: Path) -> list[DocumentScore]:
    """Scores of documents from perplexity.jsonl.gz; empty when the run had none."""
    return [DocumentScore(**row) for row in read_document_scores(directory)]


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


def checkpoint_sha256(checkpoint: Checkpoint) -> str:
    """One hash of all files of a checkpoint that its numbers depend on."""
    return hashlib.sha256(json.dumps(checkpoint.sha256, sort_keys=True).encode()).hexdigest()


def checkpoint_inputs(checkpoint: Checkpoint, output: Path) -> list[dict[str, Any]]:
    """A checkpoint as `inputs` of the manifest in `output`: by its own manifest, or file by file."""
    if checkpoint.manifest is not None:
        return describe_input("checkpoint", checkpoint.directory, output)
    files = [checkpoint.directory / name for name in checkpoint.sha256]
    return [row for file in files for row in describe_input("checkpoint", file, output)]


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


# ---- write


@dataclass(frozen=True, kw_only=True)
class ScoredTask:
    """A task with its rows; `items_available` counts the items before `limit`."""

    questions: Described
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
    groups: Sequence[GroupRule] = (),
    imported: dict[str, Any] | None = None,
) -> None:
    """Write the artifact; `tasks` are sorted by name. Each file is complete or absent, and the manifest comes last.

    `imported` says where results come from that another program computed.
    """
    rows = [task_entry(one) for one in tasks]
    by_name = {row["task"]: row for row in rows}
    summed = [row for rule in groups if (row := group_row(rule, by_name)) is not None]
    results: dict[str, Any] = {
        "format": "results",
        "version": 1,
        "model": model,
        "inference": inference,
        "tasks": rows,
        "perplexity": domain_rows(documents),
        **({"imported": imported} if imported else {}),
        **({"groups": summed} if summed else {}),
    }
    files = [output / RESULTS, output / PREDICTIONS]
    (output / MANIFEST).unlink(missing_ok=True)  # unfinished until written again
    write_file(output / RESULTS, canonical_json(results).encode())
    predictions = ({"task": one.questions.name, **row} for one in tasks for row in one.part.rows)
    _write_rows(output / PREDICTIONS, predictions)
    if tasks:
        files.append(output / ITEMS)
        _write_rows(output / ITEMS, (row for one in tasks for row in one.questions.texts()))
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
            "items": sum(row["items"] for row in rows),
            "domains": len(results["perplexity"]),
        },
        details={
            "tasks": {
                one.questions.name: {
                    "items_available": one.items_available,
                    **one.part.counts,
                    "warnings": warnings(one.part.rows),
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


def task_entry(one: ScoredTask) -> dict[str, Any]:
    """The entry of a task in results.json."""
    asked = one.questions
    if not one.part.rows:  # imported without samples
        return {
            "task": asked.name,
            "split": asked.split,
            "num_shots": asked.num_shots,
            "kind": "scores",
            "items": max(entry["n"] for entry in one.part.sums.values()),
            "choices_mean": 0.0,
            "primary_metric": asked.primary_metric,
            "metrics": one.part.sums,
        }
    return task_row(asked.name, asked.split, asked.primary_metric, one.part.rows, asked.num_shots, one.part.sums)


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
    def columns(self) -> dict[str, Column]:
        """The primary metric of each task's items."""
        return read_columns(self.directory, {name: task["primary_metric"] for name, task in self.tasks.items()})

    @cached_property
    def documents(self) -> list[DocumentScore]:
        """Document scores; empty for results without them."""
        return read_document_rows(self.directory)


def _artifacts(path: Path) -> list[Path]:
    """A results directory, or those in the output of `catwalk run --models`."""
    if (path / RESULTS).is_file() or not path.is_dir():
        return [path]
    return sorted(file.parent for file in path.glob(f"*/{RESULTS}")) or [path]


def load_all(directories: Sequence[Path]) -> list[LoadedResults]:
    """Results with different labels: the model's name, with the directory where two models have the same name.

    Raises:
        ConfigError: when a path is not a directory. FormatError: when results are damaged.
    """
    directories = [found for path in directories for found in _artifacts(path)]
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

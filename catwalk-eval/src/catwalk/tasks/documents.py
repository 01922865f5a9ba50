"""The tasks' texts as documents (docs/formats/document.md), so that training data can be cleaned of them."""

import logging
from pathlib import Path
from typing import Any

from catwalk import DISTRIBUTION, __version__
from catwalk.errors import ConfigError
from catwalk.formats.json_lines import canonical_line, write_gzip
from catwalk.formats.manifest import MANIFEST, read_manifest, write_manifest
from catwalk.tasks.data import load_items, locate
from catwalk.tasks.registry import TASKS, find_tasks
from catwalk.types import Item, Task

__all__ = ["item_text", "write_documents"]

log = logging.getLogger(__name__)


def item_text(item: Item) -> str:
    """Lines, each once: the item's own texts (question, passage, choices), then its whole prompt with the right answer.

    A line is what decontamination by paragraph looks for; the prompt's lines find copies of the rendered benchmark.
    """
    answered = item.contexts[item.label] + item.continuations[item.label]
    lines = [line.strip() for text in (*item.texts, answered) for line in text.split("\n")]
    return "\n".join(dict.fromkeys(line for line in lines if line))


def _row(task: Task, item: Item) -> dict[str, Any]:
    return {
        "id": f"{task.name}-{item.id}",
        "text": item_text(item),
        "source": "eval",
        "metadata": {"subdomain": task.name, "split": task.split, "licence": task.licence, "label": item.label},
    }


def write_documents(names: tuple[str, ...], output: Path, data_directory: Path | None) -> None:
    """Write `<output>/documents/<task>.jsonl.gz`, a document an item, and the manifest.

    Raises:
        ConfigError: unknown tasks, absent data, or an output that holds something else.
    """
    root = output / "documents"
    tasks = find_tasks(names)
    _check_output(output, root)
    (root / MANIFEST).unlink(missing_ok=True)  # unfinished until written again
    files, inputs = [], []
    counts = {"documents": 0, "text_bytes": 0}
    for task in tasks:
        data = locate(task, data_directory)
        rows = [_row(task, item) for item in load_items(task, data)]
        files.append(root / f"{task.name}.jsonl.gz")
        with write_gzip(files[-1], level=6) as file:
            file.writelines(canonical_line(row).encode() for row in rows)
        inputs += data.manifest_inputs()
        counts["documents"] += len(rows)
        counts["text_bytes"] += sum(len(row["text"].encode()) for row in rows)
        log.info("%s: %d documents", task.name, len(rows))
    for stale in set(root.glob("*.jsonl.gz")) - set(files):
        stale.unlink()  # of an earlier call with other tasks
    write_manifest(
        root,
        format="document",
        writer=(DISTRIBUTION, __version__),
        files=files,
        config={"tasks": [task.name for task in tasks]},
        counts=counts,
        details={},
        inputs=inputs,
    )


def _check_output(output: Path, root: Path) -> None:
    """Only a directory that is empty or was written by this command is written to."""
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output: {output} is a file; expected a directory")
    known = {MANIFEST, *(f"{name}.jsonl.gz" for name in TASKS)}
    foreign = [file.name for file in root.glob("*") if file.name not in known] if root.is_dir() else []
    if (root / MANIFEST).is_file() and read_manifest(root)["writer"]["name"] != DISTRIBUTION:
        foreign.append(MANIFEST)
    if foreign:
        problem = (
            f"output: {root} holds {sorted(foreign)[0]}, which is not of this command; expected an empty directory"
        )
        raise ConfigError(problem, hint="name another --output")

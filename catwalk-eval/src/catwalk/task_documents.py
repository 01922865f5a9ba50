"""`catwalk documents`: the texts of tasks as documents, for decontamination."""

import logging
import re
from pathlib import Path

from catwalk import DISTRIBUTION, WRITER
from catwalk.data import locate
from catwalk.formats.contract import ConfigError, canonical_line, write_gzip
from catwalk.formats.manifest import MANIFEST, read_manifest, write_manifest
from catwalk.items import load_items
from catwalk.tasks import TASKS, find_tasks
from catwalk.types import Item, Task

__all__ = ["item_text", "write_documents"]

log = logging.getLogger(__name__)


def item_text(item: Item) -> str:
    """The item's own texts (question, passage, choices), then its prompt with the right answer; each line once.

    Decontamination by paragraph looks for lines. Those of the prompt find copies of the rendered benchmark.
    """
    right = item.continuations[item.label] if item.continuations else " " + " ".join(item.references[:1])
    answered = item.contexts[item.label if item.continuations else 0] + right
    lines = [line.strip() for text in (*item.texts, answered) for line in text.split("\n")]
    return "\n".join(dict.fromkeys(line for line in lines if line))


def write_documents(names: tuple[str, ...], output: Path, data_directory: Path | None) -> None:
    """Write `<output>/documents/<task>.jsonl.gz` (docs/formats/document.md), a document per item, and the manifest.

    Raises:
        ConfigError: for unknown tasks, missing data, or an output directory with other files.
    """
    root = output / "documents"
    tasks = find_tasks(names)
    _check_output(output, root, {f"{file_name(task)}.jsonl.gz" for task in tasks})
    (root / MANIFEST).unlink(missing_ok=True)  # unfinished until written again
    files, inputs = [], []
    counts = {"documents": 0, "text_bytes": 0}
    for task in tasks:
        data = locate(task, data_directory)
        metadata = {"subdomain": task.name, "split": task.split, "licence": task.licence}
        files.append(root / f"{file_name(task)}.jsonl.gz")
        items = load_items(task, data)
        with write_gzip(files[-1], level=6) as file:
            for item in items:
                text = item_text(item)
                row = {"id": f"{task.name}-{item.id}", "text": text, "source": "eval"}
                file.write(canonical_line(row | {"metadata": metadata | {"label": item.label}}).encode())
                counts["text_bytes"] += len(text.encode())
        inputs += data.manifest_inputs()
        counts["documents"] += len(items)
        log.info("%s: %d documents", task.name, len(items))
    for stale in set(root.glob("*.jsonl.gz")) - set(files):
        stale.unlink()  # from an earlier call with other tasks
    write_manifest(
        root,
        format="document",
        writer=WRITER,
        files=files,
        config={"tasks": [task.name for task in tasks]},
        counts=counts,
        details={},
        inputs=inputs,
    )


def file_name(task: Task) -> str:
    """A task's name as the name of a file."""
    return re.sub(r"[^\w.@-]", "_", task.name)


def _check_output(output: Path, root: Path, names: set[str]) -> None:
    """Refuse a directory with files that this command did not write."""
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output_dir: {output} is a file; expected a directory")
    known = {MANIFEST, *names, *(f"{name}.jsonl.gz" for name in TASKS)}
    foreign = [file.name for file in root.glob("*") if file.name not in known] if root.is_dir() else []
    if (root / MANIFEST).is_file() and read_manifest(root).writer["name"] != DISTRIBUTION:
        foreign.append(MANIFEST)
    if foreign:
        problem = f"output_dir: {root} contains {sorted(foreign)[0]} from another command; expected an empty directory"
        raise ConfigError(problem, hint="choose another --output-dir")

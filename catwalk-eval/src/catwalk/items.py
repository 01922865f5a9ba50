"""The items of a task: the exact prompt of one, and all of them as documents."""

import logging
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError

from catwalk import DISTRIBUTION, WRITER
from catwalk.data import TaskData, count_rows, locate, read_task_rows
from catwalk.formats.contract import ConfigError, Fields, FormatError, canonical_line, write_gzip
from catwalk.formats.manifest import MANIFEST, read_manifest, write_manifest
from catwalk.shots import Example, add_shots, order_examples
from catwalk.tasks import TASK_SETS, TASKS, find_tasks
from catwalk.types import Item, Task

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

_TYPE_NAMES = {
    str: "a string",
    int: "an integer",
    bool: "a boolean",
    dict: "an object",
    list: "an array",
    object: "a value",
}


# ---- load


def load_items(task: Task, data: TaskData) -> list[Item]:
    """Every item of a task, rendered, in the order of the data. The id is the row's `id`, else its index.

    Raises:
        ConfigError: a template is not valid, or there are too few examples.
        FormatError: at `path:line`, for a row that lacks the task's fields or cannot be rendered.
    """
    if task.items is not None:
        return task.items(data.files[0])
    items = [item for _, item in _render_rows(task, read_task_rows(task, data.files))]
    if not items:
        where = data.files[0] if data.files else task.benchmark
        raise FormatError("invalid_value", where, f"has no rows; expected the items of {task.benchmark}")
    if task.shots is None:
        return [add_shots(task, item, "", ()) for item in items] if task.description else items
    examples = order_examples(task, _examples(task, data))
    return [add_shots(task, item, _content(item), examples) for item in items]


def _examples(task: Task, data: TaskData) -> list[Example]:
    """Every possible few-shot example, rendered with its right answer."""
    assert task.shots is not None
    rows: Iterable[tuple[Path, int, dict[str, Any]]]
    if task.shots.rows:
        rows = ((Path(f"<shots of {task.benchmark}>"), line, row) for line, row in enumerate(task.shots.rows, start=1))
    else:
        rows = read_task_rows(task, data.shot_files or data.files)
    return [
        Example(_content(item), item.contexts[item.label if item.continuations else 0] + answer_text(task, row, item))
        for row, item in _render_rows(task, rows)
    ]


def answer_text(task: Task, row: dict[str, Any], item: Item) -> str:
    """What follows the prompt in a few-shot example."""
    if task.answer is not None:
        return task.answer(row)
    return item.continuations[item.label] if item.continuations else f" {item.references[0]}"


def _content(item: Item) -> str:
    return "\n".join(item.texts)


def _render_rows(task: Task, rows: Iterable[tuple[Path, int, dict[str, Any]]]) -> Iterator[tuple[dict[str, Any], Item]]:
    seen: set[str] = set()
    for file, line, row in rows:
        record = Fields(row, file, line)
        for name, kind in task.fields.items():
            value = record.get(name)
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise record.wrong_type(name, _TYPE_NAMES.get(kind, "a value"))
        id = row["id"] if isinstance(row.get("id"), str) and "id" in task.fields else str(len(seen))
        item = _render(task, row, id, file, line)
        if id in seen:
            raise record.error("invalid_value", "id", f'is "{id}" a second time; expected unique ids')
        if item.continuations and not 0 <= item.label < len(item.continuations):
            last = len(item.continuations) - 1
            raise record.error("invalid_value", "label", f"is {item.label}; expected 0 to {last}")
        if any(not continuation.strip() for continuation in item.continuations):
            raise record.error("invalid_value", "choices", "contains an empty choice; expected text to score")
        seen.add(id)
        yield row, item


def _render(task: Task, row: dict[str, Any], id: str, file: Path, line: int) -> Item:
    try:
        return task.render(row, id)
    except TemplateSyntaxError as error:
        raise ConfigError(f"tasks: {task.benchmark}: not a valid template: {error.message}") from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, TemplateError) as error:
        message = f"cannot render this row as an item of {task.benchmark} ({type(error).__name__}: {error})"
        raise FormatError("invalid_value", file, message, line=line) from error


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
            items = str(count_rows(task, locate(task, data_directory)))
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
    if not found.continuations:
        lines += ["context:", *(f"  |{line}" for line in found.contexts[0].split("\n"))]
    for index, (context, continuation) in enumerate(zip(found.contexts, found.continuations, strict=False)):
        if index == 0 or context != found.contexts[index - 1]:
            lines += ["context:", *(f"  |{line}" for line in context.split("\n"))]
        mark = "*" if index == found.label else " "
        lines.append(f"{mark} choice {index}: {continuation!r}")
    if found.references:
        lines += ["references:", *(f"  {reference!r}" for reference in found.references)]
        lines += [f"stop: {', '.join(map(repr, task.stop)) or 'none'}; at most {task.max_tokens} tokens"]
    if found.unconditional_context is not None:
        lines += ["", f"unconditional context: {found.unconditional_context!r}; * marks the right choice"]
    elif found.continuations:
        lines += ["", "no unconditional context; * marks the right choice"]
    return "\n".join(lines) + "\n"


# ---- as documents, for decontamination


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

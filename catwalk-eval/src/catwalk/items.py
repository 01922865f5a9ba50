"""The items of a task: every row rendered, with its few-shot examples, and the draw of a limit."""

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError

from catwalk.bias import ROLES
from catwalk.data import TaskData, locate, read_task_rows
from catwalk.formats.contract import ConfigError, Fields, FormatError
from catwalk.shots import Example, add_shots, order_examples
from catwalk.types import Item, Task

__all__ = ["TaskData", "load_items", "locate", "sample_items"]

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
        Example(_content(item), item.contexts[item.label if item.continuations else 0], answer_text(task, row, item))
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
        if item.roles and (len(item.roles) != len(item.continuations) or not set(item.roles) <= set(ROLES)):
            message = f"is {list(item.roles)}; expected one for each choice, of {', '.join(ROLES)}"
            raise record.error("invalid_value", "roles", message)
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

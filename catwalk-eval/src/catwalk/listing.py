"""`catwalk list` and `catwalk show`: what the tasks are, and the exact prompt of an item."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from catwalk.data import count_rows, locate
from catwalk.formats.contract import ConfigError, FormatError, WorkError
from catwalk.items import load_items
from catwalk.tasks import HARNESS, TASK_SETS, TASKS, find_tasks
from catwalk.types import Item, Questions, Task

__all__ = ["show_item", "task_table"]

log = logging.getLogger(__name__)

_COLUMNS = ("task", "kind", "items", "split", "shots", "primary metric", "source", "licence", "state", "what")
_RIGHT = ("items", "shots")


# ---- list


def task_table(
    names: Sequence[str] = (),
    data_directory: Path | None = None,
    *,
    hub: bool = False,
    offline: bool = False,
    include: Path | None = None,
) -> str:
    """A Markdown table of the named tasks, or of all and their sets; `items` is "–" without the task's data."""
    rows = []
    for task in find_tasks(tuple(name for name in names if not name.startswith(HARNESS))) if names else TASKS.values():
        try:
            items = str(count_rows(task, locate(task, data_directory, hub=hub, offline=offline)))
        except (ConfigError, WorkError, FormatError) as error:
            items = "–"
            if hub and not isinstance(error, ConfigError):
                log.warning("%s", error)
        how = (task.split, str(task.shots.count if task.shots else 0), task.primary_metric)
        rows.append((task.name, str(task.kind), items, *how, task.source, task.licence, task.state, task.summary))
    for questions in _of_harness([name for name in names if name.startswith(HARNESS)], include):
        kind = "generation" if questions.prompts else "choices"
        count, about = str(len(questions.texts())), ("lm-eval", "of the data set", "–", "")
        how = (questions.split, str(questions.num_shots), questions.primary_metric)
        rows.append((questions.name, kind, count, *how, *about))
    lines = [
        f"| {' | '.join(_COLUMNS)} |",
        f"| {' | '.join('---:' if column in _RIGHT else '---' for column in _COLUMNS)} |",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    if not names:
        sets = [f"- `{name}`: {', '.join(members)}" for name, members in TASK_SETS.items()]
        lines += ["", "Sets:", "", *sets]
    return "\n".join(lines) + "\n"


# ---- show


def show_item(
    name: str,
    item: str | None = None,
    data_directory: Path | None = None,
    *,
    hub: bool = False,
    offline: bool = False,
    include: Path | None = None,
    whitespace: bool = False,
) -> str:
    """The prompt of one item, by index or id: what the model sees and what is scored.

    `whitespace` shows a space as `·`, a tab as `→` and the end of a line as `¶`.

    Raises:
        ConfigError: for an unknown task or item.
    """
    if name.startswith(HARNESS):
        questions, *others = _of_harness((name,), include)
        if not others:
            return _harness_text(questions, item, whitespace)
        raise _is_a_set(name, questions.name)
    task, *more = find_tasks((name,))
    if more:
        raise _is_a_set(name, TASK_SETS[name][0] if name in TASK_SETS else task.name)
    items = load_items(task, locate(task, data_directory, hub=hub, offline=offline))
    return _item_text(task, items[_index(name, item, [one.id for one in items])], whitespace)


def _is_a_set(name: str, first: str) -> ConfigError:
    return ConfigError(f'task: "{name}" is a set of tasks; expected one task', hint=f"catwalk show {first}")


def _of_harness(names: Sequence[str], include: Path | None) -> Iterator[Questions]:
    if names:
        from catwalk.lm_eval_tasks import Harness  # and numpy, which the other tasks do not need

        harness = Harness(names, include)
        for name in names:
            yield from harness.questions(name, None)


def _index(name: str, item: str | None, ids: Sequence[str]) -> int:
    if item is None:
        return 0
    if item in ids:
        return ids.index(item)
    if item.isdecimal() and int(item) < len(ids):
        return int(item)
    raise ConfigError(f'item: no "{item}" in {name}; expected an id or an index from 0 to {len(ids) - 1}')


def _item_text(task: Task, item: Item, whitespace: bool) -> str:
    lines = [f"{task.name} {task.split} {item.id}   primary metric {task.primary_metric}", ""]
    if not item.continuations:
        lines += _prompt(item.contexts[0], whitespace)
    lines += _choices(item.contexts, item.continuations, item.label, whitespace)
    if item.references or not item.continuations:
        lines += ["references:", *(f"  {reference!r}" for reference in item.references)]
        lines += [f"stop: {', '.join(map(repr, task.stop)) or 'none'}; at most {task.max_tokens} tokens"]
    if item.unconditional_context is not None:
        lines += ["", f"unconditional context: {item.unconditional_context!r}; * marks the right choice"]
    elif item.continuations:
        lines += ["", "no unconditional context; * marks the right choice"]
    if task.shots is not None and not task.shots.rows and task.shots.split == task.split:
        lines += [f"note: the examples are from the item's own split, {task.split}; an item is never its own example"]
    return "\n".join(lines) + "\n"


def _harness_text(questions: Questions, item: str | None, whitespace: bool) -> str:
    rows = questions.texts()
    row = rows[_index(questions.name, item, [row["id"] for row in rows])]
    lines = [f"{questions.name} {questions.split} {row['id']}   primary metric {questions.primary_metric}", ""]
    contexts = row["context"] if isinstance(row["context"], list) else [row["context"]] * len(row["continuations"])
    lines += _choices(contexts, row["continuations"], None, whitespace) or _prompt(row["context"], whitespace)
    return "\n".join(lines) + "\n"


def _choices(contexts: Sequence[str], continuations: Sequence[str], label: int | None, whitespace: bool) -> list[str]:
    lines = []
    for index, continuation in enumerate(continuations):
        if index == 0 or contexts[index] != contexts[index - 1]:
            lines += _prompt(contexts[index], whitespace)
        lines.append(f"{'*' if index == label else ' '} choice {index}: {continuation!r}")
    return lines


def _prompt(text: str, whitespace: bool) -> list[str]:
    if whitespace:
        text = text.replace(" ", "·").replace("\t", "→").replace("\n", "¶\n")
    return ["context:", *(f"  |{line}" for line in text.split("\n"))]

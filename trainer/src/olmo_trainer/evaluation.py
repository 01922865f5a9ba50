"""What is measured in the loop: held-out bits per byte, and multiple choice as catwalk scores it.

Bits per byte: each document is scored by itself. Its tokens t₁ … tₙ (none is added at the end) follow one prefix token:
BOS if the documents of the shards begin with it, else EOS (docs/formats/checkpoint.md, *Before a document*). A document
longer than the model is cut into disjoint windows: with the stream s = [prefix, t₁, …, tₙ] and length L, window k reads
s[kL : (k+1)L] and predicts s[kL+1 : (k+1)L+1], so that each token is scored once and each window sees one token of the
one before. This is lm-eval's rolling log-likelihood with one token of context.
Bits per byte = Σ nats / (Σ UTF-8 bytes of the texts · ln 2), sums first: comparable across tokenizers.

Multiple choice: requests as in OLMo's in-loop evaluation and OLMES. A row is a choice:
`{"request": {"context", "continuation"}, "doc_id", "idx", "label"}`. White space at the end of the context moves to the
continuation, both are encoded as one text, and the tokens after the context's own are scored; a token across that
border is scored whole. A context that does not fit is cut on the left. With L = Σ ln p(continuation):

    acc_raw              the choice with the largest L
    acc_per_token, acc_per_char, acc_per_byte    … of L / its length, the leading space counted
    acc_unconditional    … of L − Σ ln p(continuation | "Answer:")
    bits_per_byte_gold   −L of the right choice / (its bytes · ln 2)
"""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer

from .config.schema import ValidationConfig
from .data.sources import SpecialTokens
from .formats.checkpoint import open_tokenizer
from .formats.contract import Fields, Problem, mismatch, read_rows
from .formats.document import document_files, read_documents
from .model.loss import IGNORED, token_nats
from .model.transformer import Transformer
from .settings import SettingError

__all__ = ["TaskSet", "ValidationSet", "bits_per_byte", "open_tasks", "open_validation", "task_values"]

log = logging.getLogger(__name__)


# ---- bits per byte


@dataclass(frozen=True, kw_only=True)
class ValidationSet:
    """Windows to score.

    For each document, `names` has its file, line and id, for errors, and `domain_of_document` (source, subdomain).
    """

    batch_tokens: int
    inputs: list[list[int]] = field(default_factory=list)
    labels: list[list[int]] = field(default_factory=list)
    document_of_window: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    domain_of_document: list[tuple[str, str]] = field(default_factory=list)
    bytes_of_document: list[int] = field(default_factory=list)


def windows_of(ids: list[int], prefix: int, length: int) -> Iterator[tuple[list[int], list[int]]]:
    """The (inputs, labels) of one document's windows; each token is a label once."""
    stream = [prefix, *ids]
    for start in range(0, len(ids), length):
        labels = stream[start + 1 : start + 1 + length]
        yield stream[start : start + len(labels)], labels


def open_validation(settings: ValidationConfig, tokenizer_path: Path, prefix: int, length: int) -> ValidationSet | None:
    """Read and encode the validation documents; None if the config names none."""
    if not settings.documents:
        return None
    missing = [name for name in settings.documents if not Path(name).exists()]
    if missing:
        text = "a directory of documents"
        raise SettingError(
            *(Problem(f'"validation.documents" names {name}, which was not found; expected {text}') for name in missing)
        )
    tokenizer = open_tokenizer(tokenizer_path)
    found = ValidationSet(batch_tokens=settings.batch_tokens)
    taken: dict[tuple[str, str], int] = defaultdict(int)
    for name in settings.documents:
        for document in read_documents(document_files(Path(name))):
            domain = (document.source, document.subdomain)
            if not document.text or taken[domain] == settings.documents_per_domain:
                continue
            taken[domain] += 1
            ids = tokenizer.encode(document.text, add_special_tokens=False).ids
            for inputs, labels in windows_of(ids, prefix, length):
                found.inputs.append(inputs)
                found.labels.append(labels)
                found.document_of_window.append(len(found.domain_of_document))
            found.names.append(f'{document.place}: document "{document.id}"')
            found.domain_of_document.append(domain)
            found.bytes_of_document.append(len(document.text.encode("utf-8")))
    if not found.inputs:
        names = ", ".join(settings.documents)
        raise SettingError(f'"validation.documents" ({names}) contain no text; expected documents')
    return found


@torch.no_grad()
def score_windows(
    model: Transformer,
    inputs: list[list[int]],
    labels: list[list[int]],
    batch_tokens: int,
    what: str,
    names: Sequence[str],
) -> list[float]:
    """Σ −ln p of each window's labels, in nats, without IGNORED labels. `names` are for errors.

    Raises: RuntimeError: a sum is not finite, so any metric computed from it would be meaningless.
    Windows of similar length are scored together, padded at the end, where causal attention does not see the padding.
    """
    order = sorted(range(len(inputs)), key=lambda index: -len(inputs[index]))
    nats_of_window = [0.0] * len(order)
    device = model.embedding.device
    begun = reported = time.monotonic()
    start = 0
    while start < len(order):
        width = len(inputs[order[start]])
        batch = order[start : start + max(1, batch_tokens // width)]
        inputs_BT = torch.zeros(len(batch), width, dtype=torch.long)
        labels_BT = torch.full((len(batch), width), IGNORED)
        for row, index in enumerate(batch):
            inputs_BT[row, : len(inputs[index])] = torch.tensor(inputs[index])
            labels_BT[row, : len(labels[index])] = torch.tensor(labels[index])
        hidden_ND = model(inputs_BT.to(device)).flatten(0, 1)
        nats_N = token_nats(hidden_ND, model.output_weight, labels_BT.flatten().to(device), model.tensor_parallel)
        sums = nats_N.view(len(batch), width).double().sum(dim=1).tolist()
        for index, nats in zip(batch, sums, strict=True):
            if not math.isfinite(nats):
                expected = "a finite number; the model overflows"
                raise RuntimeError(f"{names[index]} has a log-likelihood of {-nats}; expected {expected}")
            nats_of_window[index] = nats
        start += len(batch)
        if (now := time.monotonic()) - reported > 10:
            reported = now
            left = (now - begun) / start * (len(order) - start)
            log.info("validate  %s  %d/%d windows  eta %.0f s", what, start, len(order), left)
    return nats_of_window


def bits_per_byte(model: Transformer, validation: ValidationSet) -> dict[str, float]:
    """`eval/bpb` of everything, `eval/<source>/bpb` and, for documents with one, `eval/<source>/<subdomain>/bpb`.

    Raises: RuntimeError: a log-likelihood is not finite.
    """
    names = [validation.names[document] for document in validation.document_of_window]
    found = score_windows(model, validation.inputs, validation.labels, validation.batch_tokens, "documents", names)
    nats_of_document = [0.0] * len(validation.names)
    for document, value in zip(validation.document_of_window, found, strict=True):
        nats_of_document[document] += value
    nats: dict[str, float] = defaultdict(float)
    text_bytes: dict[str, int] = defaultdict(int)
    rows = zip(validation.domain_of_document, nats_of_document, validation.bytes_of_document, strict=True)
    for (source, subdomain), value, size_bytes in rows:
        for name in dict.fromkeys(("eval", f"eval/{source}", f"eval/{source}/{subdomain}" if subdomain else "eval")):
            nats[name] += value
            text_bytes[name] += size_bytes
    return {f"{name}/bpb": nats[name] / (text_bytes[name] * math.log(2)) for name in sorted(nats)}


# ---- multiple choice

_UNCONDITIONAL = "Answer:"  # arXiv 2402.00838, appendix: the context of unconditional probabilities
_COPIES_FROM = 1_000_000  # from this id on, OLMo's in-loop files have unconditional copies of the same choices


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """A continuation, with the numbers of its two requests: after its context, and after only "Answer:"."""

    text: str
    conditional: int
    unconditional: int


class _Requests:
    """Distinct requests as windows."""

    def __init__(self, tokenizer: Tokenizer, special: SpecialTokens, length: int) -> None:
        self.inputs: list[list[int]] = []
        self.labels: list[list[int]] = []
        self.tokens: list[int] = []
        """The number of scored tokens of each request."""
        self.names: list[str] = []
        """The file and the first question with each request."""
        self._tokenizer, self._length = tokenizer, length
        self._prefix = special.eos if special.bos is None else special.bos
        self._lead = [] if special.bos is None else [special.bos]  # as the shards' documents start
        self._numbers: dict[tuple[str, str], int] = {}

    def choice(self, context: str, continuation: str, name: str) -> _Choice:
        """The numbers of a choice's two requests."""
        conditional, unconditional = (self._number(before, continuation, name) for before in (context, _UNCONDITIONAL))
        return _Choice(text=continuation, conditional=conditional, unconditional=unconditional)

    def _number(self, context: str, continuation: str, name: str) -> int:
        bare = context.rstrip()
        pair = bare, context[len(bare) :] + continuation
        if pair not in self._numbers:
            self._numbers[pair] = len(self.tokens)
            own, whole = self._ids(bare), self._ids("".join(pair))
            border = next((i for i, (a, b) in enumerate(zip(own, whole, strict=False)) if a != b), len(own))
            before, scored = [*self._lead, *whole[:border]] or [self._prefix], whole[border:]
            # the last scored token is never an input, so one more token of the context fits
            before = before[-max(1, self._length + 1 - len(scored)) :]
            self.inputs.append([*before, *scored][:-1])
            self.labels.append([IGNORED] * (len(before) - 1) + scored)
            self.tokens.append(len(scored))
            self.names.append(name)
        return self._numbers[pair]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


@dataclass(frozen=True, kw_only=True)
class TaskSet:
    """A task's requests, and its questions as (label, choices)."""

    name: str
    requests: _Requests
    questions: list[tuple[int, list[_Choice]]]
    batch_tokens: int


def open_tasks(settings: ValidationConfig, tokenizer_path: Path, special: SpecialTokens, length: int) -> list[TaskSet]:
    """Read and encode the tasks of a config for a model of a length."""
    found: list[TaskSet] = []
    tokenizer = open_tokenizer(tokenizer_path) if settings.tasks else None
    for number, task in enumerate(settings.tasks):
        assert tokenizer is not None
        key, path = f'"validation.tasks.{number}.path"', Path(task.path)
        if not path.is_file():
            raise SettingError(f"{key} is {path}, which was not found; expected a file of requests")
        requests = _Requests(tokenizer, special, length)
        questions = _questions(path, requests, settings.items_per_task)
        if not questions:
            raise SettingError(f"{key} is {path}, which contains no requests; expected one choice per row")
        if (longest := max(requests.tokens)) > length:
            message = f"{key} is {path}, which has a choice of {longest} tokens; expected {length} at most"
            raise SettingError(message, hint="remove the task, or raise data.sequence_length")
        found.append(
            TaskSet(name=task.name, requests=requests, questions=questions, batch_tokens=settings.batch_tokens)
        )
    return found


def _questions(path: Path, requests: _Requests, limit: int | None) -> list[tuple[int, list[_Choice]]]:
    texts: dict[int, dict[int, tuple[str, str]]] = {}
    labels: dict[int, int] = {}
    for line, row in read_rows(path):
        fields = Fields(row, path, line)
        question = fields.integer("doc_id", minimum=None)
        if question >= _COPIES_FROM or (question not in texts and len(texts) == limit):
            continue
        request = fields.object("request")
        context, continuation = request.string("context"), request.string("continuation")
        if not continuation.strip():
            raise mismatch("invalid_value", path, "empty", "text to score", line=line, field="request.continuation")
        index = fields.integer("idx", minimum=None)
        texts.setdefault(question, {})[index] = context, continuation
        labels[question] = fields.integer("label", minimum=None)
    found = []
    for question, choices in texts.items():
        if sorted(choices) != list(range(len(choices))) or labels[question] not in choices:
            got = f"choices {sorted(choices)} and label {labels[question]} of question {question}"
            raise mismatch("invalid_value", path, got, "choices from 0 on, and one of them as label", field="idx")
        pairs = [choices[index] for index in range(len(choices))]
        name = f"{path}: question {question}"
        found.append((labels[question], [requests.choice(*pair, name) for pair in pairs]))
    return found


def task_values(model: Transformer, tasks: Sequence[TaskSet]) -> dict[str, float]:
    """`eval/downstream/<task>_<metric>` of every task; only bits per byte if its questions have one choice."""
    values: dict[str, float] = {}
    for task in tasks:
        asked = task.requests
        nats = score_windows(model, asked.inputs, asked.labels, task.batch_tokens, task.name, asked.names)
        # rounded as in catwalk, so that noise decides nothing
        found = _metrics(task, [min(0.0, round(-value, 6)) for value in nats])
        values |= {f"eval/downstream/{task.name}_{name}": value for name, value in found.items()}
    return values


def _metrics(task: TaskSet, sums: list[float]) -> dict[str, float]:
    """A task's metrics from Σ ln p of its requests."""
    worths: dict[str, Callable[[_Choice], float]] = {
        "acc_raw": lambda choice: sums[choice.conditional],
        "acc_per_token": lambda choice: sums[choice.conditional] / task.requests.tokens[choice.conditional],
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
    """Index of the largest value, the first of equals."""
    return max(range(len(values)), key=lambda index: (values[index], -index))

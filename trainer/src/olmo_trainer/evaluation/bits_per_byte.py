"""Held-out bits per byte by source and subdomain.

Each document is scored by itself. Its tokens t₁ … tₙ (none is added at the end) follow one prefix token: BOS where the
documents of the shards begin with it, else EOS (docs/formats/checkpoint.md, *Before a document*). A document longer
than the model is cut into disjoint windows: with the stream s = [prefix, t₁, …, tₙ] and length L, window k reads
s[kL : (k+1)L] and predicts s[kL+1 : (k+1)L+1], so that each token is scored once and each window sees one token of the
one before. This is lm-eval's rolling log-likelihood with one token of context.
Bits per byte = Σ nats / (Σ UTF-8 bytes of the texts · ln 2), sums first: comparable across tokenizers.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..config.errors import ConfigError, Problem
from ..config.schema import ValidationConfig
from ..formats.document import document_files, documents
from ..formats.inspection import open_tokenizer
from ..model.loss import IGNORED, token_nats
from ..model.transformer import Transformer

__all__ = ["ValidationSet", "bits_per_byte", "open_validation", "score", "score_windows", "windows_of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ValidationSet:
    """Windows to score.

    Of each document `names` has the file, line and id, for errors, and `domain_of_document` (source, subdomain).
    """

    inputs: list[list[int]]
    labels: list[list[int]]
    document_of_window: list[int]
    names: list[str]
    domain_of_document: list[tuple[str, str]]
    bytes_of_document: list[int]
    batch_tokens: int


def windows_of(ids: list[int], prefix: int, length: int) -> Iterator[tuple[list[int], list[int]]]:
    """The (inputs, labels) of one document's windows; each label stands once."""
    stream = [prefix, *ids]
    for start in range(0, len(ids), length):
        labels = stream[start + 1 : start + 1 + length]
        yield stream[start : start + len(labels)], labels


def open_validation(
    settings: ValidationConfig, tokenizer_path: Path, prefix: int, length: int, where: str
) -> ValidationSet | None:
    """Read and encode the validation documents; None where the config names none.

    Raises: ConfigError: a directory is missing or has no text; FormatError: a document is malformed.
    """
    if not settings.documents:
        return None
    missing = [name for name in settings.documents if not Path(name).exists()]
    if missing:
        text = "a directory of documents"
        raise ConfigError(
            *(
                Problem(f'{where}: "validation.documents" names {name}, which was not found; expected {text}')
                for name in missing
            )
        )
    tokenizer = open_tokenizer(tokenizer_path)
    found = ValidationSet(
        inputs=[],
        labels=[],
        document_of_window=[],
        names=[],
        domain_of_document=[],
        bytes_of_document=[],
        batch_tokens=settings.batch_tokens,
    )
    taken: dict[tuple[str, str], int] = defaultdict(int)
    for name in settings.documents:
        for document in documents(document_files(Path(name))):
            domain = (document.source, document.subdomain)
            if not document.text or taken[domain] == settings.documents_per_domain:
                continue
            taken[domain] += 1
            ids = tokenizer.encode(document.text, add_special_tokens=False).ids
            for inputs, labels in windows_of(ids, prefix, length):
                found.inputs.append(inputs)
                found.labels.append(labels)
                found.document_of_window.append(len(found.domain_of_document))
            found.names.append(f'{document.path}:{document.line}: document "{document.id}"')
            found.domain_of_document.append(domain)
            found.bytes_of_document.append(len(document.text.encode("utf-8")))
    if not found.inputs:
        names = ", ".join(settings.documents)
        raise ConfigError(Problem(f'{where}: "validation.documents" ({names}) hold no text; expected documents'))
    return found


def score(model: Transformer, validation: ValidationSet) -> list[float]:
    """Σ −ln p of each document, in nats.

    Raises: RuntimeError: one is not finite.
    """
    names = [validation.names[document] for document in validation.document_of_window]
    nats = score_windows(model, validation.inputs, validation.labels, validation.batch_tokens, "documents", names)
    nats_of_document = [0.0] * len(validation.domain_of_document)
    for window, document in enumerate(validation.document_of_window):
        nats_of_document[document] += nats[window]
    return nats_of_document


@torch.no_grad()
def score_windows(
    model: Transformer,
    inputs: list[list[int]],
    labels: list[list[int]],
    batch_tokens: int,
    what: str,
    names: Sequence[str],
) -> list[float]:
    """Σ −ln p of each window's labels, in nats; IGNORED labels do not count. `names` are for errors.

    Raises: RuntimeError: a sum is not finite, so any metric computed from it would be meaningless.
    Windows of like length are scored together, padded at their end, where causal attention keeps padding out of sight.
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
        nats_N = token_nats(hidden_ND, model.output_weight, labels_BT.flatten().to(device), model.tensor)
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


def bits_per_byte(validation: ValidationSet, nats_of_document: list[float]) -> dict[str, float]:
    """`eval/bpb` of everything, `eval/<source>/bpb` and, where documents name one, `eval/<source>/<subdomain>/bpb`."""
    nats: dict[str, float] = defaultdict(float)
    text_bytes: dict[str, int] = defaultdict(int)
    for (source, subdomain), value, size_bytes in zip(
        validation.domain_of_document, nats_of_document, validation.bytes_of_document, strict=True
    ):
        for name in dict.fromkeys(("eval", f"eval/{source}", f"eval/{source}/{subdomain}" if subdomain else "eval")):
            nats[name] += value
            text_bytes[name] += size_bytes
    return {f"{name}/bpb": nats[name] / (text_bytes[name] * math.log(2)) for name in sorted(nats)}

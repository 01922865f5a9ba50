"""Perplexity of documents: windows, and sums by domain.

Each document is scored on its own after one prefix token, never packed with others, and each token is scored exactly
once. Two windowings (Paloma, arXiv:2312.10523, section 3 and its reference code) differ at the end of a long document:

- `strict-disjoint`: prefix + document is cut into disjoint inputs of `max_length_tokens`; each token predicts the next.
- `paloma-reference`: the same, but the last window reaches back for as much context as it can take. Paloma's published
  numbers were made with it.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from catwalk.formats.contract import WorkError
from catwalk.formats.document import Document
from catwalk.metrics import round_logprob, round_significant
from catwalk.statistics import ratio_stderr
from catwalk.types import DocumentScore, Request, Windowing

__all__ = ["Windowing", "document_score", "domain_rows", "windows"]


def windows(tokens: Sequence[int], prefix_id: int, max_length_tokens: int, windowing: Windowing) -> list[Request]:
    """Requests that score each token once; context + continuation without its last fit `max_length_tokens`."""
    whole = (prefix_id, *tokens)
    requests = []
    for start in range(0, len(tokens), max_length_tokens):
        end = min(start + max_length_tokens, len(tokens))
        first = start
        if windowing == "paloma-reference" and start and end == len(tokens):
            first = end - max_length_tokens
        requests.append(Request(context=whole[first : start + 1], continuation=whole[start + 1 : end + 1]))
    return requests


def document_score(
    document: Document, tokens: int, sum_logprob: float, types: tuple[tuple[int, int, float], ...] = ()
) -> DocumentScore:
    """A document's sums. A word is a run of characters between white space.

    Raises:
        ValueError: for a sum that cannot be a log-probability.
    """
    round_logprob(sum_logprob)  # raises
    return DocumentScore(
        source=document.source,
        subdomain=document.subdomain,
        id=document.id,
        tokens=tokens,
        bytes=len(document.text.encode()),
        chars=len(document.text),
        words=len(document.text.split()),
        nll_nats=max(0.0, round_significant(-sum_logprob)) + 0.0,
        types=types,
    )


def domain_rows(scores: Iterable[DocumentScore]) -> list[dict[str, Any]]:
    """`perplexity` of results.json: sums by (source, subdomain), sorted; the ratio is null for a domain without text.

    Raises:
        WorkError: for a domain with tokens and a sum of 0, which no language model produces.
    """
    domains: dict[tuple[str, str], list[DocumentScore]] = {}
    for score in scores:
        domains.setdefault((score.source, score.subdomain), []).append(score)
    return [_domain_row(*key, rows) for key, rows in sorted(domains.items())]


def _domain_row(source: str, subdomain: str, rows: list[DocumentScore]) -> dict[str, Any]:
    size_bytes = sum(row.bytes for row in rows)
    nll_nats = round_significant(math.fsum(row.nll_nats for row in rows))
    if nll_nats == 0 and any(row.tokens for row in rows):
        problem = f"perplexity: every token of {source}/{subdomain} has probability 1; expected less"
        raise WorkError(problem, hint="check that the weights are those of a language model")
    value = round_significant(nll_nats / (size_bytes * math.log(2))) if size_bytes else None
    stderr = ratio_stderr([row.nll_nats / math.log(2) for row in rows], [float(row.bytes) for row in rows])
    return {
        "source": source,
        "subdomain": subdomain,
        "documents": len(rows),
        "tokens": sum(row.tokens for row in rows),
        "bytes": size_bytes,
        "chars": sum(row.chars for row in rows),
        "words": sum(row.words for row in rows),
        "nll_nats": nll_nats,
        "bits_per_byte": {
            "value": value,
            "stderr": None if stderr is None else round_significant(stderr),
            "n": len(rows),
        },
    }

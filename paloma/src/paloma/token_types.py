"""Loss by type of the vocabulary: for each token id v its count T_v and its loss N_v; μ_v = −N_v / T_v.

`types.jsonl.gz` of results has a row for each domain, with parallel arrays of ids, counts and losses. Types are ids and
not strings: different ids can decode to the same string, such as parts of a character.
Source: Paloma (arXiv:2312.10523), the analysis of vocabulary types.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from paloma.bootstrap import Array
from paloma.formats.contract import FormatError, read_lines
from paloma.submission import Submission

__all__ = ["TYPES", "TypeLosses", "describe_types", "improved", "read_types"]

TYPES = "types.jsonl.gz"
_CURVE_POINTS = 40
_TOP = 20


class _Row(msgspec.Struct, frozen=True):
    source: str
    subdomain: str
    tokens: list[int]
    counts: list[int]
    nll_nats: list[float]


class TypeLosses:
    """Counts and losses of every token id, in arrays as long as the largest id."""

    def __init__(self) -> None:
        self.counts: Array = np.zeros(0)
        self.losses: Array = np.zeros(0)

    def add(self, tokens: list[int], counts: list[int], losses: list[float]) -> None:
        """Add a domain."""
        size = max(len(self.counts), max(tokens, default=-1) + 1)
        self.counts = np.pad(self.counts, (0, size - len(self.counts)))
        self.losses = np.pad(self.losses, (0, size - len(self.losses)))
        ids = np.array(tokens, dtype=np.int64)
        np.add.at(self.counts, ids, counts)
        np.add.at(self.losses, ids, losses)

    def padded(self, size: int) -> tuple[Array, Array]:
        """Counts and losses with room for more ids."""
        return np.pad(self.counts, (0, size - len(self.counts))), np.pad(self.losses, (0, size - len(self.losses)))


def _path(submission: Submission) -> Path | None:
    path = submission.evidence.file(submission.evidence.results, TYPES)
    if path is None:
        beside = submission.results.path.parent / TYPES
        path = beside if beside.is_file() else None
    return path


def _rows(path: Path) -> Iterator[_Row]:
    decoder = msgspec.json.Decoder(_Row)
    for line, raw in read_lines(path):
        try:
            row = decoder.decode(raw)
        except msgspec.DecodeError as error:
            raise FormatError("wrong_type", path, f"is not a domain's types: {error}", line=line) from error
        if not len(row.tokens) == len(row.counts) == len(row.nll_nats) or min(row.tokens, default=0) < 0:
            message = "tokens, counts and nll_nats do not fit each other; expected arrays of one length"
            raise FormatError("invalid_value", path, message, line=line)
        yield row


def read_types(submission: Submission) -> dict[str, TypeLosses] | None:
    """Losses by type for each source, and for all under `*`; None where the results have none.

    Raises:
        FormatError: a broken row, or counts that are not the results' tokens.
    """
    path = _path(submission)
    if path is None:
        return None
    known = {(domain.source, domain.subdomain): domain for domain in submission.results.domains}
    found: dict[str, TypeLosses] = {"*": TypeLosses()}
    for row in _rows(path):
        domain = known.get((row.source, row.subdomain))
        if domain is None or sum(row.counts) != domain.tokens:
            expected = f"{domain.tokens:,} as in the results" if domain else "a domain of the results"
            message = f"{row.source}/{row.subdomain} has {sum(row.counts):,} tokens; expected {expected}"
            raise FormatError("invalid_value", path, message, field="counts")
        for name in (row.source, "*"):
            found.setdefault(name, TypeLosses()).add(row.tokens, row.counts, row.nll_nats)
    return found


def describe_types(submission: Submission) -> dict[str, Any] | None:
    """By source and for all: how many types occur, which share of them has half of the loss, and the whole curve."""
    found = read_types(submission)
    return None if found is None else {name: _describe(types) for name, types in sorted(found.items())}


def _describe(types: TypeLosses) -> dict[str, Any]:
    ids = np.flatnonzero(types.counts)
    order = ids[np.argsort(-types.losses[ids], kind="stable")]
    shares = np.cumsum(types.losses[order]) / max(types.losses.sum(), 1e-300)
    at = np.unique(np.geomspace(1, len(order), _CURVE_POINTS).astype(int)) if len(order) else np.zeros(0, dtype=int)
    return {
        "types": len(order),
        "half": float((np.searchsorted(shares, 0.5) + 1) / len(order)) if len(order) else None,
        "curve": [[float(rank / len(order)), float(shares[rank - 1])] for rank in at],
        "most": [
            {"token": int(v), "count": int(types.counts[v]), "nll_nats": float(types.losses[v])} for v in order[:_TOP]
        ],
    }


def improved(before: TypeLosses, after: TypeLosses) -> dict[str, Any]:
    """Of the types that occur: those whose mean loss fell, rose or stayed, and the ids that changed most."""
    size = max(len(before.counts), len(after.counts))
    counts, losses = before.padded(size)
    _, later = after.padded(size)
    ids = np.flatnonzero(counts)
    change = (later[ids] - losses[ids]) / counts[ids]
    order = ids[np.argsort(change, kind="stable")]
    return {
        "types": len(ids),
        "fell": int((change < 0).sum()),
        "rose": int((change > 0).sum()),
        "rose_share": float((change > 0).mean()) if len(ids) else None,
        "most_improved": [int(v) for v in order[:_TOP]],
        "least_improved": [int(v) for v in order[::-1][:_TOP]],
    }

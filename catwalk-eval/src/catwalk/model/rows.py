"""Which requests share a forward row, and which rows share a batch. Pure functions of the requests; numpy only.

Requests with the same context stand in one row: the context once, then each continuation, which sees the context and
itself alone (a mask) at the positions it would have had alone. A context of n tokens with k continuations of m tokens
costs n + k(m − 1) tokens instead of k(n + m − 1); a continuation of one token costs nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catwalk.types import Request

__all__ = ["Batch", "Row", "batches", "pack_alone", "pack_shared"]

Integers = npt.NDArray[np.int64]

# A row with a mask costs the square of its length; beyond this, continuations of one context go to further rows.
_SHARED_ROW_TOKENS = 384


@dataclass(frozen=True, kw_only=True)
class Row:
    """One forward row.

    `segments` is 0 for the context and 1, 2, … for the continuations; None when there is one continuation, so that a
    causal mask is enough. Entry i of `at`, `targets`, `requests`: the logits at place `at[i]` of the row predict the
    token `targets[i]` of the request `requests[i]`.
    """

    tokens: Integers
    positions: Integers
    segments: Integers | None
    at: Integers
    targets: Integers
    requests: Integers


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows padded on the right: arrays of shape (rows, longest). `places` are the distinct flat places whose logits are
    needed; entry i predicts `targets[i]` of `requests[i]` from `places[which[i]]`."""

    tokens: Integers
    positions: Integers
    segments: Integers | None
    places: Integers
    which: Integers
    targets: Integers
    requests: Integers


def _row(context: Sequence[int], members: list[tuple[int, Request]]) -> Row:
    tokens, positions, segments = list(context), list(range(len(context))), [0] * len(context)
    at: list[int] = []
    targets: list[int] = []
    requests: list[int] = []
    for segment, (index, request) in enumerate(members, start=1):
        continuation = request.continuation
        # the context's last token predicts the first, each fed token the next
        at += [len(context) - 1, *range(len(tokens), len(tokens) + len(continuation) - 1)]
        targets += continuation
        requests += [index] * len(continuation)
        tokens += continuation[:-1]
        positions += range(len(context), len(context) + len(continuation) - 1)
        segments += [segment] * (len(continuation) - 1)
    return Row(
        tokens=np.array(tokens, dtype=np.int64),
        positions=np.array(positions, dtype=np.int64),
        segments=None if len(members) == 1 else np.array(segments, dtype=np.int64),
        at=np.array(at, dtype=np.int64),
        targets=np.array(targets, dtype=np.int64),
        requests=np.array(requests, dtype=np.int64),
    )


def pack_alone(requests: Sequence[Request]) -> list[Row]:
    """A row a request: nothing shared, no mask."""
    return [_row(request.context, [(index, request)]) for index, request in enumerate(requests)]


def pack_shared(requests: Sequence[Request], longest: int | None = None) -> list[Row]:
    """Rows of requests with equal contexts, in the order in which the contexts first appear.

    Rows of several requests have at most `longest` tokens; a longer request gets a row of its own.
    """
    groups: dict[tuple[tuple[int, ...], int | None], list[tuple[int, Request]]] = {}
    for index, request in enumerate(requests):
        size = len(request.context) + len(request.continuation) - 1
        alone = longest is not None and size > longest
        groups.setdefault((request.context, index if alone else None), []).append((index, request))
    rows: list[Row] = []
    for (context, _), members in groups.items():
        most = max(_SHARED_ROW_TOKENS, 2 * len(context))
        if longest is not None:
            most = min(most, longest)
        part: list[tuple[int, Request]] = []
        size = len(context)
        for member in members:
            added = len(member[1].continuation) - 1
            if part and size + added > most:
                rows.append(_row(context, part))
                part, size = [], len(context)
            part.append(member)
            size += added
        rows.append(_row(context, part))
    return rows


def batches(rows: Sequence[Row], batch_tokens: int, border: int | None = None) -> Iterator[Batch]:
    """Rows from long to short, as many as fit `batch_tokens` with their padding; at least one.

    Rows with and without a mask never share a batch, so that a plain causal batch needs no mask. Nor do rows of at most
    `border` tokens and longer ones, for a model that treats a whole batch like its longest row.
    """

    def kind(row: Row) -> tuple[bool, bool]:
        return row.segments is None, border is not None and len(row.tokens) > border

    order = sorted(range(len(rows)), key=lambda index: (rows[index].segments is None, -len(rows[index].tokens), index))
    part: list[Row] = []
    for row in (rows[index] for index in order):
        full = part and (len(part) + 1) * len(part[0].tokens) > batch_tokens
        if full or (part and kind(row) != kind(part[0])):
            yield _batch(part)
            part = []
        part.append(row)
    if part:
        yield _batch(part)


def _batch(rows: list[Row]) -> Batch:
    longest = len(rows[0].tokens)
    shape = (len(rows), longest)
    tokens, positions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    segments = None if rows[0].segments is None else np.zeros(shape, dtype=np.int64)
    flat: list[Integers] = []
    for number, row in enumerate(rows):
        length = len(row.tokens)
        tokens[number, :length] = row.tokens
        positions[number, :length] = row.positions
        if segments is not None and row.segments is not None:
            segments[number, :length] = row.segments
        flat.append(row.at + number * longest)
    places, which = np.unique(np.concatenate(flat), return_inverse=True)
    return Batch(
        tokens=tokens,
        positions=positions,
        segments=segments,
        places=places,
        which=which.astype(np.int64),
        targets=np.concatenate([row.targets for row in rows]),
        requests=np.concatenate([row.requests for row in rows]),
    )

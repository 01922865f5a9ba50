"""Which tokens share a forward pass: requests → batches of rows. No torch.

The inputs of all requests form a trie of token ids. A long prefix of many requests (few-shot examples, a passage) is a
*trunk*: it is computed once and its keys and values are kept. Below a trunk, branches of the trie are packed into rows;
each token of a row names its parent, so that a mask can show it its own ancestors only. A row of one request needs no
mask.

The plan depends only on the requests and the limits, so every worker makes the same one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from catwalk.types import Request

__all__ = ["Batch", "Limits", "Row", "forward_tokens", "plan", "visible"]

Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`batch_tokens`: tokens of a forward pass, padding included. `row_tokens`: of a row without a trunk, which is
    padded with others to a batch. `branch_tokens`: of a row below a trunk, which is a batch by itself. `trunk_tokens`:
    a shorter prefix is computed again in each row, since a trunk costs a forward pass of its own.

    `packed_length`: requests of at most so many tokens share rows; None for any, 0 for none. `copies`: whether the
    others share trunks whose cache is copied. `trunks`: whether requests that share rows may have a trunk.
    `rotary_switch`: rows of at most so many tokens and longer ones never share a batch, for a model that rotates a
    whole batch like its longest row.
    """

    batch_tokens: int
    row_tokens: int = 96
    branch_tokens: int = 512
    trunk_tokens: int = 32
    packed_length: int | None = None
    copies: bool = False
    trunks: bool = True
    rotary_switch: int | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """Tokens of one forward row below a trunk.

    `parents[i]` is the place in the row of the token before token i; −1 where that is the trunk's last token, or
    nothing. None for a row of one request. The logits at place `scored[k]` predict the token `targets[k]` of the
    request `requests[k]`.
    """

    tokens: Integers
    position_ids: Integers
    parents: Integers | None
    scored: Integers
    targets: Integers
    requests: Integers


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of one forward pass, long to short, after the cached tokens of `trunk`.

    With a trunk there is one row, unless the trunk's cache is `copied` for every row.
    """

    trunk: tuple[int, ...]
    rows: tuple[Row, ...]
    copied: bool = False

    @property
    def size_tokens(self) -> int:
        """Tokens of the forward pass, padding included, the trunk not."""
        return len(self.rows) * max(len(row.tokens) for row in self.rows)


def plan(requests: Sequence[Request], limits: Limits) -> list[Batch]:
    """Batches that score every request once."""
    lengths = [len(request.context) + len(request.continuation) - 1 for request in requests]
    most = limits.packed_length
    short = [index for index, length in enumerate(lengths) if most is None or length <= most]
    long = [index for index, length in enumerate(lengths) if most is not None and length > most]
    packers = [_Packer(requests, chosen, limits, is_packed) for chosen, is_packed in ((short, True), (long, False))]
    branches = [branch for packer in packers for branch in packer.branches]
    return [*branches, *_batches([row for packer in packers for row in packer.rows], limits)]


def forward_tokens(batches: Sequence[Batch]) -> int:
    """Tokens that the model computes for a plan, trunks and padding included."""
    total = 0
    kept: tuple[int, ...] = ()
    copied: tuple[int, ...] = ()
    for batch in batches:
        if batch.copied and batch.trunk != copied:
            total += len(batch.trunk)
            copied = batch.trunk
        elif batch.trunk and not batch.copied:
            total += len(batch.trunk) - _common(batch.trunk, kept)
            kept = batch.trunk
        total += batch.size_tokens
    return total


def visible(row: Row, size: int) -> Booleans:
    """(size, size): whether the token of a row (first index) sees another one. Padding sees itself."""
    seen = np.eye(size, dtype=np.bool_)
    length = len(row.tokens)
    if row.parents is None:
        seen[:length, :length] |= np.tri(length, dtype=np.bool_)
        return seen
    for place, parent in enumerate(row.parents.tolist()):
        if parent >= 0:
            seen[place] |= seen[parent]
    return seen


# ---- the trie


class _Packer:
    """The trie as sorted inputs: neighbours that agree in many tokens are branches of one node."""

    def __init__(self, requests: Sequence[Request], chosen: Sequence[int], limits: Limits, is_packed: bool) -> None:
        self.requests, self.limits, self.is_packed = requests, limits, is_packed
        inputs = {index: (*requests[index].context, *requests[index].continuation[:-1]) for index in chosen}
        self.order = sorted(chosen, key=lambda index: (inputs[index], index))
        self.inputs = [inputs[index] for index in self.order]
        self.lengths = np.array([len(one) for one in self.inputs], dtype=np.int64)
        # the token before the first scored one is never in a trunk: its logits are needed
        self.contexts = np.array([len(requests[index].context) - 1 for index in self.order], dtype=np.int64)
        self.common = np.zeros(len(self.order), dtype=np.int64)
        for index in range(1, len(self.order)):
            self.common[index] = _common(self.inputs[index], self.inputs[index - 1])
        self.rows: list[Row] = []
        self.branches: list[Batch] = []
        if not self.order:
            return
        if is_packed or limits.copies:
            self._divide()
        else:
            self.rows = self._chains(0, len(self.order), 0)

    def _size(self, first: int, last: int, depth: int) -> int:
        """Tokens of a row with these requests below `depth`."""
        common = np.maximum(self.common[first:last], depth)
        common[0] = depth
        return int(np.maximum(self.lengths[first:last] - common, 0).sum())

    def _divide(self) -> None:
        """Fill `rows` (without a trunk) and `branches` (below one) from the root of the trie down."""
        may_grow = self.limits.trunks or not self.is_packed
        stack: list[tuple[int, int, tuple[int, ...]]] = [(0, len(self.order), ())]
        while stack:
            first, last, trunk = stack.pop()
            most = self.limits.branch_tokens if trunk else self.limits.row_tokens
            inner = self.common[first + 1 : last]
            shared = int(inner.min()) if len(inner) else 0
            kept = min(shared, int(self.contexts[first:last].min()))
            grows = may_grow and kept - len(trunk) >= self.limits.trunk_tokens
            fits = self._size(first, last, len(trunk)) <= most
            if last - first == 1 or (fits and (self.is_packed or not grows)):
                self._put(first, last, trunk)
                continue
            if grows:
                stack.append((first, last, self.inputs[first][:kept]))
                continue
            starts = [first, *(first + 1 + np.flatnonzero(inner == shared)).tolist(), last]
            groups: list[tuple[int, int, tuple[int, ...]]] = []
            size = most + 1
            for start, end in pairwise(starts):
                added = self._size(start, end, len(trunk))
                # a branch that is too large for a row may have a trunk of its own
                if groups and size + added <= most:
                    groups[-1], size = (groups[-1][0], end, trunk), size + added
                else:
                    groups.append((start, end, trunk))
                    size = added
            stack.extend(reversed(groups))

    def _put(self, first: int, last: int, trunk: tuple[int, ...]) -> None:
        if self.is_packed:
            row = self._row(first, last, len(trunk))
            if trunk:
                self.branches.append(Batch(trunk=trunk, rows=(row,)))
            else:
                self.rows.append(row)
            return
        rows = self._chains(first, last, len(trunk))
        if trunk:
            below = replace(self.limits, batch_tokens=self.limits.branch_tokens)
            self.branches += [replace(batch, trunk=trunk, copied=True) for batch in _batches(rows, below)]
        else:
            self.rows += rows

    def _chains(self, first: int, last: int, depth: int) -> list[Row]:
        """Rows that need no mask: of one request, or of some whose inputs continue each other."""
        starts = [first, *(at for at in range(first + 1, last) if self.common[at] < self.lengths[at - 1]), last]
        return [self._row(start, end, depth) for start, end in pairwise(starts)]

    def _row(self, first: int, last: int, depth: int) -> Row:
        tokens: list[int] = []
        parents: list[int] = []
        places: list[int] = []  # in the row, of the current input's tokens below `depth`
        scored: list[int] = []
        targets: list[int] = []
        requests: list[int] = []
        for index in range(first, last):
            whole = self.inputs[index]
            kept = max(int(self.common[index]), depth) - depth if index > first else 0
            del places[kept:]
            for token in whole[depth + kept :]:
                parents.append(places[-1] if places else -1)
                places.append(len(tokens))
                tokens.append(token)
            request = self.requests[self.order[index]]
            begin = len(request.context) - 1 - depth
            scored += places[begin : begin + len(request.continuation)]
            targets += request.continuation
            requests += [self.order[index]] * len(request.continuation)
        is_chain = parents == list(range(-1, len(tokens) - 1))
        position = np.zeros(len(tokens), dtype=np.int64)
        for place, parent in enumerate(parents):
            position[place] = depth if parent < 0 else position[parent] + 1
        return Row(
            tokens=np.array(tokens, dtype=np.int64),
            position_ids=position,
            parents=None if is_chain else np.array(parents, dtype=np.int64),
            scored=np.array(scored, dtype=np.int64),
            targets=np.array(targets, dtype=np.int64),
            requests=np.array(requests, dtype=np.int64),
        )


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common prefix."""
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length
    low, high = 0, length
    while high - low > 1:
        middle = (low + high) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle
    return low


# ---- batches


def _batches(rows: Sequence[Row], limits: Limits) -> Iterator[Batch]:
    """Rows from long to short, as many as fit the budget with their padding; at least one.

    Rows with and without a mask never share a batch, so that a plain causal batch needs no mask.
    """
    switch = limits.rotary_switch

    def kind(row: Row) -> tuple[bool, bool]:
        return row.parents is None, switch is not None and len(row.tokens) > switch

    order = sorted(range(len(rows)), key=lambda index: (*kind(rows[index]), -len(rows[index].tokens), index))
    part: list[Row] = []
    for row in (rows[index] for index in order):
        full = part and (len(part) + 1) * len(part[0].tokens) > limits.batch_tokens
        if full or (part and kind(row) != kind(part[0])):
            yield Batch(trunk=(), rows=tuple(part))
            part = []
        part.append(row)
    if part:
        yield Batch(trunk=(), rows=tuple(part))

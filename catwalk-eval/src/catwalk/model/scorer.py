"""ln p(continuation | context) of many requests: requests → rows → batches → the model. Only this file runs the model.

Requests with the same context share one row: the context once, then each continuation, which through a mask sees only
the context and itself, at the positions that it would have in a row of its own. A context of n tokens with k
continuations of m tokens costs n + k(m − 1) tokens instead of k(n + m − 1); a continuation of one token costs nothing.

Shapes: B rows, T tokens, P scored positions, D width, V vocabulary. Log-softmax is float32, only at scored positions.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from catwalk.formats.contract import WorkError, first_line
from catwalk.progress import Progress
from catwalk.types import Request

__all__ = [
    "Batch",
    "NonFiniteError",
    "Row",
    "Scorer",
    "batches",
    "non_finite_cause",
    "probed_scorer",
    "separate_rows",
    "shared_rows",
]

log = logging.getLogger(__name__)

Integers = npt.NDArray[np.int64]

# A row with a mask costs the square of its length; beyond this, continuations of one context go to further rows.
_SHARED_ROW_TOKENS = 384


# ---- rows: which requests share a forward row


@dataclass(frozen=True, kw_only=True)
class Row:
    """One forward row.

    `segments` is 0 for the context and 1, 2, … for the continuations; None when there is one continuation, for which a
    causal mask is enough. The logits at index `scored[i]` of the row predict the token `targets[i]` of the request
    `requests[i]`.
    """

    tokens: Integers
    position_ids: Integers
    segments: Integers | None
    scored: Integers
    targets: Integers
    requests: Integers


def separate_rows(requests: Sequence[Request]) -> list[Row]:
    """A row for each request."""
    return [_row(request.context, [(index, request)]) for index, request in enumerate(requests)]


def shared_rows(requests: Sequence[Request], longest: int | None = None) -> list[Row]:
    """Rows by context, as many continuations in one as fit.

    `longest` is the most tokens in a row of several requests; a longer request has a row of its own.
    """
    groups: dict[tuple[tuple[int, ...], int | None], list[tuple[int, Request]]] = {}
    for index, request in enumerate(requests):
        separate = longest is not None and len(request.context) + len(request.continuation) - 1 > longest
        groups.setdefault((request.context, index if separate else None), []).append((index, request))
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


def _row(context: Sequence[int], members: list[tuple[int, Request]]) -> Row:
    tokens, position_ids, segments = list(context), list(range(len(context))), [0] * len(context)
    scored: list[int] = []
    targets: list[int] = []
    requests: list[int] = []
    for segment, (index, request) in enumerate(members, start=1):
        continuation = request.continuation
        # the context's last token predicts the first token, each further input token the next
        scored += [len(context) - 1, *range(len(tokens), len(tokens) + len(continuation) - 1)]
        targets += continuation
        requests += [index] * len(continuation)
        tokens += continuation[:-1]
        position_ids += range(len(context), len(context) + len(continuation) - 1)
        segments += [segment] * (len(continuation) - 1)
    return Row(
        tokens=np.array(tokens, dtype=np.int64),
        position_ids=np.array(position_ids, dtype=np.int64),
        segments=None if len(members) == 1 else np.array(segments, dtype=np.int64),
        scored=np.array(scored, dtype=np.int64),
        targets=np.array(targets, dtype=np.int64),
        requests=np.array(requests, dtype=np.int64),
    )


# ---- batches: which rows share a forward pass


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows padded on the right: arrays of shape (rows, longest).

    `scored` are the distinct indices into the flattened rows whose logits are needed; the logits at `scored[index[i]]`
    predict `targets[i]` of `requests[i]`.
    """

    tokens: Integers
    position_ids: Integers
    segments: Integers | None
    scored: Integers
    index: Integers
    targets: Integers
    requests: Integers


def batches(rows: Sequence[Row], batch_tokens: int, rotary_switch: int | None = None) -> Iterator[Batch]:
    """Rows from long to short, as many as fit `batch_tokens` with their padding; at least one.

    Rows with and without a mask never share a batch, so that a plain causal batch needs no mask. Nor do rows of at most
    `rotary_switch` tokens and longer ones, for a model that rotates a whole batch like its longest row.
    """

    def kind(row: Row) -> tuple[bool, bool]:
        return row.segments is None, rotary_switch is not None and len(row.tokens) > rotary_switch

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
    tokens, position_ids = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    segments = None if rows[0].segments is None else np.zeros(shape, dtype=np.int64)
    for number, row in enumerate(rows):
        length = len(row.tokens)
        tokens[number, :length] = row.tokens
        position_ids[number, :length] = row.position_ids
        if segments is not None and row.segments is not None:
            segments[number, :length] = row.segments
    flat = np.concatenate([row.scored + number * longest for number, row in enumerate(rows)])
    scored, index = np.unique(flat, return_inverse=True)
    return Batch(
        tokens=tokens,
        position_ids=position_ids,
        segments=segments,
        scored=scored,
        index=index.astype(np.int64),
        targets=np.concatenate([row.targets for row in rows]),
        requests=np.concatenate([row.requests for row in rows]),
    )


# ---- the model's log-probabilities

_LOGITS_CHUNK = 1 << 22  # float32 logits that the head computes at once: 16 MiB, measured fastest on a CPU
_LOGITS_ALL = 1 << 28  # the same for a model that only returns logits of every position: 1 GiB


class NonFiniteError(ValueError):
    """A log-probability that is not finite: `request` is the index of its request."""

    def __init__(self, request: int, value: float) -> None:
        super().__init__(f"request {request}: the log-probability is {value}")
        self.request, self.value = request, value


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A model in evaluation mode on one device.

    `plain_head`: the model's logits are its output matrix times the last hidden state, nothing more. `shared_length`:
    the most tokens in a row of several requests; None for any number, 0 to share nothing. `rotary_switch`: see
    `batches`.
    """

    model: Any
    device: torch.device
    vocab_size: int
    batch_tokens: int
    plain_head: bool
    shared_length: int | None
    rotary_switch: int | None = None

    def score(
        self, requests: Sequence[Request], progress: Progress | None = None, weight: float = 1.0
    ) -> npt.NDArray[np.float64]:
        """Σ ln p over each continuation's tokens, in nats, in the order of `requests`.

        Token log-probabilities are float32, their sums float64. Each request adds `weight` to `progress`.

        Raises:
            NonFiniteError: at the first batch with NaN or infinity.
        """
        rows = separate_rows(requests) if self.shared_length == 0 else shared_rows(requests, self.shared_length)
        limit = self.batch_tokens if self.plain_head else min(self.batch_tokens, _LOGITS_ALL // self.vocab_size)
        sums = np.zeros(len(requests), dtype=np.float64)
        with torch.inference_mode():
            for batch in batches(rows, limit, self.rotary_switch):
                values = self.log_probabilities(batch).cpu().numpy()
                wrong = np.flatnonzero(~np.isfinite(values))
                if len(wrong):
                    first = wrong[np.argmin(batch.requests[wrong])]
                    raise NonFiniteError(int(batch.requests[first]), float(values[first]))
                np.add.at(sums, batch.requests, values)
                if progress is not None:
                    progress.advance(weight * len(np.unique(batch.requests)), batch.tokens.size)
        return sums

    def log_probabilities(self, batch: Batch) -> torch.Tensor:
        """ln p of each of the batch's targets, float32, on the device."""
        tokens_BT = self._tensor(batch.tokens)
        inputs: dict[str, Any] = {"use_cache": False} | self._shared_row_inputs(batch)
        scored, index, targets = map(self._tensor, (batch.scored, batch.index, batch.targets))
        if not self.plain_head:
            logits_BTV = self.model(tokens_BT, **inputs).logits
            logits_PV = logits_BTV.reshape(-1, logits_BTV.shape[-1])[scored]
            return _log_probabilities(logits_PV.float(), index, targets)
        decoder, head = self.model.get_decoder(), self.model.get_output_embeddings()
        hidden_BTD = decoder(tokens_BT, **inputs).last_hidden_state
        hidden_PD = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])[scored]
        values = torch.empty(len(batch.targets), dtype=torch.float32, device=self.device)
        chunk = max(1, _LOGITS_CHUNK // self.vocab_size)
        for start in range(0, len(batch.scored), chunk):
            logits_PV = head(hidden_PD[start : start + chunk]).float()
            part = self._tensor(np.flatnonzero((batch.index >= start) & (batch.index < start + chunk)))
            values[part] = _log_probabilities(logits_PV, index[part] - start, targets[part])
        return values

    def _tensor(self, array: Integers) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)

    def _shared_row_inputs(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Positions and an additive mask (B, 1, T, T) for rows of several requests, nothing for other rows.

        Through the mask a token sees what is before it in the context and in its own continuation.
        """
        if batch.segments is None:
            return {}
        segments_BT = self._tensor(batch.segments)
        length = segments_BT.shape[1]
        earlier = torch.ones(length, length, dtype=torch.bool, device=self.device).tril()
        own = segments_BT[:, :, None] == segments_BT[:, None, :]
        context = segments_BT[:, None, :] == 0
        visible = (earlier & (own | context))[:, None]
        zero = torch.zeros((), dtype=self.model.dtype, device=self.device)
        mask = torch.where(visible, zero, torch.full_like(zero, torch.finfo(self.model.dtype).min))
        return {"attention_mask": mask, "position_ids": self._tensor(batch.position_ids)}


def _log_probabilities(logits_PV: torch.Tensor, index: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """logit − logsumexp at (index, target); float32 in and out."""
    return logits_PV[index, targets] - torch.logsumexp(logits_PV, dim=-1)[index]


# ---- probe: which shortcuts this model allows

# what a model's own code raises for a call that it does not support
_UNSUPPORTED = (AttributeError, TypeError, ValueError, RuntimeError, LookupError)
_PROBE_CONTEXT, _PROBE_ENDS = 24, (6, 4, 1)
# Relative to 1 + |sum|. Measured on small models of 13 families: sharing moves a sum by at most 3e-7, 8e-4 and 1e-2, a
# wrong mask by 1e-4 to 0.5. In half precision a small error passes, so the configuration is checked first.
_PROBE_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}


def probed_scorer(
    model: Any,
    *,
    device: torch.device,
    batch_tokens: int,
    shared_length: int | None,
    max_length_tokens: int,
    rotary_switch: int | None = None,
) -> Scorer:
    """A scorer with the shortcuts that reproduce this model's own numbers on a short text.

    The output matrix is applied outside the model if that reproduces the model's logits bit by bit, which soft caps and
    scales prevent. Contexts are shared if a few requests score the same together as separately; otherwise a warning
    says that they are not.

    Raises:
        WorkError: the model cannot score any text.
    """
    limits = [length for length in (shared_length, rotary_switch) if length is not None]
    scorer = Scorer(
        model=model,
        device=device,
        vocab_size=model.get_input_embeddings().weight.shape[0],
        batch_tokens=batch_tokens,
        plain_head=False,
        shared_length=0,
        rotary_switch=rotary_switch,
    )
    draw = np.random.default_rng(0).integers(0, scorer.vocab_size, size=_PROBE_CONTEXT + sum(_PROBE_ENDS)).tolist()
    tokens = torch.tensor([draw[:max_length_tokens]], device=device)
    with torch.inference_mode():
        try:
            logits = model(tokens, use_cache=False).logits
        except Exception as error:  # whatever a model's own code raises
            problem = f"the model fails on a short text ({first_line(error)}); expected log-probabilities"
            raise WorkError(problem, hint="check config.json against the weights") from error
        scorer = replace(scorer, plain_head=_head_is_plain(model, tokens, logits))
    context_length = min([_PROBE_CONTEXT, *(limit - sum(_PROBE_ENDS) for limit in (*limits, max_length_tokens))])
    if context_length < 1:
        return scorer
    sharing = replace(scorer, shared_length=min(limits, default=None))
    rest = iter(draw[context_length:])
    ends = [Request(context=tuple(draw[:context_length]), continuation=tuple(islice(rest, n))) for n in _PROBE_ENDS]
    try:
        separate, together = scorer.score(ends), sharing.score(ends)
    except NonFiniteError:
        return sharing  # the first text to score fails too, and its error names it
    except _UNSUPPORTED as error:
        log.warning("contexts are not shared: the model does not accept a mask (%s)", type(error).__name__)
        return scorer
    difference = float(np.max(np.abs(together - separate) / (1 + np.abs(separate))))
    if difference > _PROBE_TOLERANCE[model.dtype]:
        log.warning("contexts are not shared: in a probe, sharing changed a score by %.2g", difference)
        return scorer
    return sharing


def _head_is_plain(model: Any, tokens: torch.Tensor, logits: torch.Tensor) -> bool:
    try:
        hidden = model.get_decoder()(tokens, use_cache=False).last_hidden_state
        own = model.get_output_embeddings()(hidden)
    except _UNSUPPORTED:  # no decoder or head under these names, or one that needs more arguments
        return False
    return own.shape == logits.shape and torch.equal(own.float(), logits.float())


def non_finite_cause(model: Any) -> str:
    """What to do about log-probabilities that are not finite, from a look at the loaded weights."""
    dtype = str(model.dtype).removeprefix("torch.")
    half, wider = dtype == "float16", "--dtype bfloat16 or --dtype float32"
    for name, tensor in model.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            advice = f"try {wider}; if that fails too, the file is damaged" if half else "export the checkpoint again"
            return f'tensor "{name}" has NaN or infinity in {dtype}: {advice}'
    advice = f"use {wider}" if half else "its training diverged, or config.json belongs to another model"
    return f"the weights are finite, so the model overflows in {dtype}: {advice}"

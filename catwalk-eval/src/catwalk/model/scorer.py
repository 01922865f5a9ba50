"""ln p(continuation | context) of many requests: the one place that runs the model.

Shapes: B rows, T tokens, P scored places, D width, V vocabulary. Log-softmax is in float32 and only at scored places.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from catwalk.errors import DataError, first_line
from catwalk.model.rows import Batch, batches, pack_alone, pack_shared
from catwalk.progress import Progress
from catwalk.types import Request

__all__ = ["NonFiniteError", "Scorer", "non_finite_cause", "probed_scorer"]

log = logging.getLogger(__name__)

_LOGITS_CHUNK = 1 << 22  # float32 logits held at once by the head: 16 MiB, measured fastest on a CPU
_LOGITS_WHOLE = 1 << 28  # the same for a model that only gives logits of every place: 1 GiB

# what a model's own code raises for a call that it does not support
_CANNOT = (AttributeError, TypeError, ValueError, RuntimeError, LookupError)
_PROBE_CONTEXT, _PROBE_ENDS = 24, (6, 4, 1)
# of 1 + |sum|. Measured on small models of 13 families: sharing moves a sum by at most 3e-7, 8e-4 and 1e-2, a wrong
# mask by 1e-4 to 0.5. In half precision a small error passes, so the configuration is asked first.
_PROBE_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}


class NonFiniteError(ValueError):
    """A log-probability that is not finite: `request` is the index of its request."""

    def __init__(self, request: int, value: float) -> None:
        super().__init__(f"request {request}: the log-probability is {value}")
        self.request, self.value = request, value


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A model in evaluation mode on one device.

    `plain_head`: its logits are its output matrix times the last hidden state, nothing more. `shared_length`: the most
    tokens in a row of several requests; None for any number, 0 to share nothing. `border`: rows of at most this many
    tokens and longer ones do not share a batch.
    """

    model: Any
    device: torch.device
    vocab_size: int
    batch_tokens: int
    plain_head: bool
    shared_length: int | None
    border: int | None = None

    def score(
        self, requests: Sequence[Request], progress: Progress | None = None, weight: float = 1.0
    ) -> npt.NDArray[np.float64]:
        """Σ ln p over each continuation's tokens, in nats; the order of `requests`.

        Token log-probabilities are float32, their sums float64. `weight` is what a request counts in `progress`.

        Raises:
            NonFiniteError: at the first batch with NaN or infinity.
        """
        rows = pack_alone(requests) if self.shared_length == 0 else pack_shared(requests, self.shared_length)
        limit = self.batch_tokens if self.plain_head else min(self.batch_tokens, _LOGITS_WHOLE // self.vocab_size)
        sums = np.zeros(len(requests), dtype=np.float64)
        with torch.inference_mode():
            for batch in batches(rows, limit, self.border):
                values = self._places(batch) if self.plain_head else self._whole(batch)
                wrong = np.flatnonzero(~np.isfinite(values))
                if len(wrong):
                    first = wrong[np.argmin(batch.requests[wrong])]
                    raise NonFiniteError(int(batch.requests[first]), float(values[first]))
                np.add.at(sums, batch.requests, values)
                if progress is not None:
                    progress.advance(weight * len(np.unique(batch.requests)), batch.tokens.size)
        return sums

    def _tensor(self, array: npt.NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)

    def _places(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Token log-probabilities by way of the last hidden state, the head applied at the scored places alone."""
        decoder, head = self.model.get_decoder(), self.model.get_output_embeddings()
        hidden_BTD = decoder(self._tensor(batch.tokens), use_cache=False, **self._sharing(batch)).last_hidden_state
        hidden_PD = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])[self._tensor(batch.places)]
        which, targets = self._tensor(batch.which), self._tensor(batch.targets)
        values = torch.empty(len(batch.targets), dtype=torch.float32, device=self.device)
        chunk = max(1, _LOGITS_CHUNK // self.vocab_size)
        for start in range(0, len(batch.places), chunk):
            logits_PV = head(hidden_PD[start : start + chunk]).float()
            wanted = (which >= start) & (which < start + chunk)
            values[wanted] = _log_probabilities(logits_PV, which[wanted] - start, targets[wanted])
        return values.cpu().numpy()

    def _whole(self, batch: Batch) -> npt.NDArray[np.float32]:
        """The same for any causal model: its own logits of every place."""
        logits_BTV = self.model(self._tensor(batch.tokens), use_cache=False, **self._sharing(batch)).logits
        logits_PV = logits_BTV.reshape(-1, logits_BTV.shape[-1])[self._tensor(batch.places)].float()
        values = _log_probabilities(logits_PV, self._tensor(batch.which), self._tensor(batch.targets))
        return values.cpu().numpy()

    def _sharing(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Mask and positions of rows with several requests; nothing for other rows."""
        if batch.segments is None:
            return {}
        return {
            "attention_mask": self._mask(self._tensor(batch.segments)),
            "position_ids": self._tensor(batch.positions),
        }

    def _mask(self, segments_BT: torch.Tensor) -> torch.Tensor:
        """Additive mask (B, 1, T, T): a token sees what came before it in the context and in its own continuation."""
        length = segments_BT.shape[1]
        earlier = torch.ones(length, length, dtype=torch.bool, device=self.device).tril()
        own = segments_BT[:, :, None] == segments_BT[:, None, :]
        context = segments_BT[:, None, :] == 0
        seen = (earlier & (own | context))[:, None]
        dtype = self.model.dtype
        zero = torch.zeros((), dtype=dtype, device=self.device)
        return torch.where(seen, zero, torch.full_like(zero, torch.finfo(dtype).min))


def _log_probabilities(logits_PV: torch.Tensor, which: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """logit − logsumexp at (which, target); float32 in and out."""
    return logits_PV[which, targets] - torch.logsumexp(logits_PV, dim=-1)[which]


def probed_scorer(
    model: Any,
    *,
    device: torch.device,
    batch_tokens: int,
    shared_length: int | None,
    max_length_tokens: int,
    border: int | None = None,
) -> Scorer:
    """A scorer with those shortcuts that were seen to give this model's own numbers.

    The output matrix is applied apart from the model where that gives the very bits of the model's logits: soft caps
    and scales do not. Contexts are shared where a few tokens score together as they do alone; else a warning says that
    they are not.

    Raises:
        DataError: when the model cannot score a text at all.
    """
    limits = [length for length in (shared_length, border) if length is not None]
    scorer = Scorer(
        model=model,
        device=device,
        vocab_size=model.get_input_embeddings().weight.shape[0],
        batch_tokens=batch_tokens,
        plain_head=False,
        shared_length=0,
        border=border,
    )
    draw = np.random.default_rng(0).integers(0, scorer.vocab_size, size=_PROBE_CONTEXT + sum(_PROBE_ENDS)).tolist()
    tokens = torch.tensor([draw[:max_length_tokens]], device=device)
    with torch.inference_mode():
        try:
            logits = model(tokens, use_cache=False).logits
        except Exception as error:  # whatever a model's own code raises
            problem = f"the model fails on a short text ({first_line(error)}); expected log-probabilities"
            raise DataError(problem, hint="check config.json against the weights") from error
        scorer = replace(scorer, plain_head=_head_is_plain(model, tokens, logits))
    context_length = min([_PROBE_CONTEXT, *(limit - sum(_PROBE_ENDS) for limit in (*limits, max_length_tokens))])
    if context_length < 1:
        return scorer
    sharing = replace(scorer, shared_length=min(limits, default=None))
    rest = iter(draw[context_length:])
    ends = [Request(context=tuple(draw[:context_length]), continuation=tuple(islice(rest, n))) for n in _PROBE_ENDS]
    try:
        alone, together = scorer.score(ends), sharing.score(ends)
    except NonFiniteError:
        return sharing  # the first text to score fails too, and its error names it
    except _CANNOT as error:
        log.warning("contexts are not shared: the model does not accept a mask (%s)", type(error).__name__)
        return scorer
    difference = float(np.max(np.abs(together - alone) / (1 + np.abs(alone))))
    if difference > _PROBE_TOLERANCE[model.dtype]:
        log.warning("contexts are not shared: a probe scored %.2g apart from its score alone", difference)
        return scorer
    return sharing


def _head_is_plain(model: Any, tokens: torch.Tensor, logits: torch.Tensor) -> bool:
    try:
        hidden = model.get_decoder()(tokens, use_cache=False).last_hidden_state
        own = model.get_output_embeddings()(hidden)
    except _CANNOT:  # no decoder or head by these names, or one that needs more
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

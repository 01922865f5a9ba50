"""ln p(continuation | context) of many requests: plan → batches → the model. With `generate.py`, what runs the model.

There are two ways to compute the tokens that requests share once, and a plan may need both:

- *packed*: a trunk's keys and values are cached once. Each forward pass has a row of branches after them; through a
  mask a token sees the trunk and its own ancestors, at the positions that it would have in a row of its own.
- *copied*: a trunk's cache is copied for a batch of rests, padded on the right. It needs no mask, so it works for
  ALiBi, recurrent states, and windows shorter than the text.

Shapes: B rows, T tokens, C cached tokens, P scored positions, D width, V vocabulary. Log-softmax is float32, only at
scored positions.
"""

import copy
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from catwalk.formats.contract import WorkError, first_line
from catwalk.model.plan import Batch, Limits, Row, plan, visible
from catwalk.types import Request

__all__ = ["NonFiniteError", "Scorer", "Scores", "collect", "non_finite_cause", "probed_scorer"]

log = logging.getLogger(__name__)

Integers = npt.NDArray[np.int64]

_BRANCH_TOKENS = {"cpu": 512}  # of a row below a trunk
_BRANCH_TOKENS_DEVICE = 2048
_LOGITS_CHUNK = 1 << 22  # float32 logits that the head computes at once: 16 MiB, measured fastest on a CPU
_LOGITS_ALL = 1 << 28  # the same for a model that only returns logits of every position: 1 GiB


class NonFiniteError(ValueError):
    """A log-probability that is not finite: `request` is the index of its request."""

    def __init__(self, request: int, value: float) -> None:
        super().__init__(f"request {request}: the log-probability is {value}")
        self.request, self.value = request, value


@dataclass(frozen=True, kw_only=True)
class Scores:
    """By request: Σ ln p in nats (float64), and whether each token is the most likely one.

    By scored token, in the order of the computation: its request, its id and its ln p.
    """

    sum_logprobs: npt.NDArray[np.float64]
    greedy: npt.NDArray[np.bool_]
    token_requests: Integers
    token_ids: Integers
    token_logprobs: npt.NDArray[np.float32]


def collect(
    count: int,
    batches: Sequence[Batch],
    computed: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]],
) -> Scores:
    """The scores of `count` requests from what was computed of their batches.

    Raises:
        NonFiniteError: naming the first request with NaN or infinity.
    """
    rows = [row for batch in batches for row in batch.rows]
    if not rows:
        nothing = np.zeros(0, dtype=np.int64)
        owner, ids, values, best = nothing, nothing, np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.bool_)
    else:
        owner = np.concatenate([row.requests for row in rows])
        ids = np.concatenate([row.targets for row in rows])
        values = np.concatenate([one for one, _ in computed])
        best = np.concatenate([one for _, one in computed])
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        first = wrong[np.argmin(owner[wrong])]
        raise NonFiniteError(int(owner[first]), float(values[first]))
    sums = np.zeros(count, dtype=np.float64)
    np.add.at(sums, owner, values.astype(np.float64))
    misses = np.zeros(count, dtype=np.int64)
    np.add.at(misses, owner, ~best)
    return Scores(sum_logprobs=sums, greedy=misses == 0, token_requests=owner, token_ids=ids, token_logprobs=values)


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A model in evaluation mode on one device.

    `plain_head`: the model's logits are its output matrix times the last hidden state, nothing more. `steps`: after a
    copied cache, tokens are given one by one, since recurrent layers may forget their state for several at once.
    """

    model: Any
    device: torch.device
    vocab_size: int
    limits: Limits
    plain_head: bool
    steps: bool = False

    def plan(self, requests: Sequence[Request]) -> list[Batch]:
        """The batches of `score`."""
        limits = self.limits
        if not self.plain_head:
            most = max(1, _LOGITS_ALL // self.vocab_size)
            limits = replace(limits, batch_tokens=min(most, limits.batch_tokens))
        return plan(requests, limits)

    def score(self, requests: Sequence[Request], advance: Callable[[int, int], None] | None = None) -> Scores:
        """Scores in the order of `requests`. Token log-probabilities are float32, their sums float64.

        `advance` is called with the requests finished and the tokens computed by each forward pass.

        Raises:
            NonFiniteError: naming the first request with NaN or infinity.
        """
        batches = self.plan(requests)
        return collect(len(requests), batches, self.compute(batches, advance))

    def compute(
        self, batches: Sequence[Batch], advance: Callable[[int, int], None] | None = None
    ) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]:
        """For each batch and target: ln p, and whether the target is the most likely token."""
        trunks = {copied: _Trunk(self, copied) for copied in (False, True)}
        found: list[tuple[torch.Tensor, torch.Tensor]] = []
        with torch.inference_mode():
            for batch in batches:
                trunk = trunks[batch.copied]
                found.append(self._run(batch, trunk))
                if advance is not None:
                    done = sum(len(np.unique(row.requests)) for row in batch.rows)
                    advance(done, batch.size_tokens + trunk.computed)
            if not found:
                return []
            # one copy from the device for all
            values, best = (torch.cat(part).cpu().numpy() for part in zip(*found, strict=True))
        ends = np.cumsum([len(one) for one, _ in found])[:-1]
        return list(zip(np.split(values, ends), np.split(best, ends), strict=True))

    @property
    def cache_name(self) -> str:
        """The argument and the output that is the cache."""
        names = inspect.signature(self.model.forward).parameters
        return "cache_params" if "cache_params" in names else "past_key_values"

    def next_logits(
        self, tokens_BT: torch.Tensor, mask_BC: torch.Tensor, positions_BT: torch.Tensor, past: Any
    ) -> tuple[torch.Tensor, Any]:
        """Logits (B, V) after the last token, float32, and the cache of all tokens; `mask_BC` is 0 at padding."""
        inputs = {"attention_mask": mask_BC, "position_ids": positions_BT, "use_cache": True, self.cache_name: past}
        if self.plain_head:
            output = self.model.get_decoder()(tokens_BT, **inputs)
            logits_BV = self.model.get_output_embeddings()(output.last_hidden_state[:, -1])
        else:
            output = self.model(tokens_BT, **inputs)
            logits_BV = output.logits[:, -1]
        return logits_BV.float(), getattr(output, self.cache_name)

    # ---- one forward pass

    def _run(self, batch: Batch, trunk: "_Trunk") -> tuple[torch.Tensor, torch.Tensor]:
        """ln p of each target of the batch's rows (float32), and whether it is the most likely token; on the device."""
        longest = max(len(row.tokens) for row in batch.rows)
        tokens = np.zeros((len(batch.rows), longest), dtype=np.int64)
        for number, row in enumerate(batch.rows):
            tokens[number, : len(row.tokens)] = row.tokens
        flat = np.concatenate([row.scored + number * longest for number, row in enumerate(batch.rows)])
        targets = np.concatenate([row.targets for row in batch.rows])
        past = trunk.advance_to(batch.trunk, len(batch.rows)) if batch.trunk else None
        inputs: dict[str, Any] = {"use_cache": past is not None}
        if past is not None:
            inputs[self.cache_name] = past
        inputs |= self._mask(batch.rows, longest, len(batch.trunk))
        result = self._score_positions(self._tensor(tokens), inputs, flat, targets)
        if past is not None:
            trunk.take_back(longest)
        return result

    def _score_positions(
        self, tokens_BT: torch.Tensor, inputs: dict[str, Any], flat: Integers, targets: Integers
    ) -> tuple[torch.Tensor, torch.Tensor]:
        positions, index = np.unique(flat, return_inverse=True)
        scored_P, targets_N = self._tensor(positions), self._tensor(targets)
        size = 1 if self.steps and inputs.get(self.cache_name) is not None else tokens_BT.shape[1]
        run = self.model.get_decoder() if self.plain_head else self.model
        head = self.model.get_output_embeddings() if self.plain_head else torch.nn.Identity()
        outputs = [run(part, **inputs) for part in torch.split(tokens_BT, size, dim=1)]
        found = [one.last_hidden_state if self.plain_head else one.logits for one in outputs]
        found_BTX = found[0] if len(found) == 1 else torch.cat(found, dim=1)
        kept_PX = found_BTX.reshape(-1, found_BTX.shape[-1])[scored_P]
        values = torch.empty(len(targets), dtype=torch.float32, device=self.device)
        best = torch.empty(len(targets), dtype=torch.bool, device=self.device)
        chunk = max(1, _LOGITS_CHUNK // self.vocab_size)
        for start in range(0, len(positions), chunk):
            logits_PV = head(kept_PX[start : start + chunk]).float()
            here = np.flatnonzero((index >= start) & (index < start + chunk))
            part, place = self._tensor(here), self._tensor(index[here] - start)
            target = targets_N[part]
            values[part] = logits_PV[place, target] - torch.logsumexp(logits_PV, dim=-1)[place]
            best[part] = logits_PV.argmax(dim=-1)[place] == target
        return values, best

    def _tensor(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _mask(self, rows: Sequence[Row], size: int, cached: int) -> dict[str, torch.Tensor]:
        """Positions and an additive mask (B, 1, T, C + T) for rows with branches, nothing for other rows."""
        if all(row.parents is None for row in rows):
            return {}
        positions = np.zeros((len(rows), size), dtype=np.int64)
        seen = np.ones((len(rows), 1, size, cached + size), dtype=np.bool_)
        for number, row in enumerate(rows):
            positions[number, : len(row.tokens)] = row.position_ids
            seen[number, 0, :, cached:] = visible(row, size)
        zero = torch.zeros((), dtype=self.model.dtype, device=self.device)
        mask = torch.where(self._tensor(seen), zero, torch.full_like(zero, torch.finfo(self.model.dtype).min))
        return {"attention_mask": mask, "position_ids": self._tensor(positions)}


class _Trunk:
    """The cache of the last trunk: its own tokens, and nothing of the rows after it.

    If it is not copied for each batch, it has every position, so it can be cut back to a shared prefix. Otherwise it is
    what the model makes, which perhaps cannot be cut.
    """

    def __init__(self, scorer: Scorer, is_copied: bool) -> None:
        self._scorer, self._is_copied = scorer, is_copied
        self._tokens: tuple[int, ...] = ()
        self._past: Any = None
        self.computed = 0
        """Tokens computed for the last batch's trunk."""

    def advance_to(self, trunk: tuple[int, ...], rows: int) -> Any:
        """A cache that contains exactly `trunk`, for so many rows."""
        self.computed = 0
        if trunk != self._tokens:
            kept = 0
            if not self._is_copied:
                while kept < min(len(trunk), len(self._tokens)) and trunk[kept] == self._tokens[kept]:
                    kept += 1
            if kept:
                self._past.crop(kept - len(self._tokens))
            else:
                self._past = None if self._is_copied else DynamicCache()
            if kept < len(trunk):
                self._extend(trunk[kept:])
            self._tokens = trunk
            self.computed = len(trunk) - kept
        if not self._is_copied:
            return self._past
        past = copy.deepcopy(self._past)
        if rows > 1:
            # selects the only row so many times; caches of recurrent states have no batch_repeat_interleave
            past.reorder_cache(torch.zeros(rows, dtype=torch.long, device=self._scorer.device))
        return past

    def _extend(self, tokens: Sequence[int]) -> None:
        scorer = self._scorer
        tokens_BT = torch.tensor([list(tokens)], device=scorer.device)
        inputs = {"use_cache": True, scorer.cache_name: self._past}
        run = scorer.model.get_decoder() if scorer.plain_head else scorer.model
        self._past = getattr(run(tokens_BT, **inputs), scorer.cache_name)

    def take_back(self, tokens: int) -> None:
        """Forget the row that a forward pass added."""
        if not self._is_copied:
            self._past.crop(-tokens)


# ---- probe: which shortcuts this model allows

# what a model's own code raises for a call that it does not support
_UNSUPPORTED = (AttributeError, TypeError, ValueError, RuntimeError, LookupError, AssertionError)
_PROBE_CONTEXT, _PROBE_ENDS = 24, (6, 4, 1)
# Relative to 1 + |sum|. Measured on small models of 13 families: sharing moves a sum by at most 3e-7, 8e-4 and 1e-2, a
# wrong mask by 1e-4 to 0.5, a forgotten recurrent state by 3e-5. In half precision a small error passes, so the
# configuration is checked first.
_PROBE_TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 3e-2}


def probed_scorer(
    model: Any,
    *,
    device: torch.device,
    batch_tokens: int,
    packed_length: int | None,
    max_length_tokens: int,
    rotary_switch: int | None = None,
    share: bool = True,
) -> Scorer:
    """A scorer with the shortcuts that reproduce this model's own numbers on a short text.

    The output matrix is applied outside the model if that reproduces the model's logits bit by bit, which soft caps and
    scales prevent. Each way to share tokens is used if it scores a few requests as they are scored separately.
    `packed_length` is what the configuration allows under a mask: None any row, 0 none.

    Raises:
        WorkError: the model cannot score any text.
    """
    vocab_size = model.get_input_embeddings().weight.shape[0]
    draw = np.random.default_rng(0).integers(0, vocab_size, size=_PROBE_CONTEXT + sum(_PROBE_ENDS)).tolist()
    tokens = torch.tensor([draw[:max_length_tokens]], device=device)
    with torch.inference_mode():
        try:
            logits = model(tokens, use_cache=False).logits
        except Exception as error:  # whatever a model's own code raises
            problem = f"the model fails on a short text ({first_line(error)}); expected log-probabilities"
            raise WorkError(problem, hint="check config.json against the weights") from error
        plain_head = _head_is_plain(model, tokens, logits)
    separate = Limits(
        batch_tokens=batch_tokens,
        branch_tokens=min(_BRANCH_TOKENS.get(device.type, _BRANCH_TOKENS_DEVICE), batch_tokens),
        packed_length=0,
        rotary_switch=rotary_switch,
    )
    scorer = Scorer(model=model, device=device, vocab_size=vocab_size, limits=separate, plain_head=plain_head)
    if not share:
        return scorer
    chosen = separate
    longest = min((one for one in (packed_length, rotary_switch) if one is not None), default=None)
    # a trunk is rotated before the length of its rows is known
    packed = replace(separate, packed_length=longest, trunks=rotary_switch is None)
    if longest != 0 and _works(scorer, packed, draw, min(max_length_tokens, longest or max_length_tokens), "a mask"):
        chosen = replace(chosen, packed_length=longest, trunks=packed.trunks)
    needs_copies = chosen.packed_length is not None and rotary_switch is None
    for one in (scorer, replace(scorer, steps=True)) if needs_copies else ():
        if _works(one, replace(separate, copies=True), draw, max_length_tokens, "the cache of a prefix"):
            scorer, chosen = one, replace(chosen, copies=True)
            break
    if chosen == separate:
        log.warning("contexts are not shared: this model accepts neither a mask nor the cache of a prefix")
    return replace(scorer, limits=chosen)


def _works(scorer: Scorer, limits: Limits, draw: list[int], longest: int, name: str) -> bool:
    """Whether requests of at most `longest` tokens score the same together as separately, with a trunk and without."""
    context_length = min(_PROBE_CONTEXT, longest - sum(_PROBE_ENDS))
    if context_length < 2:
        return False
    rest = iter(draw[context_length:])
    ends = [Request(context=tuple(draw[:context_length]), continuation=tuple(islice(rest, n))) for n in _PROBE_ENDS]
    try:
        expected = scorer.score(ends).sum_logprobs
        for trunk_tokens in (1, 10**6) if limits.trunks else (10**6,):
            row_tokens = 1 if trunk_tokens == 1 else 10**6
            together = replace(scorer, limits=replace(limits, trunk_tokens=trunk_tokens, row_tokens=row_tokens))
            found = together.score(ends).sum_logprobs
            difference = float(np.max(np.abs(found - expected) / (1 + np.abs(expected))))
            if difference > _PROBE_TOLERANCE[scorer.model.dtype]:
                log.info("in a probe, %s changed a score by %.2g", name, difference)
                return False
    except NonFiniteError:
        return True  # the first text to score fails too, and its error names it
    except _UNSUPPORTED as error:
        log.info("this model does not accept %s (%s)", name, type(error).__name__)
        return False
    return True


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

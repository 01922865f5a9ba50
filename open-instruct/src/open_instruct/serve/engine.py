"""Generation for many requests at once: one thread, one batch, one key-value cache.

A prompt is read without padding, so its log-probabilities are those of a plain forward pass. Then its row joins the
batch, whose rows are padded on the left; the mask and the positions keep them apart. A row leaves when it is done, so a
short answer never waits for a long one. Each row has its own random numbers, so its answer does not depend on the rest.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

from ..formats.contract import first_line
from .waiting import FairQueue

__all__ = ["Engine", "Event", "Failed", "Finished", "Job", "Prompted", "Token"]

log = logging.getLogger(__name__)
_IMPOSSIBLE = -9999.0  # JSON has no infinity
_SCORED_AT_ONCE = 256  # positions of a prompt whose log-probabilities are in memory at a time
# Layers whose keys only depend on the distance between tokens, so that padding on the left changes nothing
_SHIFTABLE = {"full_attention", "sliding_attention"}


@dataclass(frozen=True)
class Token:
    """A token with its log-probability, and the most likely tokens with theirs, if they were asked for."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Prompted:
    """The prompt's tokens with their log-probabilities; the first has none."""

    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Finished:
    """The last event of a job: `stop` (the model ended its turn) or `length`."""

    reason: str


@dataclass(frozen=True)
class Failed:
    """The last event of a job that got no answer. `busy`: it may succeed later."""

    message: str
    busy: bool = False


Event = Token | Prompted | Finished | Failed


@dataclass(kw_only=True)
class Job:
    """One sequence to generate. `notify` receives its events, in the engine's thread."""

    prompt: Sequence[int]
    max_tokens: int
    notify: Callable[[Event], None]
    stops: frozenset[int] = frozenset()
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    top_logprobs: int | None = None
    """How many of the most likely tokens to report; None: no log-probabilities at all."""
    score_prompt: bool = False
    deadline: float = float("inf")
    """When to give up, by `time.monotonic`."""
    cancelled: bool = False
    """Set by any thread: nobody waits for the answer any more."""


@dataclass
class _Row:
    job: Job
    ids: list[int]
    generator: Any
    generated: int = 0


@dataclass
class _Batch:
    """Rows that generate together. `mask` and the cache are padded on the left; both are None while it is empty."""

    rows: list[_Row] = field(default_factory=list)
    mask: Any = None
    cache: Any = None

    def add(self, row: _Row, cache: Any) -> None:
        import torch
        from torch.nn.functional import pad

        length = len(row.ids) - 1  # the newest token is not in the cache yet
        mask = torch.ones(1, length, dtype=torch.long, device=cache.layers[0].keys.device)
        self.rows.append(row)
        if self.cache is None:
            self.mask, self.cache = mask, cache
            return
        longest = max(length, self.mask.shape[1])
        self.mask = torch.cat([pad(one, (longest - one.shape[1], 0)) for one in (self.mask, mask)])
        for ours, its in zip(self.cache.layers, cache.layers, strict=True):
            if ours.is_initialized:
                for name in ("keys", "values"):
                    both = getattr(ours, name), getattr(its, name)
                    setattr(ours, name, torch.cat([pad(one, (0, 0, longest - one.shape[-2], 0)) for one in both]))

    def keep(self, indices: list[int]) -> None:
        if len(indices) == len(self.rows):
            return
        self.rows = [self.rows[index] for index in indices]
        if self.cache is None:
            return
        if not indices:
            self.mask = self.cache = None
            return
        self.mask = self.mask[indices]
        start = int(self.mask.argmax(dim=1).min())  # columns that only pad
        self.mask = self.mask[:, start:]
        for layer in self.cache.layers:
            if layer.is_initialized:
                layer.keys, layer.values = layer.keys[indices, :, start:], layer.values[indices, :, start:]


class Engine:
    """Owns the model. `submit` from any thread; `close` ends the thread."""

    def __init__(self, model: Any, device: str, vocabulary: int, *, batch: int, waiting: int) -> None:
        """`vocabulary` is the number of tokens; ids above it are padding rows, which are never generated."""
        self._model, self._device, self._vocabulary, self._places = model, device, vocabulary, batch
        accepted = signature(model.forward).parameters
        self._takes_positions, self._takes_keep = "position_ids" in accepted, "logits_to_keep" in accepted
        kinds = set(getattr(model.config, "layer_types", None) or ())
        self._cached = kinds <= _SHIFTABLE and not getattr(model, "_is_stateful", False)
        self._queue: FairQueue[Job] = FairQueue(waiting)
        self._changed = threading.Condition()
        self._batch = _Batch()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still answers."""
        return self._thread.is_alive() and not self._closing

    @property
    def load(self) -> tuple[int, int]:
        """Return how many sequences are generated now, and how many wait."""
        return len(self._batch.rows), len(self._queue)

    def submit(self, client: str, jobs: list[Job]) -> None:
        """Queue the jobs of one request, all or none. Raises QueueFull; RuntimeError if the engine has ended."""
        with self._changed:
            if not self.alive:
                raise RuntimeError("the engine has ended")
            self._queue.put(client, jobs)
            self._changed.notify()

    def close(self) -> None:
        """Fail what is left, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    # ---- the engine's thread

    def _run(self) -> None:
        import torch

        try:
            with torch.inference_mode():
                while True:
                    with self._changed:
                        while not self._closing and not len(self._queue) and not self._batch.rows:
                            self._changed.wait()
                        if self._closing:
                            return
                    self._admit()
                    self._drop_unwanted()
                    if self._batch.rows:
                        self._step()
        finally:
            with self._changed:
                self._closing = True
            for job in [*(row.job for row in self._batch.rows), *self._waiting()]:
                job.notify(Failed("the server is shutting down", busy=True))

    def _waiting(self) -> Iterator[Job]:
        with self._changed:
            while len(self._queue):
                yield self._queue.take()

    def _admit(self) -> None:
        """Read the prompts of as many waiting jobs as have a place."""
        while len(self._batch.rows) < self._places:
            with self._changed:
                if not len(self._queue) or self._closing:
                    return
                job = self._queue.take()
            if job.cancelled or _expired(job):
                continue
            try:
                self._begin(job)
            except (RuntimeError, IndexError, ValueError) as error:  # torch's errors, out of memory among them
                log.error("serve  a prompt of %d tokens failed: %s", len(job.prompt), first_line(error))
                job.notify(Failed(f"the model failed on this prompt ({first_line(error)})"))

    def _begin(self, job: Job) -> None:
        import torch

        generator = torch.Generator(self._device)
        generator.manual_seed(job.seed) if job.seed is not None else generator.seed()
        row = _Row(job, list(job.prompt), generator)
        logits, cache = self._forward([row.ids], keep_all=job.score_prompt)
        if job.score_prompt:
            job.notify(Prompted(tuple(_score(logits[0], row.ids, job.top_logprobs or 0))))
        if job.max_tokens == 0:
            job.notify(Finished("length"))
        elif self._say(row, logits[:, -1]):
            if self._cached:
                self._batch.add(row, cache)
            else:
                self._batch.rows.append(row)

    def _drop_unwanted(self) -> None:
        rows = self._batch.rows
        self._batch.keep([i for i, row in enumerate(rows) if not row.job.cancelled and not _expired(row.job)])

    def _step(self) -> None:
        """Generate one token of each row."""
        import torch

        batch = self._batch
        try:
            if self._cached:
                batch.mask = torch.nn.functional.pad(batch.mask, (0, 1), value=1)
                logits, _ = self._forward([row.ids[-1:] for row in batch.rows], batch.mask, batch.cache)
                last = logits[:, -1]
            else:
                last = torch.cat([self._forward([row.ids])[0][:, -1] for row in batch.rows])
        except (RuntimeError, IndexError, ValueError) as error:
            log.error("serve  a batch of %d failed: %s", len(batch.rows), first_line(error))
            for row in batch.rows:
                row.job.notify(Failed(f"the model failed ({first_line(error)})"))
            batch.keep([])
            return
        batch.keep([i for i, row in enumerate(batch.rows) if self._say(row, last[i : i + 1])])

    def _forward(
        self, ids: list[list[int]], mask: Any = None, cache: Any = None, *, keep_all: bool = False
    ) -> tuple[Any, Any]:
        """Return the logits, of the last position if possible, and the cache."""
        import torch
        from transformers import DynamicCache

        tokens = torch.tensor(ids, device=self._device)
        if mask is None:
            mask = torch.ones_like(tokens)
        if cache is None and self._cached:
            # without the configuration: every layer keeps all keys, and the mask narrows those with a window
            cache = DynamicCache()
        arguments: dict[str, Any] = {"use_cache": self._cached}
        if self._cached:
            arguments["past_key_values"] = cache
        if self._takes_positions:
            arguments["position_ids"] = (mask.cumsum(dim=1) - 1)[:, -tokens.shape[1] :]
        if self._takes_keep and not keep_all:
            arguments["logits_to_keep"] = 1
        return self._model(input_ids=tokens, attention_mask=mask, **arguments).logits, cache

    def _say(self, row: _Row, logits: Any) -> bool:
        """Choose and report the next token of a row from its (1, vocabulary) logits; return whether it continues."""
        job = row.job
        logits = logits[0].float()
        id = _choose(logits[: self._vocabulary], job, row.generator)
        row.ids.append(id)
        row.generated += 1
        token = Token(id) if job.top_logprobs is None else next(_tokens(logits[None], [id], job.top_logprobs))
        job.notify(token)
        if id in job.stops:
            job.notify(Finished("stop"))
        elif row.generated == job.max_tokens:
            job.notify(Finished("length"))
        else:
            return True
        return False


def _expired(job: Job) -> bool:
    late = time.monotonic() > job.deadline
    if late:
        job.notify(Failed("the answer took longer than the server's time limit", busy=True))
    return late


def _choose(logits: Any, job: Job, generator: Any) -> int:
    import torch

    if job.temperature == 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / job.temperature, dim=0)
    if job.top_p < 1:
        ordered, ids = probabilities.sort(descending=True)
        ordered[ordered.cumsum(0) - ordered >= job.top_p] = 0
        return int(ids[torch.multinomial(ordered, 1, generator=generator)])
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _score(logits: Any, ids: list[int], top: int) -> Iterator[Token]:
    """The tokens of a prompt, each with its log-probability after those before it."""
    yield Token(ids[0])
    for start in range(0, len(ids) - 1, _SCORED_AT_ONCE):
        following = ids[start + 1 : start + 1 + _SCORED_AT_ONCE]
        yield from _tokens(logits[start : start + len(following)].float(), following, top)


def _tokens(logits: Any, ids: list[int], top: int) -> Iterator[Token]:
    import torch

    logprobs = torch.log_softmax(logits, dim=-1).clamp(min=_IMPOSSIBLE)
    own = logprobs.gather(1, torch.tensor(ids, device=logits.device)[:, None])[:, 0].tolist()
    best = logprobs.topk(min(top, logits.shape[-1]), dim=-1)
    for id, logprob, *likely in zip(ids, own, best.indices.tolist(), best.values.tolist(), strict=True):
        yield Token(id, logprob, tuple(zip(*likely, strict=True)))

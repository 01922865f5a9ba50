"""A checkpoint in Hugging Face layout, run by transformers on this machine.

The tokenizer and the configuration are read at once; the weights are loaded for the first text to score, so that a run
that only resumes may not need them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

from catwalk import DISTRIBUTION, __version__
from catwalk.backends.specs import DEFAULT_LENGTH
from catwalk.formats.checkpoint import Checkpoint, Inspection, inspect_checkpoint, read_checkpoint
from catwalk.formats.contract import ConfigError
from catwalk.model.load import Tokenizer, adapter_sha256, load_model, load_tokenizer, resolve_device
from catwalk.model.parallel import SharedScorer, local_rank, world_size
from catwalk.model.scorer import NonFiniteError, Scorer, non_finite_cause, probed_scorer
from catwalk.perplexity import Windowing, windows
from catwalk.requests import encode_pairs
from catwalk.results import checkpoint_inputs, checkpoint_sha256, describe_model
from catwalk.token_losses import type_losses
from catwalk.types import Advance, Boundary, Likelihood, Pair, PairError, Prompt, Request

__all__ = ["HuggingFace", "open_checkpoint"]

_BATCH_TOKENS = {"cpu": 1024}  # more only leaves the caches: measured 1.4 times slower at 4096
_BATCH_TOKENS_DEVICE = 32768


@dataclass(kw_only=True)
class HuggingFace:
    """A checkpoint whose scores follow from the fields."""

    checkpoint: Checkpoint
    inspection: Inspection
    tokenizer: Tokenizer
    device: torch.device
    dtype: str
    batch_tokens: int
    max_length_tokens: int
    prefix: str
    windowing: Windowing
    share_context: bool
    boundary: Boundary = "whole"
    adapter: Path | None = None
    """A directory of peft; its weights are merged into the checkpoint's."""
    token_losses: bool = False
    """Whether `documents` also sums by token id."""
    advance: Advance | None = None
    unknown_tokens: int = field(default=0, init=False)
    """Pieces of documents that the tokenizer has no token for."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers depend on, besides the checkpoint and the software."""
        names = ("batch_tokens", "dtype", "max_length_tokens", "prefix", "share_context", "windowing")
        found = {name: getattr(self, name) for name in names} | {"device": self.device.type}
        found |= {} if self.boundary == "whole" else {"boundary": self.boundary}
        return found | ({"token_losses": True} if self.token_losses else {})

    @property
    def identity(self) -> dict[str, Any]:
        """Hashes of the files, the settings and the versions of the software."""
        software = {DISTRIBUTION: __version__, "torch": torch.__version__, "transformers": transformers.__version__}
        software["tokenizers"] = tokenizers.__version__
        found = {"checkpoint": checkpoint_sha256(self.checkpoint), "software": software, **self.settings}
        return found if self.adapter is None else found | {"adapter": adapter_sha256(self.adapter)}

    @property
    def parameters(self) -> int:
        """Of the stored weights."""
        return self.checkpoint.parameters

    @property
    def tokenizer_directory(self) -> Path:
        """The checkpoint's."""
        return self.checkpoint.directory

    @property
    def document_prefix(self) -> str | None:
        """The checkpoint's own kind of token before a document."""
        return self.tokenizer.document_prefix

    def describe(self, name: str) -> dict[str, Any]:
        """`model` of results.json."""
        return describe_model(name, self.checkpoint, self.inspection)

    def inputs(self, output: Path) -> list[dict[str, Any]]:
        """The checkpoint by its manifest, or file by file."""
        return checkpoint_inputs(self.checkpoint, output)

    @cached_property
    def _shared(self) -> SharedScorer:
        """The model, loaded and probed in every process."""
        loader = _Loader(
            directory=self.checkpoint.directory,
            dtype=self.dtype,
            device=str(self.device),
            batch_tokens=self.batch_tokens,
            max_length_tokens=self.max_length_tokens,
            share_context=self.share_context,
            adapter=self.adapter,
        )
        return SharedScorer(loader)

    @property
    def scorer(self) -> Scorer:
        """The model, loaded and probed."""
        return self._shared.scorer

    def score(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        """Each continuation after its context.

        Raises:
            PairError: for a continuation without tokens, or a log-probability that is not finite.
        """
        prefix_id = self.tokenizer.prefix_id(self.prefix)
        encoded = encode_pairs(pairs, self.tokenizer, prefix_id, self.max_length_tokens, self.boundary)
        try:
            scores = self._shared.score(encoded.requests, self.advance)
        except NonFiniteError as error:
            problem = f"the model's log-probability is {error.value}; expected a finite number"
            raise PairError(problem, encoded.pair_of(error.request), non_finite_cause(self.scorer.model)) from error
        found = []
        columns = (encoded.parts, encoded.truncated, encoded.crossing, encoded.bos)
        for parts, truncated, crossing, bos in zip(*columns, strict=True):
            found.append(
                Likelihood(
                    sum_logprob=float(sum(scores.sum_logprobs[part] for part in parts)),
                    tokens=sum(len(encoded.requests[part].continuation) for part in parts),
                    greedy=all(bool(scores.greedy[part]) for part in parts),
                    truncated=truncated,
                    crossing=crossing,
                    bos=bos,
                    windows=len(parts),
                )
            )
        return found

    def check(self, pairs: Sequence[Pair]) -> None:
        """Find what cannot be scored before the weights are loaded.

        Raises:
            PairError: for a continuation without tokens, or a token without an embedding.
        """
        encode_pairs(
            pairs, self.tokenizer, self.tokenizer.prefix_id(self.prefix), self.max_length_tokens, self.boundary
        )

    def documents(self, texts: Sequence[str]) -> list[Likelihood]:
        """Whole documents, each after one prefix token, in windows.

        Raises:
            PairError: for a text without tokens, a token without an embedding, or a log-probability that is not finite.
        """
        prefix_id = self.tokenizer.prefix_id(self.prefix)
        ids = self.tokenizer.encode(texts)
        requests: list[Request] = []
        owners: list[int] = []
        for index, (text, tokens) in enumerate(zip(texts, ids, strict=True)):
            if tokens and max(tokens) >= self.tokenizer.embedding_rows:
                raise PairError(self.tokenizer.beyond(tokens), index, "use the model's own tokenizer")
            if text.strip() and not tokens:
                problem = "the tokenizer produces no tokens; expected at least one"
                raise PairError(problem, index, "remove the document, or use another tokenizer")
            self.unknown_tokens += sum(token == self.tokenizer.unk_token_id for token in tokens)
            pieces = windows(tokens, prefix_id, self.max_length_tokens, self.windowing)
            requests += pieces
            owners += [index] * len(pieces)
        sums, greedy = [0.0] * len(texts), [True] * len(texts)
        types: list[tuple[tuple[int, int, float], ...]] = [()] * len(texts)
        if requests:
            try:
                scores = self._shared.score(requests, self.advance)
            except NonFiniteError as error:
                problem = f"the model's log-probability is {error.value}; expected a finite number"
                raise PairError(problem, owners[error.request], non_finite_cause(self.scorer.model)) from error
            for owner, value, best in zip(owners, scores.sum_logprobs, scores.greedy, strict=True):
                sums[owner] += float(value)
                greedy[owner] &= bool(best)
            if self.token_losses:
                text_of_token = np.array(owners, dtype=np.int64)[scores.token_requests]
                types = type_losses(text_of_token, scores.token_ids, scores.token_logprobs, len(texts))
        counts = Counter(owners)
        return [
            Likelihood(sum_logprob=total, tokens=len(tokens), greedy=best, windows=counts[index], types=found)
            for index, (total, tokens, best, found) in enumerate(zip(sums, ids, greedy, types, strict=True))
        ]

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """What greedy decoding adds to each prompt. A prompt that does not fit the window is cut on the left.

        Raises:
            WorkError: for `max_tokens` beyond the window.
        """
        return self._shared.generate(prompts, self.max_length_tokens, self.advance)


@dataclass(frozen=True, kw_only=True)
class _Loader:
    """Loads a model, in this process or, sent there, in another one."""

    directory: Path
    dtype: str
    device: str
    batch_tokens: int
    max_length_tokens: int
    share_context: bool
    adapter: Path | None

    def __call__(self) -> tuple[Scorer, Tokenizer]:
        device = torch.device(self.device)
        if device.type == "cuda" and world_size() > 1:
            device = torch.device("cuda", local_rank())
        inspection = inspect_checkpoint(self.directory)
        scorer = probed_scorer(
            load_model(read_checkpoint(self.directory, checksums=False), self.dtype, device, self.adapter),
            device=device,
            batch_tokens=self.batch_tokens,
            packed_length=inspection.plain_length,
            max_length_tokens=self.max_length_tokens,
            rotary_switch=inspection.rotary_switch,
            share=self.share_context,
        )
        return scorer, load_tokenizer(inspection)


def open_checkpoint(
    directory: Path,
    *,
    device: str = "auto",
    dtype: str = "float32",
    batch_tokens: int | None = None,
    max_length_tokens: int | None = None,
    prefix: str | None = None,
    windowing: Windowing = "paloma-reference",
    share_context: bool = True,
    boundary: Boundary = "whole",
    token_losses: bool = False,
    adapter: Path | None = None,
) -> HuggingFace:
    """Read a checkpoint without its weights, and resolve the settings.

    Raises:
        ConfigError: for a window longer than the model's positions, or a prefix that the tokenizer lacks.
        FormatError: the directory is not a checkpoint.
    """
    checkpoint = read_checkpoint(directory)
    inspection = inspect_checkpoint(directory)
    tokenizer = load_tokenizer(inspection)
    resolved = resolve_device(device)
    limit = inspection.max_positions
    length = max_length_tokens or limit or DEFAULT_LENGTH
    kind = tokenizer.prefix(prefix)
    if limit is not None and length > limit:
        problem = f"max_length_tokens: {length} is more than the model's {limit} positions"
        raise ConfigError(problem, hint=f"--max-length-tokens {limit}")
    return HuggingFace(
        checkpoint=checkpoint,
        inspection=inspection,
        tokenizer=tokenizer,
        device=resolved,
        dtype=dtype,
        batch_tokens=batch_tokens or _BATCH_TOKENS.get(resolved.type, _BATCH_TOKENS_DEVICE),
        max_length_tokens=length,
        prefix=kind,
        windowing=windowing,
        share_context=share_context,
        boundary=boundary,
        adapter=adapter,
        token_losses=token_losses,
    )

"""A checkpoint in Hugging Face layout, run by transformers on this machine.

The tokenizer and the configuration are read at once; the weights are loaded for the first text to score, so that a run
that only resumes may not need them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import tokenizers
import torch
import transformers

from catwalk import DISTRIBUTION, __version__
from catwalk.backends.specs import Settings
from catwalk.backends.tokens import CheckpointBackend, RequestError, Score, TypeLosses
from catwalk.formats.checkpoint import inspect_checkpoint, read_checkpoint
from catwalk.model.load import Tokenizer, adapter_sha256, load_model, load_tokenizer, resolve_device
from catwalk.model.parallel import SharedScorer, local_rank, world_size
from catwalk.model.scorer import NonFiniteError, Scorer, Scores, non_finite_cause, probed_scorer
from catwalk.results import checkpoint_sha256
from catwalk.token_losses import type_losses
from catwalk.types import Prompt, Request

__all__ = ["HuggingFace"]

_BATCH_TOKENS = {"cpu": 1024}  # more only leaves the caches: measured 1.4 times slower at 4096
_BATCH_TOKENS_DEVICE = 32768


class HuggingFace(CheckpointBackend):
    """A checkpoint in transformers. The model is loaded, in every process, for the first text to score.

    Raises:
        ConfigError: for a window longer than the model's positions, or a prefix that the tokenizer lacks.
        FormatError: the directory is not a checkpoint.
    """

    def __init__(self, directory: Path, adapter: Path | None = None, **settings: Unpack[Settings]) -> None:
        """`adapter` is a directory of peft; its weights are merged into the checkpoint's."""
        super().__init__(directory, settings)
        self.max_length_tokens = self.fitting_length(settings.get("max_length_tokens"))
        self.device = resolve_device(settings.get("device", "auto"))
        most = _BATCH_TOKENS.get(self.device.type, _BATCH_TOKENS_DEVICE)
        self.batch_tokens = settings.get("batch_tokens") or most
        self.share_context = settings.get("share_context", True)
        self.token_losses = settings.get("token_losses", False)
        self.adapter = adapter

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

    def score_requests(self, requests: Sequence[Request]) -> list[Score]:
        """The requests' scores in their order.

        Raises:
            RequestError: for a log-probability that is not finite.
        """
        return self._pairs_of(self._scored(requests)) if requests else []

    def score_windows(
        self, requests: Sequence[Request], owners: Sequence[int], count: int
    ) -> tuple[list[Score], list[TypeLosses]]:
        """The scores of the windows of `count` documents, and with `token_losses` their loss by token id.

        Raises:
            RequestError: for a log-probability that is not finite.
        """
        if not (self.token_losses and requests):
            return super().score_windows(requests, owners, count)
        scores = self._scored(requests)
        text_of_token = np.array(owners, dtype=np.int64)[scores.token_requests]
        return self._pairs_of(scores), type_losses(text_of_token, scores.token_ids, scores.token_logprobs, count)

    def _scored(self, requests: Sequence[Request]) -> Scores:
        try:
            return self._shared.score(requests, self.advance)
        except NonFiniteError as error:
            problem = f"the model's log-probability is {error.value}; expected a finite number"
            raise RequestError(problem, error.request, non_finite_cause(self.scorer.model)) from error

    @staticmethod
    def _pairs_of(scores: Scores) -> list[Score]:
        return list(zip(map(float, scores.sum_logprobs), map(bool, scores.greedy), strict=True))

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

"""ln p(continuation | context) of many requests: the one place that runs the model.

Shapes: B rows, T tokens, P scored places, D width, V vocabulary. Log-softmax is in float32 and only at scored places.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from catwalk.model.rows import Batch, batches, pack_alone, pack_shared
from catwalk.progress import Progress
from catwalk.types import Request

__all__ = ["SHARING_ARCHITECTURES", "Scorer"]

log = logging.getLogger(__name__)

# Models of transformers whose attention takes a four-dimensional mask as it is, whose positions are `position_ids`, and
# whose logits are a plain linear map of the last hidden state. Any other architecture is scored a row a request.
SHARING_ARCHITECTURES = frozenset({"OlmoForCausalLM", "Olmo2ForCausalLM", "LlamaForCausalLM", "Qwen2ForCausalLM"})

_LOGITS_CHUNK = 1 << 22  # float32 logits held at once by the head: 16 MiB, measured fastest on a CPU
_LOGITS_WHOLE = 1 << 28  # the same for a model that only gives logits of every place: 1 GiB


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A model in evaluation mode on one device."""

    model: Any
    architecture: str
    device: torch.device
    vocab_size: int
    batch_tokens: int
    share_context: bool

    def score(
        self, requests: Sequence[Request], progress: Progress | None = None, weight: float = 1.0
    ) -> npt.NDArray[np.float64]:
        """Σ ln p over each continuation's tokens, in nats; the order of `requests`.

        Token log-probabilities are float32, their sums float64. `weight` is what a request counts in `progress`.
        """
        plain_head = self.architecture in SHARING_ARCHITECTURES
        shared = self.share_context and plain_head
        rows = pack_shared(requests) if shared else pack_alone(requests)
        limit = self.batch_tokens if plain_head else min(self.batch_tokens, _LOGITS_WHOLE // self.vocab_size)
        sums = np.zeros(len(requests), dtype=np.float64)
        with torch.inference_mode():
            for batch in batches(rows, limit):
                values = self._places(batch) if plain_head else self._whole(batch)
                np.add.at(sums, batch.requests, values)
                if progress is not None:
                    progress.advance(weight * len(np.unique(batch.requests)), batch.tokens.size)
        return sums

    def _tensor(self, array: npt.NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)

    def _places(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Token log-probabilities by way of the last hidden state, the head applied at the scored places alone."""
        arguments: dict[str, torch.Tensor] = {}
        if batch.segments is not None:
            arguments["attention_mask"] = self._mask(self._tensor(batch.segments))
            arguments["position_ids"] = self._tensor(batch.positions)
        decoder, head = self.model.get_decoder(), self.model.get_output_embeddings()
        hidden_BTD = decoder(self._tensor(batch.tokens), use_cache=False, **arguments).last_hidden_state
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
        logits_BTV = self.model(self._tensor(batch.tokens), use_cache=False).logits
        logits_PV = logits_BTV.reshape(-1, logits_BTV.shape[-1])[self._tensor(batch.places)].float()
        values = _log_probabilities(logits_PV, self._tensor(batch.which), self._tensor(batch.targets))
        return values.cpu().numpy()

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

"""Log-probabilities by brute force: one text at a time through transformers, every logit, float64 softmax.

It uses none of the package's tokenising, batching or scoring.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

__all__ = ["BruteForce"]


class BruteForce:
    """A model and its tokenizer, loaded the plain way."""

    def __init__(self, directory: Path) -> None:
        transformers.logging.disable_progress_bar()
        self.model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(directory)

    def ids(self, text: str) -> list[int]:
        """Token ids without added tokens."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def token_logprobs(self, ids: Sequence[int]) -> list[float]:
        """ln p(ids[i] | ids[:i]) for i ≥ 1."""
        with torch.no_grad():
            logits = self.model(torch.tensor([list(ids)])).logits[0].double()
        table = torch.log_softmax(logits, dim=-1)
        return [float(table[place - 1, ids[place]]) for place in range(1, len(ids))]

    def is_greedy(self, context: Sequence[int], continuation: Sequence[int]) -> bool:
        """Whether greedy decoding produces `continuation` after `context`."""
        with torch.no_grad():
            logits = self.model(torch.tensor([[*context, *continuation]])).logits[0]
        best: list[int] = logits[len(context) - 1 : -1].argmax(dim=-1).tolist()
        return best == list(continuation)

    def continuation(self, context: str, continuation: str, max_length: int) -> tuple[float, int]:
        """(Σ ln p(continuation | context), tokens): the context cut on the left so that input tokens fit."""
        ids, context_length = self.ids(context + continuation), len(self.ids(context))
        scored = len(ids) - context_length
        ids = ids[-(max_length + 1) :]
        return sum(self.token_logprobs(ids)[-scored:]), scored

    def document(self, text: str, prefix_id: int, max_length: int, windowing: str) -> float:
        """−Σ ln p of a document's tokens, window by window."""
        return sum(self.token_losses(text, prefix_id, max_length, windowing))

    def token_losses(self, text: str, prefix_id: int, max_length: int, windowing: str) -> list[float]:
        """−ln p of each of a document's tokens, window by window."""
        ids = self.ids(text)
        losses: list[float] = []
        start = 0
        while start < len(ids):
            end = min(start + max_length, len(ids))
            before = [prefix_id, *ids][start : start + 1]
            if windowing == "paloma-reference" and start > 0 and end == len(ids):
                before = [prefix_id, *ids][max(0, end - max_length) : start + 1]
            losses += [-value for value in self.token_logprobs([*before, *ids[start:end]])[len(before) - 1 :]]
            start = end
        return losses

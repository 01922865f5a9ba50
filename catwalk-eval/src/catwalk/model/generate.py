"""Greedy decoding of many prompts with a key-value cache.

Prompts are padded on the left, so that all rows grow at the same place. A row leaves the batch when its text contains a
stop text, at the end token, or after `max_tokens`.

Shapes: B rows, T tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from catwalk.model.load import Tokenizer
from catwalk.model.scorer import Scorer
from catwalk.requests import encode_prompts
from catwalk.types import Prompt

__all__ = ["generate"]

_ROWS = 64  # of a batch at most: a cache grows with its rows
_PROMPT_BATCHES = 4  # tokens of prompts at once, in batches of scoring: steps of few rows wait for memory


@dataclass(kw_only=True)
class _Row:
    """A prompt in work: its ids, what was added, and the number of added tokens that `text` covers."""

    index: int
    prompt: Prompt
    ids: list[int]
    added: list[int] = field(default_factory=list)
    text: str = ""

    def is_finished(self, tokenizer: Tokenizer, end_ids: frozenset[int]) -> bool:
        """Whether nothing more is added. Sets `text`."""
        ended = bool(self.added) and self.added[-1] in end_ids
        if ended:
            self.added.pop()
        self.text = tokenizer.decode(self.added)
        cuts = [place for stop in self.prompt.stop if (place := self.text.find(stop)) >= 0]
        if cuts:
            self.text = self.text[: min(cuts)]
        return ended or bool(cuts) or len(self.added) >= self.prompt.max_tokens


def generate(
    scorer: Scorer,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    max_length_tokens: int,
    advance: Callable[[int, int], None] | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> list[str]:
    """What the model adds to each prompt, in the order of `prompts`.

    With `world_size` > 1 only every `world_size`-th batch is decoded, and the other texts are empty.

    Raises:
        WorkError: a prompt has no tokens, or asks for more tokens than the window has.
    """
    encoded = encode_prompts(prompts, tokenizer, max_length_tokens)
    rows = [
        _Row(index=index, prompt=prompt, ids=ids)
        for index, (prompt, ids) in enumerate(zip(prompts, encoded, strict=True))
    ]
    end_ids = frozenset(tokenizer.stop_token_ids)
    texts = [""] * len(prompts)
    rows.sort(key=lambda row: (-len(row.ids), row.index))
    start = 0
    number = 0
    with torch.inference_mode():
        while start < len(rows):
            longest = len(rows[start].ids)
            size = max(1, min(_ROWS, _PROMPT_BATCHES * scorer.limits.batch_tokens // longest))
            batch = rows[start : start + size]
            if number % world_size == rank:
                _decode(scorer, tokenizer, batch, end_ids, advance)
            for row in batch:
                texts[row.index] = row.text
            start += size
            number += 1
    return texts


def _decode(
    scorer: Scorer,
    tokenizer: Tokenizer,
    batch: list[_Row],
    end_ids: frozenset[int],
    advance: Callable[[int, int], None] | None,
) -> None:
    """Decode the rows of a batch to their ends."""
    longest = len(batch[0].ids)
    tokens_BT = torch.zeros(len(batch), longest, dtype=torch.long)
    mask_BT = torch.zeros(len(batch), longest, dtype=torch.long)
    for number, row in enumerate(batch):
        tokens_BT[number, longest - len(row.ids) :] = torch.tensor(row.ids)
        mask_BT[number, longest - len(row.ids) :] = 1
    tokens_BT, mask_BT = tokens_BT.to(scorer.device), mask_BT.to(scorer.device)
    past: Any = None
    active = list(batch)
    inputs = tokens_BT
    while active:
        positions_BT = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)[:, -inputs.shape[1] :]
        logits_BV, past = scorer.next_logits(inputs, mask_BT, positions_BT, past)
        chosen = logits_BV.argmax(dim=-1)
        computed = inputs.numel()
        left = []
        for number, (row, token) in enumerate(zip(active, chosen.tolist(), strict=True)):
            row.added.append(token)
            if not row.is_finished(tokenizer, end_ids):
                left.append(number)
        if advance is not None:
            advance(len(active) - len(left), computed)
        if not left:
            return
        keep = torch.tensor(left, device=scorer.device)
        if len(left) < len(active):
            past.batch_select_indices(keep)
            mask_BT, chosen = mask_BT[keep], chosen[keep]
            active = [active[number] for number in left]
        mask_BT = torch.cat([mask_BT, torch.ones_like(mask_BT[:, :1])], dim=1)
        inputs = chosen[:, None]

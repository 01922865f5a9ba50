"""Which keys a query sees: all before it, those of its sliding window, those of its document.

A query at position i with window W sees the W positions i−W+1 … i, itself included: transformers' `sliding_window`,
FlashAttention's left window plus one. B batch, T time, Q queries of a block, S keys, H heads, K head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

__all__ = ["Mask", "allowed", "attend", "mask_of"]

_BLOCK = 256  # queries at a time: what none of them sees is not computed, and a block's mask stays small


@dataclass(frozen=True)
class Mask:
    """Blocks of queries (first query, last + 1, first key, who sees what: (B or 1, 1, Q, S)); none at all: causal."""

    blocks: tuple[tuple[int, int, int, torch.Tensor], ...] = ()


def allowed(queries_Q: torch.Tensor, keys_S: torch.Tensor, window: int | None) -> torch.Tensor:
    """Whether the query at each position sees the key at each position (Q, S), documents apart."""
    seen_QS = keys_S <= queries_Q[:, None]
    return seen_QS if window is None else seen_QS & (keys_S > queries_Q[:, None] - window)


def mask_of(length: int, window: int | None, document_ids_BT: torch.Tensor | None, device: torch.device) -> Mask:
    """The mask of sequences of `length` tokens, made once for all layers that share the window."""
    if (window is None or window >= length) and document_ids_BT is None:
        return Mask()
    positions_T = torch.arange(length, device=device)
    first_T = [0] * length
    if document_ids_BT is not None:
        # where the earliest document begins that any sequence of the batch is in at each position
        begins_BT = torch.ones_like(document_ids_BT, dtype=torch.bool)
        begins_BT[:, 1:] = document_ids_BT[:, 1:] != document_ids_BT[:, :-1]
        first_T = torch.where(begins_BT, positions_T, 0).cummax(dim=1).values.amin(dim=0).tolist()
    blocks = []
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        first = max(first_T[start], 0 if window is None else start - window + 1)
        seen = allowed(positions_T[start:stop], positions_T[first:stop], window)[None]
        if document_ids_BT is not None:
            seen = seen & (document_ids_BT[:, start:stop, None] == document_ids_BT[:, None, first:stop])
        blocks.append((start, stop, first, seen[:, None]))
    return Mask(tuple(blocks))


def attend(q_BHTK: torch.Tensor, k_BHTK: torch.Tensor, v_BHTK: torch.Tensor, mask: Mask) -> torch.Tensor:
    """Scaled dot-product attention under the mask: (B, H, T, K)."""
    if not mask.blocks:
        return F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
    parts = [
        F.scaled_dot_product_attention(
            q_BHTK[:, :, start:stop], k_BHTK[:, :, first:stop], v_BHTK[:, :, first:stop], attn_mask=seen
        )
        for start, stop, first, seen in mask.blocks
    ]
    return torch.cat(parts, dim=2)

"""Causal self-attention with grouped keys and values (arXiv 2305.13245).

B batch, T time, S keys, D width, H query heads, G key/value heads, K head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..runtime.tensor import UNDIVIDED, TensorGroup
from .architecture import Architecture
from .cache import LayerCache
from .linear import Linear
from .mask import Mask, allowed, attend
from .norm import RMSNorm
from .rope import rotate

__all__ = ["Attention"]


class Attention(nn.Module):
    """One fused projection (rows: all queries, all keys, all values), rotation, SDPA, output projection.

    `shape` is this rank's part of the model in a tensor group.
    """

    def __init__(self, shape: Architecture, tensor: TensorGroup = UNDIVIDED) -> None:
        super().__init__()
        self.tensor = tensor
        self.heads, self.groups, self.head_width = shape.heads, shape.key_value_heads, shape.head_width
        self.sizes = [count * shape.head_width for count in (self.heads, self.groups, self.groups)]
        self.clip = shape.clip_qkv
        self.qkv = Linear(shape.width, sum(self.sizes), shape.attention_bias)
        self.out = Linear(self.sizes[0], shape.width, shape.attention_bias, tensor)
        # over all heads at once, before they are split: OLMo-2's (arXiv 2501.00656), not Qwen's norm of each head
        self.query_norm = RMSNorm(self.sizes[0], shape.norm_eps, tensor) if shape.qk_norm else nn.Identity()
        self.key_norm = RMSNorm(self.sizes[1], shape.norm_eps, tensor) if shape.qk_norm else nn.Identity()

    def forward(
        self,
        x_BTD: torch.Tensor,
        rope: tuple[torch.Tensor, torch.Tensor],
        mask: Mask,
        cache: LayerCache | None = None,
    ) -> torch.Tensor:
        """(B, T, D) to (B, T, D); `rope` holds the cosines and sines of T positions, those after the cache's if any."""
        B, T, _ = x_BTD.shape
        q, k, v = self.qkv(self.tensor.enter(x_BTD)).split(self.sizes, dim=-1)
        q, k = self.query_norm(q), self.key_norm(k)
        if self.clip is not None:
            q, k, v = (x.clamp(-self.clip, self.clip) for x in (q, k, v))
        q_BHTK = q.view(B, T, self.heads, self.head_width).transpose(1, 2)
        k_BGTK = k.view(B, T, self.groups, self.head_width).transpose(1, 2)
        v_BGTK = v.view(B, T, self.groups, self.head_width).transpose(1, 2)
        q_BHTK, k_BGTK = rotate(q_BHTK, *rope), rotate(k_BGTK, *rope)
        if cache is None:
            mixed_BHTK = attend(q_BHTK, self._repeat(k_BGTK), self._repeat(v_BGTK), mask)
        else:
            k_BGSK, v_BGSK, queries_T, keys_S = cache.extend(k_BGTK, v_BGTK)
            seen_TS = allowed(queries_T, keys_S, cache.window)
            mixed_BHTK = F.scaled_dot_product_attention(
                q_BHTK, self._repeat(k_BGSK), self._repeat(v_BGSK), attn_mask=seen_TS
            )
        out: torch.Tensor = self.out(mixed_BHTK.transpose(1, 2).reshape(B, T, -1))
        return out

    def _repeat(self, x_BGTK: torch.Tensor) -> torch.Tensor:
        """Each key/value head for all query heads of its group."""
        return x_BGTK if self.groups == self.heads else x_BGTK.repeat_interleave(self.heads // self.groups, dim=1)

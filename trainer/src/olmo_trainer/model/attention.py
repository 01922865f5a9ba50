"""Causal self-attention with grouped keys and values (arXiv 2305.13245).

B batch, T time, D width, H query heads, G key/value heads, K head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .architecture import Architecture
from .linear import Linear
from .norm import RMSNorm
from .rope import rotate

__all__ = ["Attention"]


class Attention(nn.Module):
    """One fused projection (rows: all queries, all keys, all values), rotation, SDPA, output projection."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.heads, self.groups, self.head_width = shape.heads, shape.key_value_heads, shape.head_width
        self.sizes = [count * shape.head_width for count in (self.heads, self.groups, self.groups)]
        self.clip = shape.clip_qkv
        self.qkv = Linear(shape.width, sum(self.sizes))
        self.out = Linear(self.sizes[0], shape.width)
        # over all heads at once, before they are split: OLMo-2's (arXiv 2501.00656), not Qwen's norm of each head
        self.query_norm = RMSNorm(self.sizes[0], shape.norm_eps) if shape.qk_norm else nn.Identity()
        self.key_norm = RMSNorm(self.sizes[1], shape.norm_eps) if shape.qk_norm else nn.Identity()

    def forward(self, x_BTD: torch.Tensor, rope: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """(B, T, D) to (B, T, D); `rope` holds the cosines and sines of T positions."""
        B, T, _ = x_BTD.shape
        qkv = self.qkv(x_BTD)
        if self.clip is not None:
            qkv = qkv.clamp(-self.clip, self.clip)
        q, k, v = qkv.split(self.sizes, dim=-1)
        q_BHTK = self.query_norm(q).view(B, T, self.heads, self.head_width).transpose(1, 2)
        k_BGTK = self.key_norm(k).view(B, T, self.groups, self.head_width).transpose(1, 2)
        v_BGTK = v.view(B, T, self.groups, self.head_width).transpose(1, 2)
        q_BHTK, k_BGTK = rotate(q_BHTK, *rope), rotate(k_BGTK, *rope)
        if self.groups != self.heads:
            k_BGTK, v_BGTK = (x.repeat_interleave(self.heads // self.groups, dim=1) for x in (k_BGTK, v_BGTK))
        mixed_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BGTK, v_BGTK, is_causal=True)
        out: torch.Tensor = self.out(mixed_BHTK.transpose(1, 2).reshape(B, T, -1))
        return out

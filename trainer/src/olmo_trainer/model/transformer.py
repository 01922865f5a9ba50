"""The one decoder; OLMo-1, OLMo-2 and Llama are settings of it (architecture.py).

B batch, T time, D width, V embedding rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .architecture import Architecture
from .attention import Attention
from .linear import Linear
from .mlp import MLP
from .norm import build_norm
from .rope import rotary_table

__all__ = ["Block", "Transformer"]


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.attention = Attention(shape)
        self.mlp = MLP(shape.width, shape.inner_width)
        self.attention_norm = build_norm(shape.norm, shape.width, shape.norm_eps)
        self.mlp_norm = build_norm(shape.norm, shape.width, shape.norm_eps)
        self.norm_after = shape.norm_after

    def forward(self, x_BTD: torch.Tensor, rope: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """(B, T, D) to (B, T, D)."""
        if self.norm_after:
            h_BTD: torch.Tensor = x_BTD + self.attention_norm(self.attention(x_BTD, rope))
            out_BTD: torch.Tensor = h_BTD + self.mlp_norm(self.mlp(h_BTD))
        else:
            h_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rope)
            out_BTD = h_BTD + self.mlp(self.mlp_norm(h_BTD))
        return out_BTD


class Transformer(nn.Module):
    """Embedding, blocks, final norm; the output matrix is applied by the loss, which need not hold all logits at once.

    Weights are float32 and unset (init.py sets them). `compute_dtype` is the type of the residual stream and the
    matrix products.
    """

    def __init__(self, shape: Architecture, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape, self.compute_dtype = shape, compute_dtype
        self.embedding = nn.Parameter(torch.empty(shape.embedding_rows, shape.width))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = build_norm(shape.norm, shape.width, shape.norm_eps)
        self.head = None if shape.tied else Linear(shape.width, shape.embedding_rows)
        self._rope: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def output_weight(self) -> torch.Tensor:
        """The (V, D) matrix from the last hidden state to logits."""
        return self.embedding if self.head is None else self.head.weight

    def _rotary(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The rotary table, made on the CPU (equal on every device) and kept; it grows with the longest sequence."""
        if self._rope is None or self._rope[0].shape[0] < length or self._rope[0].device != self.embedding.device:
            cos, sin = rotary_table(length, self.shape.head_width, self.shape.rope_theta)
            self._rope = cos.to(self.embedding.device), sin.to(self.embedding.device)
        return self._rope[0][:length], self._rope[1][:length]

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Token ids to the last hidden states (B, T, D), in `compute_dtype`."""
        rope = self._rotary(tokens_BT.shape[1])
        x_BTD = F.embedding(tokens_BT, self.embedding).to(self.compute_dtype)
        for block in self.blocks:
            x_BTD = block(x_BTD, rope)
        out: torch.Tensor = self.norm(x_BTD)
        return out

    def logits(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """All logits (B, T, V), in `compute_dtype`: for comparison and small inputs."""
        return F.linear(self(tokens_BT), self.output_weight.to(self.compute_dtype))

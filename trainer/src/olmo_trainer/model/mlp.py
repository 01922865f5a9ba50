"""SwiGLU (arXiv 2002.05202): `down(silu(gate) · up)`.

B batch, T time, D width, F inner width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .linear import Linear

__all__ = ["MLP"]


class MLP(nn.Module):
    """Feed-forward part; rows of `up_gate` are first all of up, then all of gate, so that one product does for both."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.up_gate = Linear(width, 2 * inner_width)
        self.down = Linear(inner_width, width)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """(B, T, D) to (B, T, D)."""
        up_BTF, gate_BTF = self.up_gate(x_BTD).chunk(2, dim=-1)
        down: torch.Tensor = self.down(F.silu(gate_BTF) * up_BTF)
        return down

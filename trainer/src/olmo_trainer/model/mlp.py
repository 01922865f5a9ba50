"""SwiGLU (arXiv 2002.05202): `down(silu(gate) · up)`.

B batch, T time, D width, F inner width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .linear import Linear

__all__ = ["MLP"]


class _SwiGLU(torch.autograd.Function):
    """`silu(gate) · up` from the joint product, its gradient written straight into one joint buffer."""

    @staticmethod
    def forward(ctx: Any, up_gate: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(up_gate)
        up, gate = up_gate.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        (up_gate,) = ctx.saved_tensors
        up, gate = up_gate.chunk(2, dim=-1)
        joint = torch.empty_like(up_gate)
        grad_up, grad_gate = joint.chunk(2, dim=-1)
        torch.mul(grads[0], F.silu(gate), out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grads[0] * up, gate, grad_input=grad_gate)
        return (joint,)


class MLP(nn.Module):
    """Feed-forward part; rows of `up_gate` are first all of up, then all of gate, so that one product does for both."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.up_gate = Linear(width, 2 * inner_width)
        self.down = Linear(inner_width, width)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """(B, T, D) to (B, T, D)."""
        inner_BTF = _SwiGLU.apply(self.up_gate(x_BTD))  # type: ignore[no-untyped-call]
        down: torch.Tensor = self.down(inner_BTF)
        return down

"""SwiGLU (arXiv 2002.05202): `down(silu(gate) · up)`.

B batch, T time, D width, F inner width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..runtime.tensor import UNDIVIDED, TensorGroup
from .linear import Linear

__all__ = ["MLP", "swiglu"]


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


def swiglu(up_gate: torch.Tensor) -> torch.Tensor:
    """`silu(gate) · up` of (…, 2F) to (…, F); the first half is up."""
    inner: torch.Tensor = _SwiGLU.apply(up_gate)  # type: ignore[no-untyped-call]
    return inner


class MLP(nn.Module):
    """Feed-forward part; rows of `up_gate` are first all of up, then all of gate, so that one product does for both.

    `inner_width` is this rank's share of it in a tensor group.
    """

    def __init__(self, width: int, inner_width: int, bias: bool = False, tensor: TensorGroup = UNDIVIDED) -> None:
        super().__init__()
        self.tensor = tensor
        self.up_gate = Linear(width, 2 * inner_width, bias)
        self.down = Linear(inner_width, width, bias, tensor)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """(B, T, D) to (B, T, D)."""
        down: torch.Tensor = self.down(swiglu(self.up_gate(self.tensor.enter(x_BTD))))
        return down

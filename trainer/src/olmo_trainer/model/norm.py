"""The two norms of the families. Both reckon in float32 and return the input's dtype."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..runtime.tensor import UNDIVIDED, TensorGroup

__all__ = ["LayerNorm", "RMSNorm", "build_norm"]


class LayerNorm(nn.Module):
    """Layer norm without weight and bias: OLMo-1's (arXiv 2402.00838, section 2.1)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.width, self.eps = width, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise the last dimension."""
        return F.layer_norm(x.float(), (self.width,), eps=self.eps).to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    """float32 RMS norm with its gradient written out: on the CPU, torch makes it of a dozen passes over memory."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float, group: TensorGroup = UNDIVIDED
    ) -> torch.Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = torch.rsqrt(group.sum(length * length) / (x.shape[-1] * group.size) + eps)
        ctx.group = group
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # y = w·x·s with s = (mean x² + eps)^−½, so dx = s·(w·g − x·s²·mean(w·g·x)) and dw = Σ g·x·s
        x, weight, scale = ctx.saved_tensors
        (grad,) = grads
        product = grad * x
        grad_weight = torch.mv(product.flatten(0, -2).T, scale.flatten())
        inner = ctx.group.sum(torch.mv(product.flatten(0, -2), weight)).view(scale.shape)
        inner = inner * (scale**3 / (x.shape[-1] * ctx.group.size))
        grad_x = torch.mul(grad, weight).mul_(scale)
        return grad_x.addcmul_(x, inner, value=-1.0), grad_weight, None, None


class RMSNorm(nn.Module):
    """Root-mean-square norm with a weight (arXiv 1910.07467), as OLMo-2 and Llama use it.

    In a tensor group `width` is this rank's share of what is normalised.
    """

    def __init__(self, width: int, eps: float, tensor: TensorGroup = UNDIVIDED) -> None:
        super().__init__()
        self.tensor = tensor
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise the last dimension, then scale it by the weight."""
        if x.device.type == "cpu" or self.tensor.size > 1:
            normed: torch.Tensor = _RMSNorm.apply(x.float(), self.weight, self.eps, self.tensor)  # type: ignore[no-untyped-call]
            return normed.to(x.dtype)
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps).to(x.dtype)


def build_norm(kind: str, width: int, eps: float) -> nn.Module:
    """The norm called `layer_norm` or `rms_norm`."""
    return LayerNorm(width, eps) if kind == "layer_norm" else RMSNorm(width, eps)

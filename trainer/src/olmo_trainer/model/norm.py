"""The two norms of the families. Both reckon in float32 and return the input's dtype."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["LayerNorm", "RMSNorm", "build_norm"]


class LayerNorm(nn.Module):
    """Layer norm without weight and bias: OLMo-1's (arXiv 2402.00838, section 2.1)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.width, self.eps = width, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise the last dimension."""
        return F.layer_norm(x.float(), (self.width,), eps=self.eps).to(x.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm with a weight (arXiv 1910.07467), as OLMo-2 and Llama use it."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise the last dimension, then scale it by the weight."""
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps).to(x.dtype)


def build_norm(kind: str, width: int, eps: float) -> nn.Module:
    """The norm called `layer_norm` or `rms_norm`."""
    return LayerNorm(width, eps) if kind == "layer_norm" else RMSNorm(width, eps)

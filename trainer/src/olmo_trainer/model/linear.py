"""A matrix product in the dtype of its input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..runtime.tensor import UNDIVIDED, TensorGroup

__all__ = ["Linear"]


class Linear(nn.Module):
    """A weight kept in float32 and cast to the input's dtype at use: what autocast does, in the open.

    Where a tensor group is given, its ranks have the columns divided among them: their products are summed.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = False, summed: TensorGroup = UNDIVIDED) -> None:
        super().__init__()
        self.summed = summed
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` times the transposed weight, over the last dimension, and the bias where there is one."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.summed.size == 1:
            return F.linear(x, self.weight.to(x.dtype), bias)
        total = self.summed.leave(F.linear(x, self.weight.to(x.dtype)))
        return total if bias is None else total + bias

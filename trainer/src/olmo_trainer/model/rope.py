"""Rotary position embedding (arXiv 2104.09864), in the rotate-half layout that GPT-NeoX and transformers use.

B batch, T time, H heads, K head width.
"""

from __future__ import annotations

import torch

__all__ = ["rotary_table", "rotate"]


def rotary_table(length: int, head_width: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of every position, each float32 of shape (T, K/2)."""
    exponents = torch.arange(0, head_width, 2, dtype=torch.float32) / head_width
    angles_TK = torch.outer(torch.arange(length, dtype=torch.float32), 1.0 / theta**exponents)
    return angles_TK.cos(), angles_TK.sin()


def rotate(x_BHTK: torch.Tensor, cos_TK: torch.Tensor, sin_TK: torch.Tensor) -> torch.Tensor:
    """Turn each pair (k, k + K/2) by its position's angle; float32 inside, the input's dtype outside."""
    # bf16 cannot tell late positions apart, so the products are float32 even where all else is not
    first, second = x_BHTK.float().chunk(2, dim=-1)
    turned = torch.cat((first * cos_TK - second * sin_TK, second * cos_TK + first * sin_TK), dim=-1)
    return turned.to(x_BHTK.dtype)

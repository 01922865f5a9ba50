"""Rotary position embedding (arXiv 2104.09864), in the rotate-half layout that GPT-NeoX and transformers use.

B batch, T time, H heads, K head width.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["rotary_table", "rotate"]


def rotary_table(length: int, head_width: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of every position, each float32 of shape (T, K/2)."""
    exponents = torch.arange(0, head_width, 2, dtype=torch.float32) / head_width
    angles_TK = torch.outer(torch.arange(length, dtype=torch.float32), 1.0 / theta**exponents)
    return angles_TK.cos(), angles_TK.sin()


def _turn(x: torch.Tensor, cos_TK: torch.Tensor, sin_TK: torch.Tensor, sign: float) -> torch.Tensor:
    """Each pair (k, k + K/2) turned by `sign` times its angle, written straight into the result."""
    half = x.shape[-1] // 2
    # bf16 cannot tell late positions apart, so the products are float32 even where all else is not
    wide, out = x.float(), torch.empty(x.shape, dtype=torch.float32, device=x.device)
    first, second = wide[..., :half], wide[..., half:]
    torch.mul(first, cos_TK, out=out[..., :half])
    torch.mul(second, cos_TK, out=out[..., half:])
    out[..., :half].addcmul_(second, sin_TK, value=-sign)
    out[..., half:].addcmul_(first, sin_TK, value=sign)
    return out.to(x.dtype)


class _Rotate(torch.autograd.Function):
    """A rotation's gradient is the rotation back: nothing of the input need be kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos_TK: torch.Tensor, sin_TK: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos_TK, sin_TK)
        return _turn(x, cos_TK, sin_TK, 1.0)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos_TK, sin_TK = ctx.saved_tensors
        return _turn(grads[0], cos_TK, sin_TK, -1.0), None, None


def rotate(x_BHTK: torch.Tensor, cos_TK: torch.Tensor, sin_TK: torch.Tensor) -> torch.Tensor:
    """Turn each pair (k, k + K/2) by its position's angle; float32 inside, the input's dtype outside."""
    turned: torch.Tensor = _Rotate.apply(x_BHTK, cos_TK, sin_TK)  # type: ignore[no-untyped-call]
    return turned

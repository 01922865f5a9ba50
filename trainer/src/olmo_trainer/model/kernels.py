"""Forward and backward written out where autograd would make many passes over memory: norm, rotation, SwiGLU."""

from typing import Any

import torch
import torch.nn.functional as F

from ..parallel import NO_TENSOR_PARALLEL, TensorParallel

__all__ = ["rms_norm", "rotate", "swiglu"]


class _RMSNorm(torch.autograd.Function):
    """float32 RMS norm. On the CPU, autograd's own version makes a dozen passes over memory."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        eps: float,
        tensor_parallel: TensorParallel = NO_TENSOR_PARALLEL,
    ) -> torch.Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = torch.rsqrt(tensor_parallel.sum(length * length) / (x.shape[-1] * tensor_parallel.size) + eps)
        ctx.tensor_parallel = tensor_parallel
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # y = w·x·s with s = (mean x² + eps)^−½, so dx = s·(w·g − x·s²·mean(w·g·x)) and dw = Σ g·x·s
        x, weight, scale = ctx.saved_tensors
        (grad,) = grads
        product = grad * x
        grad_weight = torch.mv(product.flatten(0, -2).T, scale.flatten())
        inner = ctx.tensor_parallel.sum(torch.mv(product.flatten(0, -2), weight)).view(scale.shape)
        inner = inner * (scale**3 / (x.shape[-1] * ctx.tensor_parallel.size))
        grad_x = torch.mul(grad, weight).mul_(scale)
        return grad_x.addcmul_(x, inner, value=-1.0), grad_weight, None, None


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, tensor_parallel: TensorParallel) -> torch.Tensor:
    """Normalize the last dimension in float32 and scale it by `weight`; in a tensor group both are this rank's part."""
    normed: torch.Tensor = _RMSNorm.apply(x.float(), weight, eps, tensor_parallel)  # type: ignore[no-untyped-call]
    return normed


def _turn(x: torch.Tensor, cos_TK: torch.Tensor, sin_TK: torch.Tensor, sign: float) -> torch.Tensor:
    """Rotate each pair (k, k + K/2) by `sign` times its angle."""
    half = x.shape[-1] // 2
    # bfloat16 cannot tell late positions apart, so the products are always float32
    wide, out = x.float(), torch.empty(x.shape, dtype=torch.float32, device=x.device)
    first, second = wide[..., :half], wide[..., half:]
    torch.mul(first, cos_TK, out=out[..., :half])
    torch.mul(second, cos_TK, out=out[..., half:])
    out[..., :half].addcmul_(second, sin_TK, value=-sign)
    out[..., half:].addcmul_(first, sin_TK, value=sign)
    return out.to(x.dtype)


class _Rotate(torch.autograd.Function):
    """The gradient of a rotation is the inverse rotation (with the same scale), so the input need not be kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos_TK: torch.Tensor, sin_TK: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos_TK, sin_TK)
        return _turn(x, cos_TK, sin_TK, 1.0)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos_TK, sin_TK = ctx.saved_tensors
        return _turn(grads[0], cos_TK, sin_TK, -1.0), None, None


def rotate(x_BHTK: torch.Tensor, cos_TK: torch.Tensor, sin_TK: torch.Tensor) -> torch.Tensor:
    """Rotate each pair (k, k + K/2) by its position's angle; float32 inside, the input's dtype outside."""
    turned: torch.Tensor = _Rotate.apply(x_BHTK, cos_TK, sin_TK)  # type: ignore[no-untyped-call]
    return turned


class _SwiGLU(torch.autograd.Function):
    """`silu(gate) · up` of one fused product, with its gradient written straight into one buffer."""

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
    """`silu(gate) · up` of (…, 2F) to (…, F); the first half is `up`."""
    inner: torch.Tensor = _SwiGLU.apply(up_gate)  # type: ignore[no-untyped-call]
    return inner

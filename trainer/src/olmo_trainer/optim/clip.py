"""Gradient clipping: by the global norm, or each parameter by the running mean of its own norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..config.schema import OptimizerConfig
from ..runtime.sharded import local

__all__ = ["Clip", "clip_by_history", "clip_by_norm", "clip_of_step"]

_TINY = 1e-6  # added to a norm before it divides, as in torch


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The bounds of a step: on the global norm, or on each parameter's norm over its mean; neither if both are null."""

    max_norm: float | None = None
    max_ratio: float | None = None
    beta: float = 0.95
    """Decay of the running means."""
    keeps_history: bool = True
    """Whether running means begin with this step: from the second on."""


def clip_of_step(step: int, optimizer: OptimizerConfig) -> Clip:
    """The bounds of a step (from 1): `clip_warmup_factor` times as wide through step `clip_warmup_steps` itself.

    OLMo-1 sets the bound of a step after it has clipped, so there the warmup lasts a step longer.
    """
    factor = optimizer.clip_warmup_factor if step <= optimizer.clip_warmup_steps else 1.0
    norm, ratio = optimizer.max_grad_norm, optimizer.max_grad_norm_ratio
    if ratio is not None:
        return Clip(max_ratio=ratio * factor, beta=max(optimizer.betas), keeps_history=step > 1)
    return Clip(max_norm=None if norm is None else norm * factor)


def clip_by_norm(gradients: list[torch.Tensor], norm: torch.Tensor, max_norm: float) -> torch.Tensor:
    """Scale gradients in place such that their global norm is `max_norm` at most; returns whether it did, 0 or 1."""
    coefficient = (max_norm / (norm + _TINY)).clamp(max=1.0)
    torch._foreach_mul_([local(gradient) for gradient in gradients], coefficient)
    return (coefficient < 1).float()


def clip_by_history(
    gradients: list[torch.Tensor],
    norms: torch.Tensor,
    means: list[torch.Tensor],
    clip: Clip,
    accepted: torch.Tensor,
) -> torch.Tensor:
    """Scale each gradient in place to at most `max_ratio` times the mean of its `norms`; returns the share scaled.

    A mean (a scalar, 0 before there is one) begins with the first norm, from the second step on as in OLMo-1, and goes
    on with the norms after clipping, of accepted steps alone.
    """
    assert clip.max_ratio is not None
    before = torch.stack(means)
    mean = torch.where(before == 0, norms, before)
    coefficients = (clip.max_ratio * mean / (norms + _TINY)).clamp(max=1.0)
    torch._foreach_mul_([local(gradient) for gradient in gradients], list(coefficients.unbind()))
    if clip.keeps_history:
        after = torch.where(accepted, torch.lerp(mean, norms * coefficients, 1 - clip.beta), before)
        torch._foreach_copy_(means, list(after.unbind()))
    return (coefficients < 1).float().mean()

"""AdamW and which weights decay."""

from __future__ import annotations

import torch

from ..config.schema import OptimizerConfig
from ..model.transformer import Transformer

__all__ = ["build_adamw", "decays"]


def decays(name: str, parameter: torch.Tensor, optimizer: OptimizerConfig) -> bool:
    """Whether a named weight decays: matrices always, embedding and norms by choice."""
    if name == "embedding":
        return optimizer.decay_embeddings
    return optimizer.decay_norms if parameter.ndim < 2 else True


def build_adamw(model: Transformer, optimizer: OptimizerConfig) -> torch.optim.AdamW:
    """torch's AdamW over two groups, decaying and not; its fused kernel skips a step on the device when told to."""
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups[decays(name, parameter, optimizer)].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": groups[True], "weight_decay": optimizer.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=optimizer.learning_rate,
        betas=(optimizer.betas[0], optimizer.betas[1]),
        eps=optimizer.eps,
        fused=True,
    )

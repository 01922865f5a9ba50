"""Adapters and new tokens: of the embedding and the output matrix, only the rows of the new tokens are trained.

peft can train single tokens too, but beside the matrix, and TRL's fused head reads the matrix itself. There, the new
rows would have no effect on the loss. Here they are rows of the matrix, and the gradient of all others is zero.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

__all__ = ["ROWS", "train_rows"]

ROWS = "trained_rows"
"""Attribute of a parameter of which only some rows are trained."""


def train_rows(model: Any, ids: Sequence[int]) -> None:
    """Let training change the rows `ids` of a peft model's embedding and output matrix, and its adapter keep them."""
    import torch

    for layer in {model.get_input_embeddings(), model.get_output_embeddings()}:
        weight = layer.weight
        if hasattr(weight, ROWS):  # the two are tied
            continue
        weight.requires_grad_(True)
        setattr(weight, ROWS, list(ids))
        keep = torch.zeros(len(weight), 1, dtype=torch.bool)
        keep[list(ids)] = True
        weight.register_hook(lambda gradient, keep=keep: gradient * keep.to(gradient.device))
    model.save_pretrained = partial(model.save_pretrained, save_embedding_layers=True)

"""What a run keeps in the memory of one rank, from its shape and settings alone."""

from __future__ import annotations

from ..config.schema import OptimizerConfig, TrainConfig
from ..model.architecture import Architecture
from ..model.flops import total_parameters

__all__ = ["memory_of_rank"]

_FLOAT32 = 4


def memory_of_rank(
    shape: Architecture, train: TrainConfig, optimizer: OptimizerConfig, sequence_length: int, ranks: int
) -> dict[str, int]:
    """Bytes of weights, gradients, moments (float32, divided where the weights are) and, estimated, of activations.

    Activations are what the backward pass of a micro-batch needs: of each block its input, two norms' outputs, queries,
    keys and values before and after rotation, attention's output and the MLP's inner values. With full recomputation
    a block keeps its input alone, but for the one that is worked out again. Buffers of kernels, of the loss and of
    communication are not in it, nor is what Python and torch take by themselves.
    """
    shape, ranks = shape.part(train.parallel.tensor_ranks), ranks // train.parallel.tensor_ranks
    division = {"ddp": 1, "fsdp": ranks, "hsdp": train.parallel.shard_ranks or 1}[train.parallel.kind]
    weights = -(-_FLOAT32 * total_parameters(shape) // division)
    windows = min(train.micro_batch_windows or train.batch_windows, -(-train.batch_windows // ranks))
    tokens = windows * sequence_length
    heads = (shape.heads + 2 * shape.key_value_heads) * shape.head_width
    experts = shape.routing.chosen if shape.routing else 1
    kept = 6 * shape.width + 2 * heads + shape.heads * shape.head_width + 4 * experts * shape.inner_width
    again = shape.layers // train.recompute_every if train.recompute == "full" else 0
    values = (shape.layers - again) * kept + (again + 2) * shape.width
    logits = 2 * _FLOAT32 * shape.embedding_rows if train.loss == "plain" else 0
    tokens_bytes = tokens * (2 if train.precision == "bf16" else 4)
    parts = {
        "weights": weights,
        "gradients": weights,
        "moments": weights * (2 if optimizer.kind == "adamw" else 1),
        "activations_estimate": tokens_bytes * values + tokens * logits,
        "recomputed_estimate": tokens_bytes * kept if again else 0,
    }
    return {**parts, "total_estimate": sum(parts.values())}

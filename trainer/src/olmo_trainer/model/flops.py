"""Parameters and floating-point operations, from the shape alone.

Convention of PaLM's appendix B (arXiv 2204.02311), as torchtitan and OLMo-core count: 6 per matrix weight and
12·heads·head width·length per layer and token; the embedding lookup, the causal half and recomputation are not counted.
"""

from __future__ import annotations

from .architecture import Architecture

__all__ = ["flops_per_token", "matrix_parameters", "total_parameters"]


def _block_parameters(shape: Architecture) -> int:
    rows = (shape.heads + 2 * shape.key_value_heads) * shape.head_width
    return shape.width * rows + shape.heads * shape.head_width * shape.width + 3 * shape.width * shape.inner_width


def matrix_parameters(shape: Architecture) -> int:
    """Weights that take part in a matrix product, the output matrix included whether tied or not."""
    return shape.layers * _block_parameters(shape) + shape.embedding_rows * shape.width


def total_parameters(shape: Architecture) -> int:
    """All weights, each counted once."""
    norms = 0
    if shape.norm == "rms_norm":
        norms = (2 * shape.layers + 1) * shape.width
    if shape.qk_norm:
        norms += shape.layers * (shape.heads + shape.key_value_heads) * shape.head_width
    return matrix_parameters(shape) + norms + (0 if shape.tied else shape.embedding_rows * shape.width)


def flops_per_token(shape: Architecture, sequence_length: int) -> int:
    """Operations of one trained token, forward and backward."""
    attention = 12 * shape.layers * shape.heads * shape.head_width * sequence_length
    return 6 * matrix_parameters(shape) + attention

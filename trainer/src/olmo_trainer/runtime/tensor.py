"""Ranks that share each matrix product (tensor parallelism, arXiv 1909.08053, section 3).

Queries, keys, values and the MLP's two inner matrices are divided by rows, so a rank has whole heads; what leads back
to the residual stream is divided by columns, and the parts are summed. The vocabulary is divided too. What a rank has
of a weight is a plain tensor: modules are built smaller, and only here is it known which part of the whole theirs is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from ..config.errors import ConfigError, Problem
from ..model.architecture import Architecture

__all__ = ["UNDIVIDED", "Division", "TensorGroup", "check_divisible", "divisions_of"]


@dataclass(frozen=True, kw_only=True)
class TensorGroup:
    """This rank among the `size` that share each product; they read the same windows."""

    size: int = 1
    rank: int = 0
    process_group: Any = None

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add up over the group, in place; not differentiable, as is `gather`."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self.process_group)
        return tensor

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Every rank's tensor, of equal shapes."""
        tensor = tensor.contiguous()
        if self.size == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor, group=self.process_group)
        return parts

    def enter(self, x: torch.Tensor) -> torch.Tensor:
        """What all ranks have alike and each now uses in its own way: its gradients are summed (the paper's f)."""
        return _Enter.apply(x, self) if self.size > 1 else x  # type: ignore[no-untyped-call]

    def leave(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of what the ranks have, which all then use alike (the paper's g)."""
        return _Leave.apply(x, self) if self.size > 1 else x  # type: ignore[no-untyped-call]

    def joined(self, x: torch.Tensor) -> torch.Tensor:
        """The ranks' parts side by side in the last dimension, which all then use alike."""
        return _Joined.apply(x, self) if self.size > 1 else x  # type: ignore[no-untyped-call]


UNDIVIDED = TensorGroup()


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: TensorGroup) -> torch.Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return _sum(grads[0], ctx.group), None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: TensorGroup) -> torch.Tensor:
        return _sum(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return grads[0], None


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: TensorGroup) -> torch.Tensor:
        ctx.group = group
        return torch.cat(group.gather(x), dim=-1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return grads[0].chunk(ctx.group.size, dim=-1)[ctx.group.rank], None


def _sum(x: torch.Tensor, group: TensorGroup) -> torch.Tensor:
    """The sum in new memory: autograd, or selective recomputation, may hold `x` for another use."""
    return group.sum(x.clone(memory_format=torch.contiguous_format))


@dataclass(frozen=True, kw_only=True)
class Division:
    """How a weight is divided: along `dim`, where `pieces` are stacked, each piece evenly."""

    dim: int
    pieces: tuple[int, ...]
    group: TensorGroup

    def part(self, whole: torch.Tensor) -> torch.Tensor:
        """This rank's part of a whole tensor."""
        pieces = torch.split(whole, list(self.pieces), dim=self.dim)
        return torch.cat([piece.chunk(self.group.size, dim=self.dim)[self.group.rank] for piece in pieces], self.dim)

    def whole(self, part: torch.Tensor) -> torch.Tensor:
        """The whole tensor of the ranks' parts; they must ask together."""
        own = [piece // self.group.size for piece in self.pieces]
        parts = [torch.split(part, own, dim=self.dim) for part in self.group.gather(part)]
        return torch.cat([piece for stacked in zip(*parts, strict=True) for piece in stacked], dim=self.dim)

    def size(self, part: torch.Size) -> torch.Size:
        """The whole tensor's size, from that of a part."""
        sizes = list(part)
        sizes[self.dim] = sum(self.pieces)
        return torch.Size(sizes)


def divisions_of(shape: Architecture, group: TensorGroup) -> dict[str, Division]:
    """How each divided weight of a model is divided, by name; what is not named every rank has whole."""
    if group.size == 1:
        return {}
    queries, keys = shape.heads * shape.head_width, shape.key_value_heads * shape.head_width
    rows, inner = (shape.embedding_rows,), shape.inner_width
    kinds: dict[str, tuple[int, tuple[int, ...]]] = {
        "attention.qkv.weight": (0, (queries, keys, keys)),
        "attention.out.weight": (1, (queries,)),
        "mlp.up_gate.weight": (0, (inner, inner)),
        "mlp.down.weight": (1, (inner,)),
    }
    if shape.attention_bias:
        kinds["attention.qkv.bias"] = kinds["attention.qkv.weight"]
    if shape.mlp_bias:
        kinds["mlp.up_gate.bias"] = kinds["mlp.up_gate.weight"]
    if shape.qk_norm:
        kinds |= {"attention.query_norm.weight": (0, (queries,)), "attention.key_norm.weight": (0, (keys,))}
    named = {f"blocks.{layer}.{name}": kind for layer in range(shape.layers) for name, kind in kinds.items()}
    named["embedding"] = (0, rows)
    if not shape.tied:
        named["head.weight"] = (0, rows)
    return {name: Division(dim=dim, pieces=pieces, group=group) for name, (dim, pieces) in named.items()}


def check_divisible(shape: Architecture, tensor_ranks: int, where: str) -> None:
    """See that each of the ranks gets an equal part of every product.

    Raises: ConfigError: with each number that cannot be divided, or experts, which are not.
    """
    if tensor_ranks == 1:
        return
    ranks = f"train.parallel.tensor_ranks {tensor_ranks}"
    sizes = {
        "model.num_attention_heads": shape.heads,
        "model.num_key_value_heads": shape.key_value_heads,
        "model.intermediate_size": shape.inner_width,
        "model.embedding_size": shape.embedding_rows,
    }
    problems = [
        Problem(f'{where}: "{name}" is {size}; expected a multiple of {ranks}')
        for name, size in sizes.items()
        if size % tensor_ranks
    ]
    if shape.routing:
        what = f'"train.parallel.tensor_ranks" is {tensor_ranks} and "model.family" {shape.family}'
        problems = [Problem(f"{where}: {what}; expected 1 for a model of experts", 'use train.parallel.kind "fsdp"')]
    if problems:
        raise ConfigError(*problems)

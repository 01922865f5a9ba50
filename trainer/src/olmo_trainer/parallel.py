"""How a run is spread over processes: tensor groups, ranks, and what must know which part of a weight a rank holds.

One process is not a special case: it makes the same calls, which then return their input.

`ddp` keeps every weight on every rank. `fsdp` (arXiv 2304.11277) and `hsdp` shard matrices by rows over all ranks or
over groups of `shard_ranks`, and gather a block's weights when it is computed. Vectors and routers, which are small and
need float32, stay whole on every rank; embedding and output matrix are gathered in float32, since their gradients are
sums over tokens. Other matrices are gathered in the dtype of the products; gradients are always summed in float32.

With tensor parallelism (arXiv 1909.08053, section 3), neighbouring ranks share each matrix product. Queries, keys,
values and the inner matrices of the MLP are divided by rows, so that a rank has whole heads; matrices that lead back to
the residual stream are divided by columns, and the products are summed. The vocabulary is divided too. A rank's part of
a weight is a plain tensor: modules are built smaller, and `ShardSpec` knows which part of the whole it is. Those parts
are then sharded as above, among the ranks that hold the same part.

Each rank's loss is divided by the valid tokens of all ranks' batches, so gradients are summed, never averaged.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from .config.schema import ParallelConfig, TrainConfig
from .formats.contract import Problem
from .settings import SettingError

if TYPE_CHECKING:  # importing it takes as long as importing torch, and one process needs nothing of it
    from torch.distributed.tensor import DTensor

__all__ = [
    "NO_TENSOR_PARALLEL",
    "SINGLE_PROCESS",
    "Gradients",
    "Ranks",
    "ShardSpec",
    "TensorParallel",
    "by_rows",
    "check_world",
    "distribute",
    "is_shard",
    "joined_ranks",
    "local",
    "norms_of",
    "part_like",
    "put",
    "whole",
    "world_size",
]


# ---- tensor groups


@dataclass(frozen=True, kw_only=True)
class TensorParallel:
    """This rank among the `size` that share each product; they read the same windows."""

    size: int = 1
    rank: int = 0
    process_group: Any = None

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over the group, in place; neither this nor `gather` is differentiable."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self.process_group)
        return tensor

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The tensors of all ranks, which have equal shapes."""
        tensor = tensor.contiguous()
        if self.size == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor, group=self.process_group)
        return parts

    def copy_to(self, x: torch.Tensor) -> torch.Tensor:
        """Identity, with gradients summed over the group: from the residual stream into divided products (f)."""
        return _CopyTo.apply(x, self) if self.size > 1 else x  # type: ignore[no-untyped-call]

    def reduce_from(self, x: torch.Tensor) -> torch.Tensor:
        """The sum over the group, with gradients passed on: from divided products back to the residual stream (g)."""
        return _ReduceFrom.apply(x, self) if self.size > 1 else x  # type: ignore[no-untyped-call]

    def gather_from(self, x: torch.Tensor) -> torch.Tensor:
        """The ranks' parts concatenated along the last dimension."""
        return _GatherFrom.apply(x, self) if self.size > 1 else x  # type: ignore[no-untyped-call]


NO_TENSOR_PARALLEL = TensorParallel()


class _CopyTo(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: TensorParallel) -> torch.Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return _sum(grads[0], ctx.group), None


class _ReduceFrom(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: TensorParallel) -> torch.Tensor:
        return _sum(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return grads[0], None


class _GatherFrom(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: TensorParallel) -> torch.Tensor:
        ctx.group = group
        return torch.cat(group.gather(x), dim=-1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return grads[0].chunk(ctx.group.size, dim=-1)[ctx.group.rank], None


def _sum(x: torch.Tensor, group: TensorParallel) -> torch.Tensor:
    """The sum in new memory: autograd, or activation checkpointing, may still need `x`."""
    return group.sum(x.clone(memory_format=torch.contiguous_format))


@dataclass(frozen=True, kw_only=True)
class ShardSpec:
    """How a weight is divided in a tensor group: along `dim`, where `pieces` are stacked, each piece evenly."""

    dim: int
    pieces: tuple[int, ...]
    tensor_parallel: TensorParallel

    def part(self, whole: torch.Tensor) -> torch.Tensor:
        """This rank's part of a whole tensor."""
        pieces = torch.split(whole, list(self.pieces), dim=self.dim)
        return torch.cat(
            [piece.chunk(self.tensor_parallel.size, dim=self.dim)[self.tensor_parallel.rank] for piece in pieces],
            self.dim,
        )

    def whole(self, part: torch.Tensor) -> torch.Tensor:
        """The whole tensor, from the ranks' parts. Collective: all ranks call."""
        own = [piece // self.tensor_parallel.size for piece in self.pieces]
        parts = [torch.split(part, own, dim=self.dim) for part in self.tensor_parallel.gather(part)]
        return torch.cat([piece for stacked in zip(*parts, strict=True) for piece in stacked], dim=self.dim)

    def size(self, part: torch.Size) -> torch.Size:
        """The size of the whole tensor, from that of a part."""
        sizes = list(part)
        sizes[self.dim] = sum(self.pieces)
        return torch.Size(sizes)


# ---- ranks

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among `world`; rank 0 writes files and logs.

    Neighbouring ranks form tensor groups, which read the same windows: the data rank is the number of the group.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    """Number of the process on its machine, and of its GPU."""
    tensor_parallel: TensorParallel = NO_TENSOR_PARALLEL
    data_group: Any = None
    """The ranks at the same place in their tensor groups; None for all."""

    @property
    def writes(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    @property
    def data_rank(self) -> int:
        """Which windows of a batch this process reads: every `data_world`-th, from this one."""
        return self.rank // self.tensor_parallel.size

    @property
    def data_world(self) -> int:
        """The number of parts a batch is divided into."""
        return self.world // self.tensor_parallel.size

    def in_groups(self, tensor_ranks: int) -> Ranks:
        """The same processes in tensor groups of that many neighbours. Collective: all ranks call."""
        if tensor_ranks == 1 or self.world == 1:
            return self
        columns = [list(range(first, self.world, tensor_ranks)) for first in range(tensor_ranks)]
        rows = [list(range(first, first + tensor_ranks)) for first in range(0, self.world, tensor_ranks)]
        data_group, _ = dist.new_subgroups_by_enumeration(columns)  # type: ignore[no-untyped-call]
        group, _ = dist.new_subgroups_by_enumeration(rows)  # type: ignore[no-untyped-call]
        tensor_parallel = TensorParallel(size=tensor_ranks, rank=self.rank % tensor_ranks, process_group=group)
        return replace(self, tensor_parallel=tensor_parallel, data_group=data_group)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over all ranks, in place; a tensor on the CPU does not wait for the GPU."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_of_data(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over data ranks, so that each window counts once, however many ranks share its products."""
        if self.data_world > 1:
            dist.all_reduce(tensor, group=self.data_group)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return flag if self.world == 1 else bool(self.sum(torch.tensor(int(flag))))

    def agree(self, value: T) -> T:
        """The value of rank 0, on every rank."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def mesh(self, device_type: str, shard_ranks: int | None) -> DeviceMesh:
        """The data ranks as one dimension, or in groups of `shard_ranks` neighbours (replicate × shard)."""
        tensor, width = self.tensor_parallel.size, self.data_world if shard_ranks is None else shard_ranks
        if tensor == 1 and shard_ranks is None:
            return init_device_mesh(device_type, (self.world,))
        names, sizes = ("replicate", "shard", "tensor"), (self.data_world // width, width, tensor)
        mesh = init_device_mesh(device_type, sizes, mesh_dim_names=names)
        return mesh["shard"] if shard_ranks is None else mesh["replicate", "shard"]


SINGLE_PROCESS = Ranks()


def world_size() -> int:
    """The number of processes that torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined_ranks(device: str, tensor_ranks: int = 1, timeout_s: float = 1800.0) -> Iterator[Ranks]:
    """Join the process group of torchrun's environment, if there is one, and leave it at the end.

    CPU tensors use gloo, GPU tensors NCCL.
    """
    if world_size() == 1:
        yield SINGLE_PROCESS
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    options: dict[str, Any] = {}
    if device == "cuda":
        torch.cuda.set_device(local_rank)
        options["device_id"] = torch.device("cuda", local_rank)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s), **options)
    try:
        ranks = Ranks(rank=dist.get_rank(), world=dist.get_world_size(), local_rank=local_rank)
        yield ranks.in_groups(tensor_ranks)
    finally:
        dist.destroy_process_group()


def check_world(train: TrainConfig, world: int) -> None:
    """Check that every batch can be divided evenly over the ranks."""
    tensor_ranks = train.parallel.tensor_ranks
    if world % tensor_ranks:
        what = f'"train.parallel.tensor_ranks" is {tensor_ranks}; expected a divisor of the {world} ranks'
        raise SettingError(what, hint=f"start a multiple of {tensor_ranks}: olmo launch --nproc")
    of = f"{world} ranks" if tensor_ranks == 1 else f"{world // tensor_ranks} groups of ranks"
    world //= tensor_ranks
    sizes = {"train.batch_windows": train.batch_windows}
    for index, phase in enumerate(train.batch_warmup):
        sizes[f"train.batch_warmup.{index}.batch_windows"] = phase.batch_windows
    parts = [(name, size, f"a multiple of the {of}") for name, size in sizes.items() if size % world]
    shard_ranks = train.parallel.shard_ranks
    if shard_ranks is not None and (world % shard_ranks or shard_ranks > world):
        parts.append(("train.parallel.shard_ranks", shard_ranks, f"a divisor of the {of}"))
    if parts:
        raise SettingError(*(Problem(f'"{name}" is {got}; expected {text}') for name, got, text in parts))


# ---- sharded weights and gradients


class Gradients:
    """Sums the gradients that FSDP does not: starts as each is complete, waits after the last micro-batch."""

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        self.ranks, self._is_last, self._work = ranks, False, list[Any]()
        self._sharded = list[Any]()
        if ranks.data_world > 1:
            from torch.distributed.fsdp import FSDPModule

            self._sharded += [module for module in model.modules() if isinstance(module, FSDPModule)]
            for parameter in model.parameters():
                if not is_shard(parameter):
                    parameter.register_post_accumulate_grad_hook(self._complete)  # type: ignore[no-untyped-call]

    def _complete(self, parameter: torch.Tensor) -> None:
        if self._is_last:
            assert parameter.grad is not None
            self._work.append(dist.all_reduce(parameter.grad, group=self.ranks.data_group, async_op=True))

    def begin(self, *, is_last: bool) -> None:
        """Before the backward pass of a micro-batch."""
        self._is_last = is_last
        for module in self._sharded:
            module.set_is_last_backward(is_last)
            module.set_requires_all_reduce(is_last, recurse=False)

    def wait(self) -> None:
        """After the last backward pass: wait until all gradients are those of the whole batch."""
        for work in self._work:
            work.wait()
        self._work.clear()


def distribute(
    model: nn.Module,
    blocks: nn.ModuleList,
    parallel: ParallelConfig,
    ranks: Ranks,
    device: torch.device,
    compute_dtype: torch.dtype = torch.float32,
) -> None:
    """Shard a model that is on the meta device and give it uninitialized memory on `device`."""
    if ranks.data_world > 1 and parallel.kind != "ddp":
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

        mesh = ranks.mesh(device.type, parallel.shard_ranks)
        kept = {
            parameter
            for name, parameter in model.named_parameters()
            if parameter.ndim < 2 or name.endswith("router.weight")
        }
        for block in blocks:
            policy = MixedPrecisionPolicy(
                param_dtype=compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
            )
            fully_shard(
                block,
                mesh=mesh,
                reshard_after_forward=parallel.reshard_after_forward,
                mp_policy=policy,
                ignored_params=kept,
            )
        plain = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
        fully_shard(model, mesh=mesh, reshard_after_forward=False, mp_policy=plain, ignored_params=kept)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
    model.to_empty(device=device)


def is_shard(tensor: torch.Tensor) -> TypeGuard[DTensor]:
    """Whether the tensor is a DTensor: there can be none before the type is imported."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a tensor, sharing its memory; an unsharded tensor is its own part."""
    return tensor.to_local() if is_shard(tensor) else tensor


def whole(tensor: torch.Tensor, spec: ShardSpec | None = None) -> torch.Tensor:
    """The whole tensor. Collective: all ranks call."""
    gathered = tensor.full_tensor() if is_shard(tensor) else tensor
    return spec.whole(gathered) if spec else gathered


def part_like(full: torch.Tensor, like: torch.Tensor, spec: ShardSpec | None = None) -> torch.Tensor:
    """A whole tensor, equal on all ranks, sharded like another; no communication."""
    full = spec.part(full) if spec else full
    if not is_shard(like):
        return full.to(like.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(full.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def by_rows(full: torch.Tensor) -> torch.Tensor:
    """A whole tensor, equal on all ranks, sharded by rows over all of them; no communication."""
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh(full.device.type, (dist.get_world_size(),))
    return distribute_tensor(full, mesh, [Shard(0)], src_data_rank=None)


@torch.no_grad()
def put(target: torch.Tensor, full: torch.Tensor, spec: ShardSpec | None = None) -> None:
    """Write a whole tensor, equal on all ranks, into one that may be sharded."""
    local(target).copy_(local(part_like(full, target, spec)))


def norms_of(tensors: list[torch.Tensor], specs: Sequence[ShardSpec | None] = ()) -> list[torch.Tensor]:
    """The norm of each whole tensor, bit-identical on every rank: one all-reduce for all, two with tensor groups."""
    norms = list(torch._foreach_norm([local(tensor) for tensor in tensors]))
    sharded = [index for index, tensor in enumerate(tensors) if is_shard(tensor)]
    if sharded:
        first = tensors[sharded[0]]
        assert is_shard(first)
        mesh = first.device_mesh if first.device_mesh.ndim == 1 else first.device_mesh["shard"]
        squares = torch.stack([norms[index] for index in sharded]) ** 2
        dist.all_reduce(squares, group=mesh.get_group())
        for index, norm in zip(sharded, squares.sqrt().unbind(), strict=True):
            norms[index] = norm
    if sharded := [index for index, spec in enumerate(specs) if spec]:
        spec = specs[sharded[0]]
        assert spec is not None
        squares = spec.tensor_parallel.sum(torch.stack([norms[index] for index in sharded]) ** 2)
        for index, norm in zip(sharded, squares.sqrt().unbind(), strict=True):
            norms[index] = norm
    return norms

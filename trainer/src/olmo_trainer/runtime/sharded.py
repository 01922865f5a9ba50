"""How a model is divided among ranks, and what must know of it: gradients' sums, norms, whole tensors.

`ddp` keeps every weight on every rank. `fsdp` (arXiv 2304.11277) and `hsdp` shard matrices by rows over all ranks or
over groups of `shard_ranks`, and gather a block's when it is computed. What is small and wants float32, vectors and
routers, stays whole on every rank; embedding and output matrix are gathered in float32, since sums over tokens go into
their gradients. Other matrices are gathered in the type of the products; gradients are always summed in float32.

Under all of them, ranks may share each product in groups (tensor.py); what a rank has of a weight is then divided
further as above, among the ranks with the same part.

Each rank's loss is divided by the valid tokens of all ranks' batches, so gradients are summed, never averaged.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from ..config.schema import ParallelConfig
from .ranks import Ranks
from .tensor import Division

if TYPE_CHECKING:  # importing it takes as long as importing torch, and one process needs nothing of it
    from torch.distributed.tensor import DTensor

__all__ = ["Gradients", "by_rows", "distribute", "is_shard", "local", "norms_of", "part_like", "put", "whole"]


class Gradients:
    """Sums the gradients that FSDP does not: begun as each is complete, waited for after the last micro-batch."""

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
        """After the last backward pass: all gradients are then those of the whole batch."""
        for work in self._work:
            work.wait()
        self._work.clear()


def distribute(
    model: nn.Module, blocks: nn.ModuleList, parallel: ParallelConfig, ranks: Ranks, device: torch.device
) -> None:
    """Shard a model that is on the meta device and give it unset memory on `device`; `ddp` has nothing to shard."""
    if ranks.data_world > 1 and parallel.kind != "ddp":
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

        mesh = ranks.mesh(device.type, parallel.shard_ranks)
        kept = {
            parameter
            for name, parameter in model.named_parameters()
            if parameter.ndim < 2 or name.endswith("router.weight")
        }
        products = getattr(model, "compute_dtype", torch.float32)
        for block in blocks:
            policy = MixedPrecisionPolicy(param_dtype=products, reduce_dtype=torch.float32, cast_forward_inputs=False)
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
    """Whether a rank has a part of the tensor by torch's account: there can be none before the type is imported."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a tensor, sharing its memory; a tensor that is not sharded is its own part."""
    return tensor.to_local() if is_shard(tensor) else tensor


def whole(tensor: torch.Tensor, division: Division | None = None) -> torch.Tensor:
    """The whole tensor. All ranks must ask together."""
    gathered = tensor.full_tensor() if is_shard(tensor) else tensor
    return division.whole(gathered) if division else gathered


def part_like(full: torch.Tensor, like: torch.Tensor, division: Division | None = None) -> torch.Tensor:
    """A whole tensor, equal on all ranks, divided as another is; nothing is sent."""
    full = division.part(full) if division else full
    if not is_shard(like):
        return full.to(like.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(full.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def by_rows(full: torch.Tensor) -> torch.Tensor:
    """A whole tensor, equal on all ranks, divided by rows among all of them; nothing is sent."""
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh(full.device.type, (dist.get_world_size(),))
    return distribute_tensor(full, mesh, [Shard(0)], src_data_rank=None)


@torch.no_grad()
def put(place: torch.Tensor, full: torch.Tensor, division: Division | None = None) -> None:
    """Write a whole tensor, equal on all ranks, into one that may be sharded."""
    local(place).copy_(local(part_like(full, place, division)))


def norms_of(tensors: list[torch.Tensor], divisions: Sequence[Division | None] = ()) -> list[torch.Tensor]:
    """The norm of each whole tensor, the same bits on every rank, with one exchange for all of them; with tensor groups
    two.
    """
    norms = list(torch._foreach_norm([local(tensor) for tensor in tensors]))
    places = [index for index, tensor in enumerate(tensors) if is_shard(tensor)]
    if places:
        first = tensors[places[0]]
        assert is_shard(first)
        mesh = first.device_mesh if first.device_mesh.ndim == 1 else first.device_mesh["shard"]
        squares = torch.stack([norms[index] for index in places]) ** 2
        dist.all_reduce(squares, group=mesh.get_group())
        for index, norm in zip(places, squares.sqrt().unbind(), strict=True):
            norms[index] = norm
    if places := [index for index, division in enumerate(divisions) if division]:
        division = divisions[places[0]]
        assert division is not None
        squares = division.group.sum(torch.stack([norms[index] for index in places]) ** 2)
        for index, norm in zip(places, squares.sqrt().unbind(), strict=True):
            norms[index] = norm
    return norms

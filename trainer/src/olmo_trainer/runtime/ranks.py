"""The processes of a run: who is who, and what they tell each other.

torchrun says in the environment how many there are. One process alone is no special case: it goes through the same
calls, which then have nobody to talk to and return what they were given.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from ..config.errors import ConfigError, Problem
from ..config.schema import TrainConfig
from .tensor import UNDIVIDED, TensorGroup

__all__ = ["ALONE", "Ranks", "check_world", "joined_ranks", "world_size"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among `world`; rank 0 is the one that writes.

    Neighbours form tensor groups, whose ranks read the same windows: a data rank is the number of such a group.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    """Number on its machine, and of its GPU there."""
    tensor: TensorGroup = UNDIVIDED
    data_group: Any = None
    """Those with the same place in their tensor groups; None for all."""

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and tells what is going on."""
        return self.rank == 0

    @property
    def data_rank(self) -> int:
        """Which windows of a batch this process reads: every `data_world`-th, from this one."""
        return self.rank // self.tensor.size

    @property
    def data_world(self) -> int:
        """How many parts a batch is dealt into."""
        return self.world // self.tensor.size

    def in_groups(self, tensor_ranks: int) -> Ranks:
        """The same processes, so many neighbours sharing each product. All ranks must ask together."""
        if tensor_ranks == 1 or self.world == 1:
            return self
        columns = [list(range(first, self.world, tensor_ranks)) for first in range(tensor_ranks)]
        rows = [list(range(first, first + tensor_ranks)) for first in range(0, self.world, tensor_ranks)]
        data_group, _ = dist.new_subgroups_by_enumeration(columns)  # type: ignore[no-untyped-call]
        group, _ = dist.new_subgroups_by_enumeration(rows)  # type: ignore[no-untyped-call]
        tensor = TensorGroup(size=tensor_ranks, rank=self.rank % tensor_ranks, process_group=group)
        return replace(self, tensor=tensor, data_group=data_group)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add up a tensor of equal shape over all ranks, in place; on the CPU without touching the GPU's queue."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_of_data(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same for what is known of windows: each is counted once, however many ranks share its products."""
        if self.data_world > 1:
            dist.all_reduce(tensor, group=self.data_group)
        return tensor

    def agree(self, value: T) -> T:
        """What rank 0 says, on every rank."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def mesh(self, device_type: str, shard_ranks: int | None) -> DeviceMesh:
        """The data ranks in a row, or in groups of `shard_ranks` neighbours (replicate × shard)."""
        tensor, width = self.tensor.size, self.data_world if shard_ranks is None else shard_ranks
        if tensor == 1 and shard_ranks is None:
            return init_device_mesh(device_type, (self.world,))
        names, sizes = ("replicate", "shard", "tensor"), (self.data_world // width, width, tensor)
        mesh = init_device_mesh(device_type, sizes, mesh_dim_names=names)
        return mesh["shard"] if shard_ranks is None else mesh["replicate", "shard"]


ALONE = Ranks()


def world_size() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined_ranks(device: str, tensor_ranks: int = 1, timeout_s: float = 1800.0) -> Iterator[Ranks]:
    """Join the process group that torchrun's environment describes, if it describes one, and leave it at the end.

    Tensors on the CPU go through gloo, those on a GPU through NCCL.
    """
    if world_size() == 1:
        yield ALONE
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


def check_world(train: TrainConfig, world: int, where: str) -> None:
    """See that every batch can be dealt out evenly.

    Raises: ConfigError: with each size that cannot.
    """
    tensor_ranks = train.parallel.tensor_ranks
    if world % tensor_ranks:
        what = f'"train.parallel.tensor_ranks" is {tensor_ranks}; expected a divisor of the {world} ranks'
        raise ConfigError(Problem(f"{where}: {what}", f"start a multiple of {tensor_ranks}: olmo launch --nproc"))
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
        raise ConfigError(*(Problem(f'{where}: "{name}" is {got}; expected {text}') for name, got, text in parts))

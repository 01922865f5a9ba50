"""Moments that are written and read by all ranks, each its part: torch's distributed checkpoint (DCP) as safetensors.

Every file says in its header which part of which tensor it holds, so any number of ranks can read what another number
wrote. DCP's own `.metadata`, a pickle, is neither written nor read.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from ..runtime.sharded import by_rows
from ..runtime.tensor import Division

__all__ = ["begin_shards", "failure_told", "read_shards", "settle_shards"]


@contextmanager
def failure_told(directory: Path) -> Iterator[None]:
    """Make of torch's exception, which is none of the usual ones, what writing a file raises.

    Raises: OSError: of the first rank that failed.
    """
    try:
        yield
    except CheckpointException as error:
        rank, (cause, _) = min(error.failures.items())
        raise OSError(f"{directory}: not written by rank {rank} ({cause})") from error


def begin_shards(tensors: dict[str, torch.Tensor], directory: Path, group: Any, *, background: bool) -> Any:
    """Write a directory together with all ranks; in the background from a copy, a future that is to be waited for."""
    directory.mkdir(parents=True, exist_ok=True)
    planner = DefaultSavePlanner(dedup_save_to_lowest_rank=True)  # the other way draws who writes what
    writer = HuggingFaceStorageWriter(str(directory), save_distributed=True)
    with warnings.catch_warnings(), failure_told(directory):
        warnings.filterwarnings("ignore", message="torch.distributed is")
        if background and dist.is_initialized():
            return async_save(tensors, storage_writer=writer, process_group=group, planner=planner)
        save(tensors, storage_writer=writer, process_group=group, planner=planner, no_dist=not dist.is_initialized())
    return None


def settle_shards(directory: Path) -> None:
    """Sort the headers' metadata, which safetensors writes in the order of a hash map: equal state, equal bytes."""
    for path in sorted(directory.glob("*.safetensors")):
        with path.open("r+b") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
            for name, text in header.get("__metadata__", {}).items():
                if text.startswith("{"):
                    header["__metadata__"][name] = json.dumps(json.loads(text), sort_keys=True)
            settled = json.dumps(header, separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode()
            assert len(settled) <= size
            stream.seek(8)
            stream.write(settled.ljust(size))


def read_shards(
    parameters: Mapping[str, nn.Parameter], divisions: Mapping[str, Division], directory: Path
) -> dict[str, torch.Tensor]:
    """The state of an optimizer by `key.name`, sharded as its parameters are, or by rows where they are divided."""
    found = HuggingFaceStorageReader(str(directory)).read_metadata().state_dict_metadata
    tensors: dict[str, torch.Tensor] = {}
    for full_name, row in found.items():
        size = torch.Size(getattr(row, "size"))  # noqa: B009
        name = full_name.partition(".")[2]
        place = parameters[name]
        if size and name in divisions:
            tensors[full_name] = by_rows(torch.zeros(size, device=place.device))
        else:
            tensors[full_name] = torch.zeros_like(place.detach()) if size == place.shape else torch.zeros(size)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is")
        reader = HuggingFaceStorageReader(str(directory))
        load(tensors, storage_reader=reader, no_dist=not dist.is_initialized())
    return tensors

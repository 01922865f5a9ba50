"""Moments written and read by all ranks, each its part: torch's distributed checkpoint (DCP) as safetensors.

The header of each file says which part of which tensor is in it, so any number of ranks can read what another number
wrote. DCP's own `.metadata`, a pickle, is neither written nor read. A file by itself, since importing DCP takes long.
"""

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

from ..parallel import ShardSpec, by_rows

__all__ = ["as_os_error", "begin_shards", "read_shards", "sort_headers"]


@contextmanager
def as_os_error(directory: Path) -> Iterator[None]:
    """Turn torch's own exception into the one that writing a file raises.

    Raises: OSError: of the first rank that failed.
    """
    try:
        yield
    except CheckpointException as error:
        rank, (cause, _) = min(error.failures.items())
        raise OSError(f"{directory}: not written by rank {rank} ({cause})") from error


def begin_shards(tensors: dict[str, torch.Tensor], directory: Path, group: Any, *, background: bool) -> Any:
    """Write a directory together with all ranks; in the background, from a copy, returns a future to wait for."""
    directory.mkdir(parents=True, exist_ok=True)
    planner = DefaultSavePlanner(dedup_save_to_lowest_rank=True)  # by default the writer of each part is random
    writer = HuggingFaceStorageWriter(str(directory), save_distributed=True)
    with warnings.catch_warnings(), as_os_error(directory):
        warnings.filterwarnings("ignore", message="torch.distributed is")
        if background and dist.is_initialized():
            return async_save(tensors, storage_writer=writer, process_group=group, planner=planner)
        save(tensors, storage_writer=writer, process_group=group, planner=planner, no_dist=not dist.is_initialized())
    return None


def sort_headers(directory: Path) -> None:
    """Sort the headers' metadata, which safetensors writes in hash-map order, so that equal states have equal bytes."""
    for path in sorted(directory.glob("*.safetensors")):
        with path.open("r+b") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
            for name, text in header.get("__metadata__", {}).items():
                if text.startswith("{"):
                    header["__metadata__"][name] = json.dumps(json.loads(text), sort_keys=True)
            sorted_header = json.dumps(header, separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode()
            assert len(sorted_header) <= size
            stream.seek(8)
            stream.write(sorted_header.ljust(size))


def read_shards(
    parameters: Mapping[str, nn.Parameter], specs: Mapping[str, ShardSpec], directory: Path
) -> dict[str, torch.Tensor]:
    """The optimizer's state by `key.name`, sharded like its parameters, or by rows if tensor groups divide them."""
    found = HuggingFaceStorageReader(str(directory)).read_metadata().state_dict_metadata
    tensors: dict[str, torch.Tensor] = {}
    for full_name, row in found.items():
        size = torch.Size(getattr(row, "size"))  # noqa: B009
        name = full_name.partition(".")[2]
        parameter = parameters[name]
        if size and name in specs:
            tensors[full_name] = by_rows(torch.zeros(size, device=parameter.device))
        else:
            tensors[full_name] = torch.zeros_like(parameter.detach()) if size == parameter.shape else torch.zeros(size)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is")
        reader = HuggingFaceStorageReader(str(directory))
        load(tensors, storage_reader=reader, no_dist=not dist.is_initialized())
    return tensors

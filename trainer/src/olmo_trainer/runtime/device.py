"""The device of a run and what makes its results repeatable."""

from __future__ import annotations

import ctypes
import os
from typing import Any, Literal, NamedTuple

import numpy.typing as npt
import torch

from ..config.errors import ConfigError, Problem
from ..config.schema import TrainConfig
from ..data.sources import Batch

__all__ = [
    "TensorBatch",
    "capture_random",
    "keep_freed_memory",
    "prepare",
    "resolve_device",
    "resolve_threads",
    "restore_random",
    "tensors_of",
]


def resolve_device(train: TrainConfig, where: str) -> Literal["cpu", "cuda"]:
    """`cpu` or `cuda`.

    Raises: ConfigError: CUDA is asked for and there is none.
    """
    if train.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if train.device == "cuda" and not torch.cuda.is_available():
        message = f'{where}: "train.device" is "cuda", which torch does not see here; expected "cpu" or "auto"'
        raise ConfigError(Problem(message, "set train.device=auto"))
    return train.device


def resolve_threads(train: TrainConfig, begun: dict[str, Any]) -> int:
    """The number of CPU threads: as asked, else as the run was begun with, else all of the machine."""
    before: int | None = begun.get("train", {}).get("num_threads")
    return train.num_threads or before or os.cpu_count() or 1


def prepare(device: str, threads: int, seed: int, local_rank: int = 0) -> torch.device:
    """Set threads, seeds and, on the CPU, deterministic kernels (on CUDA they cost speed).

    `threads` are shared by the ranks of a machine; each has a GPU of its own.
    """
    if device == "cpu":
        keep_freed_memory()
    torch.set_num_threads(max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(device == "cpu")
    # filling every new tensor would cost a write and change no result
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("highest")
    return torch.device("cuda", local_rank) if device == "cuda" else torch.device("cpu")


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for what is wanted next: mallopt(3). Another C library is left as it is.

    By default a large tensor's memory goes back to the kernel at once, and the next step waits for the same pages to be
    given out and filled with zeros again: a tenth of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: no allocation has a mapping of its own
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: the heap's end is not given back


def capture_random(device: torch.device) -> dict[str, torch.Tensor]:
    """States of torch's generators."""
    states = {"torch_cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["torch_cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random(device: torch.device, states: dict[str, torch.Tensor]) -> None:
    """Put back what `capture_random` gave; a CUDA state is for CUDA alone."""
    torch.set_rng_state(states["torch_cpu"])
    if device.type == "cuda" and "torch_cuda" in states:
        torch.cuda.set_rng_state(states["torch_cuda"], device)


class TensorBatch(NamedTuple):
    """A batch as the step takes it; in pinned memory where it goes to CUDA."""

    tokens_BT: torch.Tensor
    counted_BT: torch.Tensor | None
    document_ids_BT: torch.Tensor | None
    masked_instances: int


def tensors_of(batch: Batch, device: torch.device) -> TensorBatch:
    """A batch as tensors on the CPU, from which a copy to the device need not be waited for."""

    def tensor(array: npt.NDArray[Any] | None) -> torch.Tensor | None:
        if array is None:
            return None
        made = torch.from_numpy(array)
        if device.type != "cuda":
            return made
        with torch.cuda.device(device):  # each thread has a current device of its own, the first by default
            return made.pin_memory()

    tokens_BT = tensor(batch.tokens_BT)
    assert tokens_BT is not None
    return TensorBatch(tokens_BT, tensor(batch.counted_BT), tensor(batch.document_ids_BT), batch.masked_instances)

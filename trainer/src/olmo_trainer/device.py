"""The device of a run: choosing it, what makes its results repeatable, batches on it, and its peak rate."""

import ctypes
import os
import time
from typing import Any, Literal, NamedTuple

import numpy.typing as npt
import torch

from .config.schema import TrainConfig
from .data.sources import Batch
from .settings import SettingError

__all__ = [
    "TensorBatch",
    "capture_random",
    "matmul_peak",
    "peak_flops",
    "prepare",
    "resolve_device",
    "resolve_threads",
    "restore_random",
    "tensors_of",
]


def resolve_device(train: TrainConfig) -> Literal["cpu", "cuda"]:
    """`cpu` or `cuda`."""
    if train.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if train.device == "cuda" and not torch.cuda.is_available():
        message = '"train.device" is "cuda", but torch finds no CUDA device; expected "cpu" or "auto"'
        raise SettingError(message, hint="set train.device=auto")
    return train.device


def resolve_threads(train: TrainConfig, begun: dict[str, Any]) -> int:
    """The number of CPU threads: as configured, else as at the run's beginning, else all of the machine."""
    before: int | None = begun.get("train", {}).get("num_threads")
    return train.num_threads or before or os.cpu_count() or 1


def prepare(device: str, threads: int, seed: int, local_rank: int = 0) -> torch.device:
    """Set threads, seeds and, on the CPU, deterministic kernels (on CUDA they cost speed).

    The ranks of a machine share `threads`; each has its own GPU.
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
    """Let glibc keep freed memory for the next allocation: mallopt(3). No effect with another C library.

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
    """Restore what `capture_random` returned; a CUDA state only on CUDA."""
    torch.set_rng_state(states["torch_cpu"])
    if device.type == "cuda" and "torch_cuda" in states:
        torch.cuda.set_rng_state(states["torch_cuda"], device)


class TensorBatch(NamedTuple):
    """A batch as a step takes it: on the CPU, in pinned memory if it goes to CUDA."""

    tokens_BT: torch.Tensor
    loss_mask_BT: torch.Tensor | None = None
    document_ids_BT: torch.Tensor | None = None
    masked_windows: int = 0


def tensors_of(batch: Batch, device: torch.device) -> TensorBatch:
    """A batch as CPU tensors that can be copied to the device without waiting."""

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
    return TensorBatch(tokens_BT, tensor(batch.loss_mask_BT), tensor(batch.document_ids_BT), batch.masked_windows)


# ---- peak rates

_PEAKS: tuple[tuple[str, float, float], ...] = (  # (part of the name, bfloat16, float32); the first that fits counts
    ("H100 PCIe", 756.0, 51.0),  # NVIDIA H100 data sheet, PCIe: 1513 with sparsity, FP32 51
    ("H100 NVL", 835.5, 60.0),  # NVIDIA H100 data sheet, NVL: 1671 with sparsity, FP32 60
    ("H100", 989.4, 67.0),  # NVIDIA H100 data sheet, SXM: 1979 with sparsity, FP32 67; architecture white paper: 989.4
    ("H200 NVL", 835.5, 60.0),  # NVIDIA H200 data sheet, NVL: 1671 with sparsity, FP32 60
    ("H200", 989.4, 67.0),  # NVIDIA H200 data sheet, SXM: 1979 with sparsity, FP32 67
    ("GH200", 989.4, 67.0),  # NVIDIA GH200 data sheet: 1979 with sparsity, FP32 67
    ("GB200", 2500.0, 80.0),  # NVIDIA Blackwell data sheet, GB200 NVL72, a GPU: 5000 with sparsity, FP32 80
    ("B200", 2250.0, 75.0),  # NVIDIA Blackwell data sheet, HGX B200, a GPU: 4500 with sparsity, FP32 75
    ("A100", 312.0, 19.5),  # NVIDIA A100 data sheet: 312, and 624 with sparsity; FP32 19.5
    ("L40S", 362.05, 91.6),  # NVIDIA L40S data sheet: 362.05, and 733 with sparsity; FP32 91.6
    ("L40", 181.05, 90.5),  # NVIDIA L40 data sheet: 181.05, and 362.1 with sparsity; FP32 90.5
    ("MI250X", 191.5, 47.85),  # AMD Instinct MI250X data sheet: bfloat16 383, FP32 matrix 95.7, for its two halves
    ("MI300X", 1307.4, 163.4),  # AMD Instinct MI300X data sheet: bfloat16 1307.4, FP32 matrix 163.4
    ("MI325X", 1307.4, 163.4),  # AMD Instinct MI325X data sheet: bfloat16 1307.4, FP32 matrix 163.4
)


def peak_flops(device_name: str, dtype: torch.dtype) -> float | None:
    """Peak FLOP/s of a device, by torch's name for it; None if unknown."""
    order = sorted(_PEAKS, key=lambda row: -len(row[0]))  # "GH200" before "H200"
    for part, bfloat16, float32 in order:
        if part.lower() in device_name.lower():
            return (bfloat16 if dtype == torch.bfloat16 else float32) * 1e12
    return None


def matmul_peak(device: torch.device, dtype: torch.dtype, *, size: int = 1024, seconds: float = 1.0) -> float:
    """FLOP/s of square matrix products: the best of those done in that many seconds."""
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < seconds:
        started = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best

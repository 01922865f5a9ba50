"""Peak rates of devices, for the model FLOPs utilisation. What is not in the table is unknown, never guessed.

Dense rates of the makers' data sheets, in units of 10¹² operations a second: half of a rate that is told with sparsity.
float32 is without TF32; AMD's is that of its matrix instructions. An AMD MI250X is two devices to torch, and its row is
for one of them.
"""

from __future__ import annotations

import time

import torch

__all__ = ["matmul_peak", "peak_flops"]

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
    """Operations a second that a device can do at most, by torch's name of it; None for one that is not known."""
    order = sorted(_PEAKS, key=lambda row: -len(row[0]))  # "GH200" before "H200"
    for part, bfloat16, float32 in order:
        if part.lower() in device_name.lower():
            return (bfloat16 if dtype == torch.bfloat16 else float32) * 1e12
    return None


def matmul_peak(device: torch.device, dtype: torch.dtype, *, size: int = 1024, seconds: float = 1.0) -> float:
    """Operations a second of square matrix products, the best of those done in so many seconds."""
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < seconds:
        started = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best

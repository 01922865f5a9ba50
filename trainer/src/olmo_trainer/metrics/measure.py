"""What is measured of a step, under OLMo's names: the row of metrics.jsonl, speed, energy, statistics of tensors."""

import logging
import math
import resource
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..config.schema import EnergyConfig, RunConfig
from ..device import TensorBatch, matmul_peak, peak_flops
from ..model.architecture import Architecture, flops_per_token
from ..model.transformer import Transformer
from ..optim import GatedOptimizer
from ..parallel import Ranks, is_shard
from ..parts import Parts
from ..progress import Progress
from ..step import StepSettings, StepStats

__all__ = ["Meter", "StepStatistics", "footprint"]

log = logging.getLogger(__name__)


# ---- the row of a step


class Meter:
    """Times and energy of every step, and the row of those that have one; only a row waits for the device."""

    def __init__(self, config: RunConfig, parts: Parts, *, carried: dict[str, Any]) -> None:
        self._parts = parts
        model, device = parts.model, parts.device
        gpu = device.index or 0 if device.type == "cuda" else None
        self._energy = EnergyMeter(config.energy, gpu_index=gpu, carried=carried, ranks=parts.gradients.ranks)
        self._speed = Speed(model.shape, device, model.compute_dtype, measure_peak=config.logging.measure_peak)

    def begin(self) -> None:
        """Start the clock of a step."""
        self._speed.begin()

    def end(self, batch: TensorBatch, settings: StepSettings, waited_s: float) -> None:
        """Stop the clock of a step that has no row."""
        self._parts.model.drop_router_statistics()
        self._stop(batch, settings, waited_s)

    def _stop(self, batch: TensorBatch, settings: StepSettings, waited_s: float) -> None:
        tokens = batch.tokens_BT.numel() // self._parts.model.tensor_parallel.size
        length = settings.sequence_length or batch.tokens_BT.shape[1]
        self._speed.end(tokens=tokens, sequence_length=length, waited_s=waited_s)
        self._energy.read()

    def row(
        self, progress: Progress, stats: StepStats, batch: TensorBatch, settings: StepSettings, waited_s: float
    ) -> dict[str, float]:
        """Stop the clock and return the row of a step, without validation and statistics."""
        parts = self._parts
        nats = float(stats.nats_per_token)
        tokens = progress.position * parts.data.sequence_length
        values = {
            "train/CrossEntropyLoss": nats,
            "train/Perplexity": math.exp(nats) if nats < 700 else math.inf,
            "optim/total_grad_norm": float(stats.grad_norm),
            "optim/clipping_rate": float(stats.clipping_rate),
            "optim/skipped_steps": progress.skipped_steps,
            "throughput/total_tokens": tokens,
            **parts.guard.values(),
        }
        self._stop(batch, settings, waited_s)
        values |= self._energy.values(tokens)
        for number, group in enumerate(parts.optimizer.param_groups):
            values[f"optim/learning_rate_group{number}"] = progress.learning_rate * group["rate_ratio"]
        if progress.rewinds:
            first, last = progress.skipped[-1]
            counts = {"rewinds": progress.rewinds, "left_out_first": first, "left_out_last": last}
            values |= {f"stability/{name}": count for name, count in counts.items()}
        if stats.z_loss is not None:
            values["train/ZLoss"] = float(stats.z_loss)
        if routers := parts.model.take_router_statistics(parts.gradients.ranks.sum):
            values["train/load balancing loss"] = float(routers["balance"])
            values["train/router Z loss"] = float(routers["z"])
            values["train/load imbalance"] = float(routers["imbalance"])
        values |= self._speed.values(total_tokens=tokens)
        if parts.data.window_filter is not None:
            masked = torch.tensor(batch.masked_windows)
            values["train/masked_instances"] = int(parts.gradients.ranks.sum_of_data(masked))
        return values


# ---- speed


class Speed:
    """`throughput/…` and `System/…` of a run on one device, since the last row; FLOPs as architecture.py counts them.

    The clock runs from `begin` to `end` of each step: validation, logging and saving are not counted.
    """

    def __init__(self, shape: Architecture, device: torch.device, dtype: torch.dtype, *, measure_peak: bool) -> None:
        self._shape, self._device = shape, device
        self._length = self._steps = self._tokens = self._flops = 0
        self._elapsed_s = self._waited_s = self._begun = 0.0
        self._peak: float | None = None
        if device.type == "cuda":
            name = torch.cuda.get_device_name(device)
            self._peak = peak_flops(name, dtype)
            if self._peak is None and not measure_peak:
                log.warning("peak FLOPs of %s are unknown: no MFU (logging.measure_peak measures them)", name)
        if self._peak is None and measure_peak:
            self._peak = matmul_peak(device, dtype)
            log.info("measured peak of matrix products: %.3g FLOP/s", self._peak)

    def begin(self) -> None:
        """Start the clock."""
        self._begun = time.monotonic()

    def end(self, *, tokens: int, sequence_length: int, waited_s: float) -> None:
        """Stop the clock after a step on this device's `tokens`."""
        self._elapsed_s += time.monotonic() - self._begun
        self._waited_s += waited_s
        self._steps += 1
        self._tokens += tokens
        self._length = sequence_length
        self._flops += flops_per_token(self._shape, sequence_length) * tokens

    def values(self, *, total_tokens: int) -> dict[str, float]:
        """The numbers of the steps since the last call; `total_tokens` are those of the run."""
        total_gflops = flops_per_token(self._shape, self._length) * total_tokens / 1e9
        values = {
            "throughput/total_training_Gflops": total_gflops,
            "throughput/total_training_log_Gflops": math.log(total_gflops),
            "throughput/device/tokens_per_second": self._tokens / self._elapsed_s,
            "throughput/device/batches_per_second": self._steps / self._elapsed_s,
            "throughput/device/data_loading_percent": 100 * self._waited_s / self._elapsed_s,
        }
        if self._peak is not None:
            values["throughput/device/MFU"] = 100 * self._flops / self._elapsed_s / self._peak
        if self._device.type == "cuda":
            values["System/Peak GPU Memory (MB)"] = torch.cuda.max_memory_allocated(self._device) / 1e6
        else:  # Linux counts in KiB
            values["System/Peak Memory (MB)"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        self._steps = self._tokens = self._flops = 0
        self._elapsed_s = self._waited_s = 0.0
        return values


# ---- energy

_POWERCAP = Path("/sys/class/powercap")


_NAMES = ("energy/cpu_joules", "energy/gpu_joules", "energy/declared_joules")


def footprint(joules: float, pue: float, grid_kg_per_kwh: float | None) -> dict[str, float]:
    """Energy of the machines and of their data centre, and the carbon of the latter (arXiv 2402.00838, section 5).

    CO₂e[kg] = kWh · PUE · kg/kWh. The paper's 239 MWh are before PUE, its tonnes after; both are reported here.
    """
    machines = joules / 3.6e6
    values = {"energy/kWh_machines": machines, "energy/kWh_data_center": machines * pue}
    if grid_kg_per_kwh is not None:
        values["energy/kgCO2e"] = machines * pue * grid_kg_per_kwh
    return values


class _Rapl:
    """One processor package's counter of microjoules, which wraps around."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "energy_uj"
        self._range = int((directory / "max_energy_range_uj").read_text())
        self._last = int(self._path.read_text())

    def joules(self) -> float:
        now = int(self._path.read_text())
        used, self._last = (now - self._last) % self._range, now
        return used / 1e6


class _Nvml:
    """The millijoule counter of the GPU in use."""

    def __init__(self, index: int) -> None:
        import pynvml

        pynvml.nvmlInit()
        self._nvml: Any = pynvml
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        self._last = pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)

    def joules(self) -> float:
        now = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        used, self._last = now - self._last, now
        return float(used) / 1e3


class _Declared:
    def __init__(self, watts: float) -> None:
        self._watts, self._last = watts, time.monotonic()

    def joules(self) -> float:
        now = time.monotonic()
        used, self._last = (now - self._last) * self._watts, now
        return used


class EnergyMeter:
    """Joules since the run began, over all ranks and restarts; `values` is empty if nothing can be read or is declared.

    Work lost by a kill or a rewind is counted. `carried` is the last row ever written.
    """

    def __init__(self, settings: EnergyConfig, *, gpu_index: int | None, carried: dict[str, Any], ranks: Ranks) -> None:
        self._settings, self._ranks = settings, ranks
        self._counters: list[tuple[str, _Rapl | _Nvml | _Declared]] = []
        first_here = ranks.local_rank == 0  # processors are counted once a machine
        for directory in sorted(_POWERCAP.glob("intel-rapl:[0-9]")) if _POWERCAP.is_dir() and first_here else ():
            try:
                self._counters.append(("energy/cpu_joules", _Rapl(directory)))
            except OSError:
                continue  # on many machines only root can read the counters
        if gpu_index is not None:
            try:
                self._counters.append(("energy/gpu_joules", _Nvml(gpu_index)))
            except Exception as error:
                if type(error).__module__.split(".")[0] not in ("pynvml", "builtins"):
                    raise
        if not self._counters and settings.declared_watts is not None and first_here:
            self._counters.append(("energy/declared_joules", _Declared(settings.declared_watts)))
        self._total = {name: float(carried.get(name) or 0.0) for name in _NAMES}
        self._unshared = dict.fromkeys(_NAMES, 0.0)
        self._is_read = bool(ranks.sum(torch.tensor(float(len(self._counters)))))

    def read(self) -> None:
        """Read this rank's counters: at every step, since some wrap around within an hour."""
        for name, counter in self._counters:
            self._unshared[name] += counter.joules()

    def values(self, tokens: int) -> dict[str, float]:
        """Cumulative joules by counter; of all counters the footprint, and joules per token of the run so far."""
        if not self._is_read:
            return {}
        self.read()
        used, self._unshared = self._unshared, dict.fromkeys(_NAMES, 0.0)
        everywhere = self._ranks.sum(torch.tensor(list(used.values()), dtype=torch.float64)).tolist()
        self._total = {name: self._total[name] + more for name, more in zip(_NAMES, everywhere, strict=True)}
        joules = sum(self._total.values())
        counted = {name: value for name, value in self._total.items() if value}
        spent = footprint(joules, self._settings.pue, self._settings.grid_kg_per_kwh)
        return {**counted, **spent, "energy/joules_per_token": joules / max(1, tokens)}


# ---- statistics of tensors


def _summary(tensor: torch.Tensor) -> torch.Tensor:
    """(−minimum, maximum, sum, sum of squares, elements) in float64; that of an empty tensor is neutral."""
    if not tensor.numel():
        return torch.tensor([-torch.inf, -torch.inf, 0, 0, 0], dtype=torch.float64, device=tensor.device)
    low, high = torch.aminmax(tensor)
    norm = torch.linalg.vector_norm(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))
    total = tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32))
    count = torch.full_like(norm, tensor.numel(), dtype=torch.float64)
    return torch.stack([-low.double(), high.double(), total.double(), norm.double().square(), count])


class StepStatistics:
    """Watches one step of a model: activations from now on, `tensors` before clipping, then `values`."""

    def __init__(self, model: Transformer, optimizer: GatedOptimizer) -> None:
        self._model, self._optimizer = model, optimizer
        self._found: dict[str, torch.Tensor] = {}
        self._elements: dict[str, int] = {}
        model.watch = self._activation

    def _activation(self, name: str, hidden_BTD: torch.Tensor) -> None:
        with torch.no_grad():
            new, old = _summary(hidden_BTD.detach()), self._found.get(f"activation/{name}")
            if old is not None:
                new = torch.cat([torch.maximum(new[:2], old[:2]), new[2:] + old[2:]])
            self._found[f"activation/{name}"] = new

    @torch.no_grad()
    def tensors(self) -> None:
        """Summarize gradients, weights and moments as they are now; activations are no longer watched."""
        self._model.watch = None
        for name, parameter in self._model.named_parameters():
            state = self._optimizer.state.get(parameter, {})
            kinds = {"grad": parameter.grad, "param": parameter}
            kinds |= {kind: state[kind] for kind in ("exp_avg", "exp_avg_sq") if kind in state}
            for kind, tensor in kinds.items():
                if tensor is None:
                    continue
                parts = self._model.tensor_parallel.size if name in self._model.shard_specs else 1
                self._elements[f"optim/{kind}/{name}"] = tensor.numel() * parts
                if is_shard(tensor):
                    tensor = tensor.to_local()
                self._found[f"optim/{kind}/{name}"] = _summary(tensor)

    def values(self) -> dict[str, float]:
        """The statistics of all names, over the tokens and shards of all ranks. Collective: all ranks call."""
        if not self._found:
            return {}
        table_N5 = torch.stack(list(self._found.values()))
        if torch.distributed.is_initialized():
            extremes_N2, sums_N3 = table_N5[:, :2].contiguous(), table_N5[:, 2:].contiguous()
            torch.distributed.all_reduce(extremes_N2, torch.distributed.ReduceOp.MAX)
            torch.distributed.all_reduce(sums_N3)
            table_N5 = torch.cat([extremes_N2, sums_N3], dim=1)
        rows = zip(self._found, table_N5.tolist(), strict=True)
        return dict(_named(rows, self._elements, self._model.tensor_parallel.size))


def _named(
    rows: Iterable[tuple[str, list[float]]], elements: dict[str, int], tensor_ranks: int
) -> Iterable[tuple[str, float]]:
    for name, (negative_low, high, total, squares, count) in rows:
        copies = count / elements.get(name, count // tensor_ranks)  # of a tensor that is on several ranks
        yield f"{name}.min", -negative_low
        yield f"{name}.max", high
        yield f"{name}.avg", total / count
        yield f"{name}.norm", (squares / copies) ** 0.5

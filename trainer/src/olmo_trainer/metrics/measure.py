"""What is measured of a step, under OLMo's names: the row of metrics.jsonl, speed, energy, statistics of tensors."""

import logging
import math
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..config.schema import EnergyConfig, RunConfig
from ..device import TensorBatch, matmul_peak, peak_flops
from ..model.architecture import flops_per_token
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
    """Times and energy of every step, and the row of those that have one; only a row waits for the device.

    The clock runs from `begin` to `end` of each step: validation, logging and saving are not counted. Speed is that of
    the steps since the last row, on this device; FLOPs are counted as in architecture.py.
    """

    def __init__(self, config: RunConfig, parts: Parts, *, carried: dict[str, Any]) -> None:
        self._parts = parts
        device, dtype, measure_peak = parts.device, parts.model.compute_dtype, config.logging.measure_peak
        gpu = device.index or 0 if device.type == "cuda" else None
        self._energy = EnergyMeter(config.energy, gpu_index=gpu, carried=carried, ranks=parts.gradients.ranks)
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
        """Start the clock of a step."""
        self._begun = time.monotonic()

    def end(self, batch: TensorBatch, settings: StepSettings, waited_s: float) -> None:
        """Stop the clock of a step that has no row."""
        self._parts.model.drop_router_statistics()
        self._stop(batch, settings, waited_s)

    def _stop(self, batch: TensorBatch, settings: StepSettings, waited_s: float) -> None:
        model = self._parts.model
        tokens = batch.tokens_BT.numel() // model.tensor_parallel.size
        self._elapsed_s += time.monotonic() - self._begun
        self._waited_s += waited_s
        self._steps += 1
        self._tokens += tokens
        self._length = settings.sequence_length or batch.tokens_BT.shape[1]
        self._flops += flops_per_token(model.shape, self._length) * tokens
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
        values |= self._speed(tokens)
        if parts.data.window_filter is not None:
            masked = torch.tensor(batch.masked_windows)
            values["train/masked_instances"] = int(parts.gradients.ranks.sum_of_data(masked))
        return values

    def _speed(self, total_tokens: int) -> dict[str, float]:
        """`throughput/…` and `System/…`; `total_tokens` are those of the run."""
        device = self._parts.device
        total_gflops = flops_per_token(self._parts.model.shape, self._length) * total_tokens / 1e9
        values = {
            "throughput/total_training_Gflops": total_gflops,
            "throughput/total_training_log_Gflops": math.log(total_gflops),
            "throughput/device/tokens_per_second": self._tokens / self._elapsed_s,
            "throughput/device/batches_per_second": self._steps / self._elapsed_s,
            "throughput/device/data_loading_percent": 100 * self._waited_s / self._elapsed_s,
        }
        if self._peak is not None:
            values["throughput/device/MFU"] = 100 * self._flops / self._elapsed_s / self._peak
        if device.type == "cuda":
            values["System/Peak GPU Memory (MB)"] = torch.cuda.max_memory_allocated(device) / 1e6
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


class _Counter:
    """Joules since they were last asked for, from a counter that rises and may wrap around."""

    def __init__(self, read: Callable[[], float], joules_per_unit: float, wraps_at: float = math.inf) -> None:
        self._read, self._unit, self._wraps_at, self._last = read, joules_per_unit, wraps_at, read()

    def joules(self) -> float:
        now = self._read()
        used, self._last = (now - self._last) % self._wraps_at, now
        return used * self._unit


def _rapl(directory: Path) -> _Counter:
    """One processor package's counter of microjoules."""
    wraps_at = int((directory / "max_energy_range_uj").read_text())
    return _Counter(lambda: int((directory / "energy_uj").read_text()), 1e-6, wraps_at)


def _nvml(index: int) -> _Counter:
    """The millijoule counter of the GPU in use."""
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return _Counter(lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)), 1e-3)


class EnergyMeter:
    """Joules since the run began, over all ranks and restarts; `values` is empty if nothing can be read or is declared.

    Work lost by a kill or a rewind is counted. `carried` is the last row ever written.
    """

    def __init__(self, settings: EnergyConfig, *, gpu_index: int | None, carried: dict[str, Any], ranks: Ranks) -> None:
        self._settings, self._ranks = settings, ranks
        self._counters: list[tuple[str, _Counter]] = []
        first_here = ranks.local_rank == 0  # processors are counted once a machine
        for directory in sorted(_POWERCAP.glob("intel-rapl:[0-9]")) if _POWERCAP.is_dir() and first_here else ():
            try:
                self._counters.append(("energy/cpu_joules", _rapl(directory)))
            except OSError:
                continue  # on many machines only root can read the counters
        if gpu_index is not None:
            try:
                self._counters.append(("energy/gpu_joules", _nvml(gpu_index)))
            except Exception as error:
                if type(error).__module__.split(".")[0] not in ("pynvml", "builtins"):
                    raise
        if not self._counters and settings.declared_watts is not None and first_here:
            self._counters.append(("energy/declared_joules", _Counter(time.monotonic, settings.declared_watts)))
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
        values: dict[str, float] = {}
        for name, row in zip(self._found, table_N5.tolist(), strict=True):
            negative_low, high, total, squares, count = row
            # of a tensor that is on several ranks
            copies = count / self._elements.get(name, count // self._model.tensor_parallel.size)
            values |= {f"{name}.min": -negative_low, f"{name}.max": high}
            values |= {f"{name}.avg": total / count, f"{name}.norm": (squares / copies) ** 0.5}
        return values

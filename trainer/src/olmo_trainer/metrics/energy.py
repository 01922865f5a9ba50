"""Energy used: RAPL for the processor, NVML for the GPU, else a declared wattage, else nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

__all__ = ["EnergyMeter"]

_POWERCAP = Path("/sys/class/powercap")


class _Rapl:
    """One processor package's counter of microjoules, which wraps round."""

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
    """Joules since the run began, restarts included; `values` is empty where nothing can be read or was declared."""

    def __init__(self, declared_watts: float | None, *, gpu_index: int | None, carried: dict[str, Any]) -> None:
        self._counters: list[tuple[str, _Rapl | _Nvml | _Declared]] = []
        for directory in sorted(_POWERCAP.glob("intel-rapl:[0-9]")) if _POWERCAP.is_dir() else ():
            try:
                self._counters.append(("energy/cpu_joules", _Rapl(directory)))
            except OSError:
                continue  # counters are readable by root alone on many machines
        if gpu_index is not None:
            try:
                self._counters.append(("energy/gpu_joules", _Nvml(gpu_index)))
            except Exception as error:
                if type(error).__module__.split(".")[0] not in ("pynvml", "builtins"):
                    raise
        if not self._counters and declared_watts is not None:
            self._counters.append(("energy/declared_joules", _Declared(declared_watts)))
        self._total = {name: float(carried.get(name) or 0.0) for name, _ in self._counters}

    def values(self, tokens: int) -> dict[str, float]:
        """Cumulative joules by counter, and joules per token of all of them together."""
        for name, counter in self._counters:
            self._total[name] += counter.joules()
        if not self._total:
            return {}
        return {**self._total, "energy/joules_per_token": sum(self._total.values()) / max(1, tokens)}

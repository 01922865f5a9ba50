"""What a run writes, where and how often. Plain data: no defaults are worked out here, no files are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .findings import Finding, more_than_zero, zero_or_more

__all__ = ["CheckpointConfig", "EnergyConfig", "LoggingConfig", "WandbConfig", "problems"]


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state is saved."""

    every_steps: int | None = None
    """Also within the run, not only at the end."""
    keep_last: int | None = None
    """How many checkpoints to keep beside those that are pinned; all when null."""
    pin: tuple[int, ...] = ()
    """Steps whose checkpoints are never deleted."""
    pin_every_steps: int | None = None
    """Checkpoints of multiples of so many steps are never deleted either."""
    sharded: bool = False
    """Whether each rank writes its part of the optimizer's moments, instead of the first gathering them."""
    background: bool = False
    """Whether files are written while training goes on; takes a copy of the state in memory."""
    remote: str | None = None
    """Where whole checkpoints are copied to after they are written: a URL that fsspec knows, as "s3://bucket/run". A
    run whose directory has no checkpoint goes on from the newest whole one there."""


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """What is written while training."""

    metrics_every_steps: int = 1
    """Steps between rows of metrics.jsonl; what is saved or scored has its row too."""
    statistics_every_steps: int | None = 50
    """Steps between rows with the least, greatest and mean value and the norm of every weight, gradient, moment and
    block's output; never when null."""
    measure_peak: bool = False
    """Whether to measure the device's rate of matrix products, for MFU, where its peak is not known: a second."""
    tensorboard: bool = False
    """Whether to write the metrics for TensorBoard too, to `tensorboard/`; needs the extra `tensorboard`."""
    console_every_s: float = 10.0
    """Seconds between lines on the console."""


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Weights & Biases, an optional second place for the metrics."""

    enabled: bool = False
    """Needs the extra `wandb`."""
    project: str = "olmo-trainer"
    """Project name."""
    name: str | None = None
    """Run name."""
    mode: Literal["offline", "online"] = "offline"
    """`offline` writes files only."""


@dataclass(frozen=True, kw_only=True)
class EnergyConfig:
    """Energy is read from RAPL and NVML where the machine has them, else reckoned from a declared wattage."""

    declared_watts: float | None = None
    """Power of each machine, where it cannot be read; a dry run knows one machine."""
    pue: float = 1.0
    """Power usage effectiveness: what the data centre takes over what its machines take."""
    grid_kg_per_kwh: float | None = None
    """Carbon dioxide equivalents of the grid's energy; nothing is said of carbon when null."""


def problems(checkpoint: CheckpointConfig, logging: LoggingConfig, energy: EnergyConfig) -> list[Finding]:
    """What is wrong with the groups `checkpoint`, `logging` and `energy` by themselves."""
    found = more_than_zero(
        {
            "checkpoint.every_steps": checkpoint.every_steps,
            "checkpoint.keep_last": checkpoint.keep_last,
            "checkpoint.pin_every_steps": checkpoint.pin_every_steps,
            "logging.metrics_every_steps": logging.metrics_every_steps,
            "logging.statistics_every_steps": logging.statistics_every_steps,
            "logging.console_every_s": logging.console_every_s,
            "energy.declared_watts": energy.declared_watts,
        }
    )
    found += zero_or_more({"energy.grid_kg_per_kwh": energy.grid_kg_per_kwh or 0.0})
    if energy.pue < 1:
        found.append(("energy.pue", energy.pue, "1.0 or more", None))
    return found

"""The cost of monitoring: seconds for judging steps, statistics, rows and console lines in `olmo train`'s own loop."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from olmo_trainer.metrics.measure import Meter, StepStatistics
from olmo_trainer.metrics.record import Console, MetricsFile
from olmo_trainer.stability import Guard

_STATISTICS = [(StepStatistics, "_activation"), (StepStatistics, "tensors"), (StepStatistics, "values")]
_EVERY_STEP = [(Guard, "judge"), (Meter, "row"), (MetricsFile, "write"), (Console, "step")]


class Watched:
    """Seconds by kind of work: `statistics` (of the steps that are looked at) and `every step`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def take_times(self, loop: ModuleType) -> None:
        """Time all monitoring of a loop from now on."""
        for kind, places in (("statistics", _STATISTICS), ("every step", _EVERY_STEP)):
            for owner, name in places:
                setattr(owner, name, self._timed(getattr(owner, name), kind))
        for name in ("handle_bad_step", "slow_rise"):
            setattr(loop, name, self._timed(getattr(loop, name), "every step"))

    def _timed(self, work: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            begun, before = time.perf_counter(), sum(self.seconds.values())
            try:
                return work(*arguments, **named)
            finally:  # what is timed within it counts once
                within = sum(self.seconds.values()) - before
                self.seconds[kind] += time.perf_counter() - begun - within

        return timed


def without_monitoring(loop: ModuleType) -> None:
    """A loop that judges no step and writes nothing."""
    yes, no = torch.tensor(True), torch.tensor(False)
    Guard.judge = lambda *_: (yes, no)  # type: ignore[method-assign]
    for owner, name in ((MetricsFile, "write"), (Console, "step")):
        setattr(owner, name, lambda *_, **__: {})
    Meter.row = lambda *_: {"stability/slow_rise": 0.0}  # type: ignore[method-assign]
    loop.handle_bad_step = lambda *_: None

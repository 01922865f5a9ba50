"""Everything that a run works with; build.py makes it."""

from dataclasses import dataclass

import torch

from .data.order import BatchSchedule
from .data.sources import TrainingData
from .evaluation import TaskSet, ValidationSet
from .step import Learner

__all__ = ["Parts"]


@dataclass(frozen=True, kw_only=True)
class Parts(Learner):
    """What a step changes, and what it works on."""

    device: torch.device
    data: TrainingData
    batches: BatchSchedule
    validation: ValidationSet | None
    tasks: list[TaskSet]

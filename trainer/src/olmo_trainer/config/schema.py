"""Every setting of a run; the groups stand in sections/."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .sections.data import DataConfig, InstanceFilterConfig, LoaderConfig, SourceConfig, TokenDtype
from .sections.evaluation import TaskConfig, ValidationConfig
from .sections.model import Family, InitConfig, ModelConfig, RopeScalingConfig
from .sections.optimizer import GroupConfig, OptimizerConfig, ScheduleConfig
from .sections.outputs import CheckpointConfig, EnergyConfig, LoggingConfig, WandbConfig
from .sections.stability import StabilityConfig
from .sections.training import BatchPhase, LengthPhase, ParallelConfig, TrainConfig

__all__ = [
    "BatchPhase",
    "CheckpointConfig",
    "DataConfig",
    "EnergyConfig",
    "Family",
    "GroupConfig",
    "InitConfig",
    "InstanceFilterConfig",
    "LengthPhase",
    "LoaderConfig",
    "LoggingConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "RopeScalingConfig",
    "RunConfig",
    "ScheduleConfig",
    "SourceConfig",
    "StabilityConfig",
    "TaskConfig",
    "TokenDtype",
    "TrainConfig",
    "ValidationConfig",
    "WandbConfig",
]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run: the whole of a YAML file."""

    run_directory: str
    """Where everything of the run is written."""
    model: ModelConfig
    data: DataConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    seed: int = 0
    """Of initial weights and data order."""
    init_from: str | None = None
    """Checkpoint to begin from; `model` is then taken from its config.json."""
    init_tokenizer: Literal["same", "other"] = "same"
    """Whether `init_from` must have the shards' tokenizer; `other` starts from a model to which the ids mean other
    tokens."""
    init_moments: bool = False
    """Whether to begin with its optimizer's moments too, which its `training/` holds."""
    anneal: str | None = None
    """Checkpoint to begin from such that its learning rate falls to 0 in a straight line. Sets `init_from`,
    `init_moments`, `optimizer.learning_rate` and `schedule`, where they are not given."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    stability: StabilityConfig = field(default_factory=StabilityConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)

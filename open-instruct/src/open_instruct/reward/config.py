"""The settings of `open-instruct reward`, with their defaults. No torch here."""

from dataclasses import dataclass, field

from ..config import (
    LoraSettings,
    OptimizerSettings,
    PairDataSettings,
    RuntimeSettings,
    SequenceSettings,
    TemplateSettings,
    TrainingSettings,
    _problems,
)
from ..formats.contract import Problem
from ..settings import LocalPath

__all__ = ["RewardConfig", "RewardLoss"]


@dataclass(frozen=True, kw_only=True)
class RewardLoss:
    """The loss of a pair, −ln σ(r_chosen − r_rejected − margin) (Llama 2, arXiv:2307.09288, equation 2)."""

    use_margins: bool = True
    """Use the `margin` of each row that has one; other rows have 0."""
    center_coefficient: float = 0.0
    """Weight of (r_chosen + r_rejected)², which keeps rewards near 0 (arXiv:2312.09244, section 4.1)."""


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """`open-instruct reward`."""

    model: LocalPath
    """Checkpoint directory to start from, the result of `sft`; the output matrix becomes a score."""
    output_dir: LocalPath
    """Directory for the reward model; must not exist, unless it contains the result of the same settings."""
    seed: int = 0
    """Seed of the order of rows, of the score's first weights, of adapters and of dropout."""
    data: PairDataSettings
    template: TemplateSettings = field(default_factory=TemplateSettings)
    sequence: SequenceSettings = field(default_factory=lambda: SequenceSettings(too_long="drop"))
    loss: RewardLoss = field(default_factory=RewardLoss)
    optimizer: OptimizerSettings = field(default_factory=lambda: OptimizerSettings(learning_rate=1e-5))
    training: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(num_epochs=1.0, batch_sequences=64, micro_batch_sequences=4)
    )
    lora: LoraSettings | None = None
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)

    def problems(self) -> list[Problem]:
        """List the problems that the types of single fields do not show."""
        found = _problems(self)
        if self.sequence.packing:
            found.append(Problem('"sequence.packing" is true; expected false, pairs are not packed'))
        if self.loss.center_coefficient < 0:
            found.append(Problem(f'"loss.center_coefficient" is {self.loss.center_coefficient}; expected 0 or more'))
        return found

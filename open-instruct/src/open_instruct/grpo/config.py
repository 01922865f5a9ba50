"""The settings of `open-instruct grpo`, with their defaults. No torch here."""

from dataclasses import dataclass, field
from typing import Literal

from ..config import (
    DataSettings,
    LoraSettings,
    OptimizerSettings,
    RuntimeSettings,
    SequenceSettings,
    TemplateSettings,
    TrainingSettings,
    _problems,
)
from ..formats.contract import Problem
from ..settings import LocalPath

__all__ = ["AnswerSettings", "GrpoConfig", "GrpoLoss"]


@dataclass(frozen=True, kw_only=True)
class AnswerSettings:
    """The answers that are drawn, scored and learnt from."""

    per_prompt: int = 8
    """Answers to each prompt of a batch; their rewards are compared with each other."""
    max_new_tokens: int = 256
    """Longest answer, in tokens."""
    temperature: float = 1.0
    """Sampling temperature."""
    top_p: float = 1.0
    """Sample from the most likely tokens whose probabilities sum to this."""
    use_vllm: bool = False
    """Draw answers with vLLM (on a GPU; the package vllm must be installed)."""
    vllm_mode: Literal["colocate", "server"] = "colocate"
    """colocate: vLLM in this process; server: a running `trl vllm-serve`."""
    vllm_server_base_url: str | None = None
    """Address of the server; null: TRL's default."""
    vllm_gpu_memory_utilization: float = 0.3
    """Share of the GPU's memory for vLLM in this process."""


@dataclass(frozen=True, kw_only=True)
class GrpoLoss:
    """Group relative policy optimization (Shao et al. 2024, arXiv:2402.03300, section 4.1) and its variants, by TRL."""

    kind: Literal["dapo", "grpo", "bnpo", "dr_grpo", "cispo"] = "dapo"
    """dapo: mean over all tokens of a batch (arXiv:2503.14476); grpo: over each answer; dr_grpo: arXiv:2503.20783."""
    beta: float = 0.0
    """Strength of the constraint to stay near the reference model; 0: no reference model."""
    epsilon: float = 0.2
    """The ratio of probabilities is clipped to 1 − epsilon …"""
    epsilon_high: float | None = None
    """… and 1 + this; null: epsilon."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Divide rewards by their standard deviation in the prompt's answers, in the batch, or not at all."""
    num_iterations: int = 1
    """Optimizer steps with the same answers."""
    mask_truncated: bool = False
    """Learn nothing from answers that did not end."""


@dataclass(frozen=True, kw_only=True)
class GrpoConfig:
    """`open-instruct grpo`."""

    model: LocalPath
    """Checkpoint directory to start from, the result of `sft`."""
    output_dir: LocalPath
    """Directory for the new checkpoint; must not exist, unless it contains the result of the same settings."""
    seed: int = 0
    """Seed of the order of prompts, of answers, of adapters and of dropout."""
    data: DataSettings
    """Prompts with a verifier and its truth (docs/formats/chat.md)."""
    template: TemplateSettings = field(default_factory=TemplateSettings)
    sequence: SequenceSettings = field(default_factory=SequenceSettings)
    answers: AnswerSettings = field(default_factory=AnswerSettings)
    loss: GrpoLoss = field(default_factory=GrpoLoss)
    optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(learning_rate=1e-6, schedule="constant", warmup_fraction=0.0)
    )
    training: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(num_epochs=1.0, batch_sequences=64, micro_batch_sequences=8)
    )
    lora: LoraSettings | None = None
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)

    def problems(self) -> list[Problem]:
        """List the problems that the types of single fields do not show."""
        found = _problems(self)
        answers, loss = self.answers, self.loss
        if self.sequence.packing:
            found.append(Problem('"sequence.packing" is true; expected false, answers are not packed'))
        if self.training.group_by_length:
            found.append(Problem('"training.group_by_length" is true; expected false, the order of prompts is TRL\'s'))
        if answers.per_prompt < 2:
            found.append(Problem(f'"answers.per_prompt" is {answers.per_prompt}; expected 2 or more'))
        elif self.training.batch_sequences % answers.per_prompt:
            found.append(
                Problem(
                    f'"training.batch_sequences" is {self.training.batch_sequences} with {answers.per_prompt} answers '
                    "to each prompt; expected a multiple"
                )
            )
        for name, value, is_right, expected in (
            ("answers.max_new_tokens", answers.max_new_tokens, answers.max_new_tokens >= 1, "1 or more"),
            ("answers.temperature", answers.temperature, answers.temperature > 0, "a number above 0"),
            ("answers.top_p", answers.top_p, 0 < answers.top_p <= 1, "a number above 0 and at most 1"),
            ("loss.beta", loss.beta, loss.beta >= 0, "0 or more"),
            ("loss.epsilon", loss.epsilon, 0 < loss.epsilon < 1, "a number between 0 and 1"),
            ("loss.num_iterations", loss.num_iterations, loss.num_iterations >= 1, "1 or more"),
        ):
            if not is_right:
                found.append(Problem(f'"{name}" is {value}; expected {expected}'))
        return found

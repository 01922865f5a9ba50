"""What a run declares about its evaluation and training: the file of `--controls`.

Declarations are shown, never believed: tiers follow from evidence (tiers.py). The guidelines are those of Paloma
(arXiv:2312.10523): decontaminate the training data, fix its order, subsample the evaluation data evenly, fix the
vocabulary, format the evaluation documents one by one.
"""

from dataclasses import dataclass, field
from typing import Literal

from paloma.formats.contract import Problem

__all__ = ["PALOMA_VOCABULARY_SHA256", "Controls", "Suite", "Training"]

# tokenizer.json of allenai/gpt-neox-olmo-dolma-v1_5: GPT-NeoX-20B and three tokens for masked personal data, the
# vocabulary that Paloma fixes
PALOMA_VOCABULARY_SHA256 = "9ad33b4b39a9f83973c3f8c42a01948dd5b877a28ac9a5356956c4ff4ed0b714"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The evaluation data."""

    name: str = ""
    version: str = ""
    split: str = ""
    subsample: Literal["official", "custom"] = "custom"
    """`official`, the suite's own sample, or `custom`."""
    documents_sha256: str | None = None
    """Identity (sha256 of the manifest) of the documents; looked up among the inputs of the results."""
    vocabulary_sha256: str | None = PALOMA_VOCABULARY_SHA256
    """sha256 of the `tokenizer.json` that the suite fixes; null where it fixes none."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the model was made."""

    tokens_seen: int | None = None
    schedule_fraction: float | None = None
    """Of the learning-rate schedule; below 1 the checkpoint is an intermediate one."""
    decontamination: Literal["full", "partial", "none"] = "none"
    """`full`, `partial` or `none`: of the training data against the suite."""
    decontamination_filter_sha256: str | None = None
    removal_rate: float | None = None
    """Share of training documents that decontamination removed."""
    order_fixed: bool = False
    """Whether the order of the training data is the one that the compared models share."""


@dataclass(frozen=True, kw_only=True)
class Controls:
    """A declaration; what it does not mention counts as not done."""

    suite: Suite = field(default_factory=Suite)
    training: Training = field(default_factory=Training)

    def problems(self) -> list[Problem]:
        """Values out of range."""
        found = []
        for name in ("removal_rate", "schedule_fraction"):
            value = getattr(self.training, name)
            if value is not None and not 0 <= value <= 1:
                found.append(Problem(f'"training.{name}" is {value}; expected 0 to 1'))
        return found

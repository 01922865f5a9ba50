"""What no single field shows: values out of range and settings that contradict each other."""

from __future__ import annotations

import math

from .errors import ConfigError, Problem
from .schema import RunConfig
from .sections import data, evaluation, model, optimizer, outputs, stability, training
from .sections.findings import Finding

__all__ = ["check"]


def check(config: RunConfig, where: str) -> None:
    """Check ranges and contradictions.

    Raises: ConfigError: with every problem.
    """
    found = [
        *model.problems(config.model),
        *data.problems(config.data),
        *optimizer.problems(config.optimizer, config.schedule),
        *training.problems(config.train),
        *stability.problems(config.stability),
        *evaluation.problems(config.validation),
        *outputs.problems(config.checkpoint, config.logging, config.energy),
        *_contradictions(config),
    ]
    if found:
        raise ConfigError(
            *(Problem(f'{where}: "{key}" is {value}; expected {text}', hint) for key, value, text, hint in found)
        )


def _contradictions(config: RunConfig) -> list[Finding]:
    found: list[Finding] = []
    if not 0 <= config.seed < 2**32:
        found.append(("seed", config.seed, "0 to 4294967295", None))
    if any(sign in config.run_directory for sign in "*?"):
        found.append(("run_directory", config.run_directory, "one directory, not a pattern", None))
    if config.init_moments and config.init_from is None:
        found.append(("init_moments", "true", "false without init_from", None))
    if config.schedule.units == "steps" and config.schedule.warmup > (config.train.steps or math.inf):
        text = f"at most train.steps {config.train.steps}"
        found.append(("schedule.warmup", config.schedule.warmup, text, None))
    whole = config.data.sequence_length
    for index, phase in enumerate(config.train.length_warmup):
        if phase.sequence_length < 2 or whole % phase.sequence_length:
            key = f"train.length_warmup.{index}.sequence_length"
            found.append((key, phase.sequence_length, f"a divisor of data.sequence_length {whole}, 2 or more", None))
    return found

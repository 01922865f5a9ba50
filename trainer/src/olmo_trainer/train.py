"""The main path: a config in, a run directory with metrics and checkpoints out. Read it top to bottom.

    prepare → restore → for each step: read windows, step, measure, save → finish

Order of data, learning rate and initial weights are pure functions of the config and the step, so what a checkpoint
must hold to be continued exactly is weights, moments, the generators' states and four counters. The run directory:

    config.yaml       the resolved config
    order.json        what `olmo inspect` needs beside the shards
    metrics.jsonl     a row a step
    checkpoints/      step-<n>, each in Hugging Face layout with what continues it in training/
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .build import (
    Parts,
    artifact_config,
    artifact_inputs,
    begin,
    build_parts,
    kept_from,
    last_step,
    open_loader,
    resolve,
)
from .checkpoint.mirror import take_back
from .checkpoint.run_state import Saver, load_run
from .checkpoint.save import Progress, clear_unfinished, remove, step_directories
from .config.schema import RunConfig
from .data.batches import BatchPlan
from .data.order_manifest import keep_left_out, keep_order
from .data.sources import TrainingData, repetition_warnings
from .evaluation.bits_per_byte import bits_per_byte, score
from .evaluation.tasks import task_values
from .metrics.console import Console, scaled
from .metrics.energy import EnergyMeter
from .metrics.record import MetricsFile
from .metrics.row import values_of_step
from .metrics.sinks import Copies, open_copies
from .metrics.speed import Speed
from .metrics.statistics import StepStatistics
from .optim.clip import clip_of_step
from .optim.schedule import rate_of_step
from .runtime.ranks import check_world, joined_ranks, world_size
from .runtime.run_directory import keep_config, locked
from .runtime.signals import Stopped, StopRequest, stop_on_signal
from .runtime.watch import Rewind, advance, may_save, react, slow_rise, take_up
from .step import train_step

__all__ = ["train"]

log = logging.getLogger(__name__)


@dataclass
class _Run:
    """The moving parts of a run under way."""

    config: RunConfig
    parts: Parts
    checkpoints: Path
    progress: Progress
    metrics: MetricsFile
    energy: EnergyMeter
    copies: Copies
    saver: Saver
    stop: StopRequest
    artifact: tuple[dict[str, Any], list[dict[str, Any]]]
    saved_step: int = -1


def train(config: RunConfig, data: TrainingData, where: str) -> Path:
    """Run a config to its end, from its last whole checkpoint if it has one; returns the final checkpoint's directory.

    Raises: ConfigError, FormatError; TrainingFailed; Stopped: told so by a signal.
    """
    config, shape = resolve(config, data, where)
    directory = Path(config.run_directory)
    check_world(config.train, world_size(), where)
    windows = BatchPlan(config.train, data.sequence_length).first_window(last_step(config) + 1)
    for warning in repetition_warnings(data, windows):
        log.warning("%s", warning)
    with ExitStack() as stack:
        ranks = stack.enter_context(joined_ranks(config.train.device, config.train.parallel.tensor_ranks))
        parts = build_parts(config, data, shape, where, ranks)  # a bad request ends here and leaves no directory
        if ranks.writes:
            stack.enter_context(locked(directory, where))
            take_back(directory / "checkpoints", config.checkpoint.remote, where)
        done_steps, last = max(step_directories(directory / "checkpoints"), default=(0, None))
        if ranks.writes:
            keep_config(config, directory, where, last, lambda place: artifact_inputs(config, data, place))
            keep_order(config, data, directory, done_steps=done_steps, world_size=ranks.data_world)
        ranks.agree("the first rank has found nothing wrong")
        run = _restore(config, parts, directory)
        try:
            with stop_on_signal() as run.stop:
                while True:
                    try:
                        return _loop(run)
                    except Rewind as rewind:
                        _go_back(run, rewind)
        finally:
            run.saver.wait()
            run.metrics.close()
            run.copies.close()


def _restore(config: RunConfig, parts: Parts, directory: Path) -> _Run:
    """Take up the run where its last whole checkpoint left it, or at its beginning."""
    checkpoints = directory / "checkpoints"
    ranks = parts.gradients.ranks
    if ranks.writes:
        clear_unfinished(checkpoints)
    finished = step_directories(checkpoints)
    progress = load_run(parts, finished[-1][1]) if finished else Progress()
    parts.data.order.gaps = progress.left_out
    if ranks.writes:  # a rewind that a kill undid may not come again
        keep_left_out(progress.left_out, directory)
    metrics = MetricsFile(directory / "metrics.jsonl", progress.step if finished else None, writes=ranks.writes)
    gpu = parts.device.index or 0 if parts.device.type == "cuda" else None
    destination = checkpoints / "step-0"  # every step's directory sees the same relative paths
    artifact = artifact_config(config, destination)
    return _Run(
        config=config,
        parts=parts,
        checkpoints=checkpoints,
        progress=progress,
        metrics=metrics,
        energy=EnergyMeter(config.energy, gpu_index=gpu, carried=metrics.reached, ranks=ranks),
        copies=open_copies(config, artifact, progress.step, writes=ranks.writes),
        saver=Saver(config.checkpoint, checkpoints, kept_from(config)),
        stop=StopRequest(),
        artifact=(artifact, artifact_inputs(config, parts.data, destination)),
        saved_step=progress.step if finished else -1,
    )


def _go_back(run: _Run, rewind: Rewind) -> None:
    """Take up the run at its last checkpoint before a bad step, or at its beginning; the clocks go on."""
    run.saver.wait()
    parts, ranks = run.parts, run.parts.gradients.ranks
    saved, writes = ranks.agree(step_directories(run.checkpoints)), ranks.writes
    if writes:
        remove([path for step, path in saved if step >= rewind.first_bad_step])
    good = [path for step, path in saved if step < rewind.first_bad_step]
    if not good:
        begin(run.config, parts)
    restored = load_run(parts, good[-1]) if good else Progress()
    directory = run.checkpoints.parent if writes else None
    run.progress = take_up(restored, run.progress, rewind, parts.batches, parts.data.order, directory)
    run.metrics.cut(run.progress.step)
    run.copies.drop(run.progress.step)
    run.saved_step = run.progress.step if good else -1


def _loop(run: _Run) -> Path:
    config, data, batches = run.config, run.parts.data, run.parts.batches
    steps, model = last_step(config), run.parts.model
    speed = Speed(model.shape, run.parts.device, model.compute_dtype, measure_peak=config.logging.measure_peak)
    console = Console(steps, run.progress.step, config.logging.console_every_s)
    if run.progress.step == 0 and not run.metrics.last:
        _record(run, 0, _validate(run))
    with open_loader(config, run.parts, run.progress, steps) as loader:
        for step in range(run.progress.step + 1, steps + 1):
            begun = time.monotonic()
            windows = loader.next()
            rate = rate_of_step(step, config, batches)
            looked_at = config.logging.statistics_every_steps
            statistics = StepStatistics(model, run.parts.optimizer) if looked_at and step % looked_at == 0 else None
            stats = train_step(
                model,
                run.parts.optimizer,
                windows.tokens_BT,
                config.train,
                rate,
                clip_of_step(step, config.optimizer),
                run.parts.guard,
                batches.sequence_length(step),
                counted_BT=windows.counted_BT,
                document_ids_BT=windows.document_ids_BT,
                gradients=run.parts.gradients,
                statistics=statistics,
            )
            accepted, outlier, taken = bool(stats.is_accepted), bool(stats.is_outlier), batches.windows(step)
            run.progress = advance(run.progress, taken, config, rate=rate, accepted=accepted, outlier=outlier)
            values = values_of_step(run.parts, run.progress, stats, rate, run.energy)
            values |= speed.values(
                tokens=windows.tokens_BT.numel() // model.tensor.size,
                total_tokens=run.progress.position * data.sequence_length,
                sequence_length=batches.sequence_length(step),
                elapsed_s=time.monotonic() - begun,
                waited_s=loader.waited_s,
            )
            if config.data.instance_filter is not None:
                masked = torch.tensor(windows.masked_instances)
                values["train/masked_instances"] = int(run.parts.gradients.ranks.sum_of_data(masked))
            measured = _due(step, config.validation.every_steps, steps)
            if measured:
                values |= _validate(run)
            if statistics is not None:
                values |= statistics.values()
            risen = slow_rise(step, values["stability/slow_rise"], config)
            stops = _has_to_stop(run, risen is not None)
            saves = (stops or _due(step, config.checkpoint.every_steps, steps)) and may_save(run.progress, config)
            if statistics or measured or saves or stops or _due(step, config.logging.metrics_every_steps, steps):
                _record(run, step, values)  # also where the run may go on from: its last row knows what was spent
            console.step(step, values)
            react(run.progress, config)
            if saves:
                _save(run)
            if stops:
                run.saver.wait()
                raise risen or Stopped(f"{config.run_directory}: told to stop; saved at step {run.saved_step}")
    if run.saved_step != steps:
        _save(run)
    run.saver.finish(writes=run.parts.gradients.ranks.writes)
    final = run.checkpoints / f"step-{steps}"
    log.info("train  done  %d steps  %stokens  %s", steps, scaled(run.progress.position * data.sequence_length), final)
    return final


def _due(step: int, every: int | None, last: int) -> bool:
    return step == last or (every is not None and step % every == 0)


def _has_to_stop(run: _Run, has_risen: bool) -> bool:
    """Whether the loss has risen, or any rank was told to stop."""
    return bool(run.parts.gradients.ranks.sum(torch.tensor(int(run.stop.is_made or has_risen))))


def _validate(run: _Run) -> dict[str, float]:
    model, validation = run.parts.model, run.parts.validation
    values = {} if validation is None else bits_per_byte(validation, score(model, validation))
    return values | task_values(model, run.parts.tasks)


def _record(run: _Run, step: int, values: dict[str, float]) -> None:
    run.metrics.write(step, values)
    run.copies.write(step, values)


def _save(run: _Run) -> None:
    """Write the checkpoint of the step just done; rows up to it are on the disk first."""
    run.metrics.sync()
    run.copies.settle()
    run.saved_step = run.progress.step
    run.saver.save(run.parts, run.progress, *run.artifact)

"""The main path: a config in, a run directory with metrics and checkpoints out. Read it top to bottom.

    prepare → for each step: step, measure, decide, log, save → finish

Order of data, learning rate and initial weights are pure functions of the config and the step, so a checkpoint that
continues exactly needs only weights, moments, the generators' states and four counters. The run directory:

    config.yaml       the resolved config
    order.json        what `olmo inspect` needs besides the shards
    metrics.jsonl     one row per step
    checkpoints/      step-<n>, each in Hugging Face layout, with the training state in training/
"""

import logging
from contextlib import ExitStack
from pathlib import Path

import torch

from .build import begin, build_parts, last_step, open_loader, resolve
from .checkpoint.mirror import restore_from_remote
from .checkpoint.run_state import Saver, load_run
from .checkpoint.save import artifact_inputs, clear_unfinished, remove, step_directories
from .config.schema import RunConfig
from .data.order import BatchSchedule
from .data.provenance import keep_order, record_skipped
from .data.sources import TrainingData, repetition_warnings
from .evaluation import bits_per_byte, task_values
from .metrics.measure import Meter, StepStatistics
from .metrics.record import Console, RunLog, scaled
from .optim import clip_of_step, rate_of_step
from .parallel import check_world, joined_ranks, world_size
from .parts import Parts
from .progress import Progress, Stopped, StopRequest, stop_on_signal
from .run_directory import keep_config, locked
from .stability import Rewind, advance, handle_bad_step, may_save, resume_after_rewind, slow_rise
from .step import StepSettings, StepStats, train_step

__all__ = ["train"]

log = logging.getLogger(__name__)


def train(config: RunConfig, data: TrainingData) -> Path:
    """Run a config to its end, from its last complete checkpoint if it has one; returns the final checkpoint.

    Raises: ConfigError, FormatError; TrainingFailed; Stopped: by SIGTERM or SIGUSR1.
    """
    # ---- prepare
    config, shape = resolve(config, data)
    directory, last = Path(config.output_dir), last_step(config)
    checkpoints = directory / "checkpoints"
    check_world(config.train, world_size())
    windows = BatchSchedule(config.train, data.sequence_length).first_window(last + 1)
    for warning in repetition_warnings(data, windows):
        log.warning("%s", warning)
    with ExitStack() as stack:
        ranks = stack.enter_context(joined_ranks(config.train.device, config.train.parallel.tensor_ranks))
        parts = build_parts(config, data, shape, ranks)  # a bad request ends here and leaves no directory
        if ranks.writes:
            stack.enter_context(locked(directory))
            restore_from_remote(checkpoints, config.checkpoint.remote)
            done, newest = max(step_directories(checkpoints), default=(0, None))
            keep_config(config, directory, newest, lambda path: artifact_inputs(config, data, path))
            keep_order(config, data, directory, done_steps=done, world_size=ranks.data_world)
            clear_unfinished(checkpoints)
        ranks.agree("the first rank found no problem")
        done, newest = max(step_directories(checkpoints), default=(0, None))
        progress = load_run(parts, newest) if newest else Progress()
        data.order.gaps = progress.skipped
        if ranks.writes:  # a rewind that a kill undid may not happen again
            record_skipped(progress.skipped, directory)
        saver = Saver(config, data, saved_step=progress.step if newest else None)
        output = RunLog(config, progress.step if newest else None, saver.settings, writes=ranks.writes)
        stack.callback(output.close)
        stack.callback(saver.wait)
        meter = Meter(config, parts, carried=output.reached)
        stop = stack.enter_context(stop_on_signal())

        # ---- train
        while True:
            try:
                progress = _train_steps(config, parts, progress, meter, output, saver, stop)
                break
            except Rewind as rewind:
                progress = _go_back(config, parts, rewind, output, saver)

        # ---- finish
        if saver.saved_step != last:
            output.flush()
            saver.save(parts, progress)
        saver.finish(writes=ranks.writes)
    final = checkpoints / f"step-{last}"
    log.info("train  done  %d steps  %stokens  %s", last, scaled(progress.position * data.sequence_length), final)
    return final


def _train_steps(
    config: RunConfig, parts: Parts, progress: Progress, meter: Meter, output: RunLog, saver: Saver, stop: StopRequest
) -> Progress:
    """All remaining steps. A step that writes no row does not wait for the device, but for the check of a slow rise.

    Raises: Rewind; TrainingFailed; Stopped.
    """
    model, batches, ranks, last = parts.model, parts.batches, parts.gradients.ranks, last_step(config)
    console = Console(last, progress.step, config.logging.console_every_s)
    if progress.step == 0 and not output.last:
        output.write(0, _validate(parts))
    pending: list[StepStats] = []  # steps whose verdicts are still on the device
    with open_loader(config, parts, progress, last) as loader:
        for step in range(progress.step + 1, last + 1):
            # ---- step
            meter.begin()
            batch = loader.next()
            is_looked_at = _is_due(step, config.logging.statistics_every_steps)
            statistics = StepStatistics(model, parts.optimizer) if is_looked_at else None
            settings = StepSettings(
                train=config.train,
                learning_rate=rate_of_step(step, config, batches),
                clip=clip_of_step(step, config.optimizer),
                sequence_length=batches.sequence_length(step),
            )
            pending.append(train_step(parts, batch, settings, statistics.tensors if statistics else None))

            # ---- measure
            is_asked_to_stop = ranks.any(stop.is_made)
            is_validated = step == last or _is_due(step, config.validation.every_steps)
            is_saved = step == last or _is_due(step, config.checkpoint.every_steps) or is_asked_to_stop
            is_row = step == last or _is_due(step, config.logging.metrics_every_steps)
            is_row |= is_looked_at or is_validated or is_asked_to_stop
            if not (is_row or is_saved or _is_due(step, config.stability.slow_rise_steps)):
                meter.end(batch, settings, loader.waited_s)
                console.step(step)
                continue
            progress = _judge(progress, pending, config, batches)
            values = meter.row(progress, pending[-1], batch, settings, loader.waited_s)
            pending.clear()
            if is_validated:
                values |= _validate(parts)
            if statistics is not None:
                values |= statistics.values()

            # ---- decide
            failure = slow_rise(step, values["stability/slow_rise"], config)
            stops = is_asked_to_stop or failure is not None
            is_saved = (is_saved or stops) and may_save(progress, config)

            # ---- log
            if is_row or is_saved or stops:  # a checkpoint's row has the time and energy spent up to it
                output.write(step, values)
            console.step(step, values)
            handle_bad_step(progress, config)

            # ---- save
            if is_saved:
                output.flush()  # rows up to a checkpoint's step reach the disk before it
                saver.save(parts, progress)
            if stops:
                saver.wait()
                reason = f"{config.output_dir}: stopped on SIGTERM or SIGUSR1; saved at step {saver.saved_step}"
                raise failure or Stopped(reason)
    return progress


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _judge(progress: Progress, pending: list[StepStats], config: RunConfig, batches: BatchSchedule) -> Progress:
    """Fetch the verdicts on the last steps in one transfer and act on each in turn, except for the last one.

    Raises: Rewind, TrainingFailed: the same as right after the bad step.
    """
    verdicts = torch.stack([torch.stack([stats.is_accepted, stats.is_outlier]) for stats in pending]).tolist()
    for number, (is_accepted, is_outlier) in enumerate(verdicts):
        if number:
            handle_bad_step(progress, config)
        step = progress.step + 1
        rate = rate_of_step(step, config, batches)
        progress = advance(progress, batches.windows(step), config, rate=rate, accepted=is_accepted, outlier=is_outlier)
    return progress


def _validate(parts: Parts) -> dict[str, float]:
    values = {} if parts.validation is None else bits_per_byte(parts.model, parts.validation)
    return values | task_values(parts.model, parts.tasks)


def _go_back(config: RunConfig, parts: Parts, rewind: Rewind, output: RunLog, saver: Saver) -> Progress:
    """Restore the last checkpoint before a bad step, or the beginning; the clocks keep running."""
    saver.wait()
    ranks, checkpoints = parts.gradients.ranks, Path(config.output_dir) / "checkpoints"
    saved = ranks.agree(step_directories(checkpoints))
    if ranks.writes:
        remove([path for step, path in saved if step >= rewind.first_bad_step])
    good = [path for step, path in saved if step < rewind.first_bad_step]
    if not good:
        begin(config, parts)
    restored = load_run(parts, good[-1]) if good else Progress()
    progress = resume_after_rewind(restored, rewind, parts.batches, parts.data.order)
    if ranks.writes:
        record_skipped(progress.skipped, Path(config.output_dir))
    output.drop_after(progress.step)
    saver.saved_step = progress.step if good else None
    return progress

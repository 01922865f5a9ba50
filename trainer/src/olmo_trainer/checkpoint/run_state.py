"""All parts of a run to a checkpoint and back."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ..build import Parts
from ..config.schema import CheckpointConfig
from ..formats.errors import FormatError
from ..formats.fields import mismatch
from ..formats.manifest import read_manifest
from ..runtime.device import capture_random, restore_random
from .mirror import mirror
from .restore import load_training, load_weights, restore_optimizer
from .save import (
    Progress,
    TrainingState,
    capture_optimizer,
    remove_old,
    save_checkpoint,
    whole_weights,
)
from .shards import begin_shards, failure_told, settle_shards

__all__ = ["Saver", "load_run"]

log = logging.getLogger(__name__)


def load_run(parts: Parts, checkpoint: Path) -> Progress:
    """Put all parts as they were when a checkpoint was saved; returns how far that was.

    Every rank reads the files and keeps its part, so the number of ranks may be another than when it was saved.
    Raises: FormatError: the checkpoint is damaged.
    """
    known = read_manifest(checkpoint, wanted="checkpoint").details.get("tokenizer_sha256")
    if known != parts.data.tokenizer_sha256:
        got, expected = "a different tokenizer", f"that of {checkpoint}, which this run started with"
        raise mismatch(parts.data.tokenizer_path, "checksum_mismatch", got, expected)
    try:
        load_weights(parts.model, checkpoint)
        training = load_training(checkpoint)
    except FormatError as error:
        error.hint = error.hint or f"remove {checkpoint} to go on from the checkpoint before it"
        raise
    restore_optimizer(parts.model, parts.optimizer, checkpoint / "training")
    restore_random(parts.device, training.random)
    parts.guard.restore(training.guard)
    log.info("continuing from %s", checkpoint)
    return training.progress


class Saver:
    """Writes checkpoints, one at a time, then deletes old ones and copies new ones to `checkpoint.remote`.

    What is written is the state at the call. In the background all but taking a copy of it goes on beside training;
    an error there is raised by the next call or `wait`.
    """

    def __init__(self, settings: CheckpointConfig, checkpoints: Path, begun_from: Path | None = None) -> None:
        self._settings, self._checkpoints, self._begun_from = settings, checkpoints, begun_from
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future[None] | None = None
        # messages of its own: those of training must not get between
        self._group: Any = dist.new_group(backend="gloo") if settings.sharded and dist.is_initialized() else None

    def save(self, parts: Parts, progress: Progress, config: dict[str, Any], inputs: list[dict[str, Any]]) -> None:
        """Save the state of a step. All ranks call together."""
        self.wait()
        settings, writes = self._settings, parts.gradients.ranks.writes
        destination = self._checkpoints / f"step-{progress.step}"
        own = settings.background  # the file's writer may run later than the next update
        weights = whole_weights(parts.model, keep=writes)
        weights = {name: tensor.clone() for name, tensor in weights.items()} if own else weights
        training = TrainingState(
            optimizer=capture_optimizer(parts.model, parts.optimizer, keep=writes, gather=not settings.sharded),
            random=capture_random(parts.device),
            guard=parts.guard.capture(),
            progress=progress,
        )
        shards = destination.with_name(f".{destination.name}.shards.writing") if settings.sharded else None
        pending = None
        if shards is not None:
            pending = begin_shards(training.optimizer, shards, self._group, background=own)

        def write() -> None:
            if pending is not None and shards is not None:
                with failure_told(shards):
                    pending.result()
            if shards is not None and self._group is not None:
                dist.barrier(self._group)
            if not writes:
                return
            if shards is not None:
                settle_shards(shards)
            identity = save_checkpoint(
                destination,
                parts.model,
                parts.data,
                weights=weights,
                config=config,
                inputs=inputs,
                training=training,
                shards=shards,
                begun_from=self._begun_from,
            )
            log.info("saved %s  %s", destination, identity[:12])
            remove_old(self._checkpoints, settings)
            self._copy(again=True)

        if not settings.background:
            write()
            return
        self._written = self._writer.submit(write)

    def wait(self) -> None:
        """Until nothing is being written."""
        if self._written is not None:
            written, self._written = self._written, None
            written.result()

    def finish(self, *, writes: bool) -> None:
        """At the end of a run: nothing is being written, and all is copied.

        Raises: what the last attempt to copy raised.
        """
        self.wait()
        if writes:
            self._copy(again=False)

    def _copy(self, *, again: bool) -> None:
        if self._settings.remote is None:
            return
        try:
            mirror(self._checkpoints, self._settings.remote)
        except Exception as error:
            if not again:
                raise
            log.warning("%s: not copied (%s); will be tried again", self._settings.remote, error)

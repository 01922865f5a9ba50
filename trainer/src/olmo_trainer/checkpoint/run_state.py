"""The whole state of a run, to a checkpoint and back."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ..config.schema import RunConfig
from ..data.sources import TrainingData
from ..device import capture_random, restore_random
from ..formats.contract import FormatError, mismatch
from ..formats.manifest import read_manifest
from ..parts import Parts
from ..progress import Progress
from .mirror import mirror
from .restore import load_training, load_weights, restore_optimizer
from .save import (
    TrainingState,
    artifact_config,
    artifact_inputs,
    capture_optimizer,
    kept_from,
    remove_old,
    save_checkpoint,
    whole_weights,
)
from .shards import as_os_error, begin_shards, sort_headers

__all__ = ["Saver", "load_run"]

log = logging.getLogger(__name__)


def load_run(parts: Parts, checkpoint: Path) -> Progress:
    """Restore all parts from a checkpoint; returns its progress.

    Every rank reads the files and keeps its part, so the number of ranks may differ from that at the save.
    """
    known = read_manifest(checkpoint, "checkpoint").details.get("tokenizer_sha256")
    if known != parts.data.tokenizer_sha256:
        got, expected = "a different tokenizer", f"that of {checkpoint}, which this run started with"
        raise mismatch("checksum_mismatch", parts.data.tokenizer_path, got, expected)
    try:
        load_weights(parts.model, checkpoint)
        training = load_training(checkpoint)
    except FormatError as error:
        error.hint = f"remove {checkpoint} to continue from the checkpoint before it"
        raise
    restore_optimizer(parts.model, parts.optimizer, checkpoint / "training")
    restore_random(parts.device, training.random)
    parts.guard.restore(training.guard)
    log.info("continuing from %s", checkpoint)
    return training.progress


class Saver:
    """Writes checkpoints, one at a time, then deletes old ones and copies new ones to `checkpoint.remote`.

    With `checkpoint.background`, only taking a copy of the state delays training; an error while writing it is raised
    by the next call of `save` or `wait`.
    """

    def __init__(self, config: RunConfig, data: TrainingData, *, saved_step: int | None) -> None:
        self._checkpoint, self._begun_from = config.checkpoint, kept_from(config)
        self._directory = Path(config.output_dir) / "checkpoints"
        relative_to = self._directory / "step-0"  # paths relative to any step's directory are the same
        self.settings, self._inputs = artifact_config(config, relative_to), artifact_inputs(config, data, relative_to)
        self.saved_step = saved_step
        """Of the newest checkpoint."""
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future[None] | None = None
        # a group of its own, so that its messages do not mix with those of training
        sharded = config.checkpoint.sharded and dist.is_initialized()
        self._group: Any = dist.new_group(backend="gloo") if sharded else None

    def save(self, parts: Parts, progress: Progress) -> None:
        """Save the state of a step. Collective: all ranks call."""
        self.wait()
        settings, writes = self._checkpoint, parts.gradients.ranks.writes
        self.saved_step = progress.step
        destination = self._directory / f"step-{progress.step}"
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
                with as_os_error(shards):
                    pending.result()
            if shards is not None and self._group is not None:
                dist.barrier(self._group)
            if not writes:
                return
            if shards is not None:
                sort_headers(shards)
            identity = save_checkpoint(
                destination,
                parts.model,
                parts.data,
                weights=weights,
                config=self.settings,
                inputs=self._inputs,
                training=training,
                shards=shards,
                begun_from=self._begun_from,
            )
            log.info("saved %s  %s", destination, identity[:12])
            remove_old(self._directory, settings)
            self._copy(retries=True)

        if not settings.background:
            write()
            return
        self._written = self._writer.submit(write)

    def wait(self) -> None:
        """Wait until nothing is being written."""
        if self._written is not None:
            written, self._written = self._written, None
            written.result()

    def finish(self, *, writes: bool) -> None:
        """At the end of a run: wait, and copy what is not copied yet.

        Raises: whatever the last attempt to copy raised.
        """
        self.wait()
        if writes:
            self._copy(retries=False)

    def _copy(self, *, retries: bool) -> None:
        if self._checkpoint.remote is None:
            return
        try:
            mirror(self._directory, self._checkpoint.remote)
        except Exception as error:
            if not retries:
                raise
            log.warning("%s: not copied (%s); will retry", self._checkpoint.remote, error)

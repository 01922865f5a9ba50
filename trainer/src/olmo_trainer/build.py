"""From a config to the parts of a run."""

import logging
from dataclasses import replace
from pathlib import Path

import torch

from .checkpoint.restore import load_weights, restore_optimizer
from .checkpoint.save import artifact_config, artifact_inputs, save_checkpoint, whole_weights
from .config.schema import RunConfig, ValidationConfig
from .data.order import BatchSchedule, positions_of, rank_slice, steps_of_duration
from .data.sources import Loader, TrainingData, check_repetition
from .device import TensorBatch, prepare, resolve_device, resolve_threads, tensors_of
from .evaluation import open_tasks, open_validation
from .formats.checkpoint import inspect_checkpoint, open_tokenizer, tokenizer_difference
from .formats.contract import sha256_file
from .model.architecture import (
    Architecture,
    architecture_of,
    check_divisible,
    resolved,
    total_parameters,
)
from .model.init import initialize
from .model.transformer import Transformer, checkpoint_activations
from .optim import build_optimizer
from .parallel import SINGLE_PROCESS, Gradients, Ranks, distribute
from .parts import Parts
from .progress import Progress
from .run_directory import begun_with
from .settings import SettingError
from .stability import Guard

log = logging.getLogger(__name__)

__all__ = ["begin", "build_parts", "last_step", "open_loader", "resolve", "write_initial"]


def resolve(config: RunConfig, data: TrainingData) -> tuple[RunConfig, Architecture]:
    """The config with every default filled in, and the model's shape."""
    shape = architecture_of(config.model, data.vocab_size)
    if shape.embedding_rows < data.vocab_size:
        what = f'"model.embedding_size" is {shape.embedding_rows}'
        raise SettingError(f"{what}; expected {data.vocab_size} rows or more for {data.tokenizer_path}")
    _check_beginning(config, data)
    check_divisible(shape, config.train.parallel.tensor_ranks)
    batches = BatchSchedule(config.train, data.sequence_length)
    train = replace(
        config.train,
        steps=config.train.steps or _steps("duration", config.train.duration, batches, data, shape),
        duration=None,
        device=resolve_device(config.train),
        num_threads=resolve_threads(config.train, begun_with(Path(config.output_dir))),
        micro_batch_windows=config.train.micro_batch_windows or config.train.batch_windows,
    )
    if train.stop_at is not None:
        stop = _steps("stop_at", train.stop_at, batches, data, shape)
        train = replace(train, stop_at=f"{min(stop, train.steps or stop)} steps")
    assert train.steps is not None
    check_repetition(config, data, batches.first_window(train.steps + 1))
    return replace(config, model=resolved(config.model, shape), train=train), shape


def _check_beginning(config: RunConfig, data: TrainingData) -> None:
    """Check that token ids mean the same in `init_from` and in the shards.

    Raises: SettingError: the tokenizers differ and `init_tokenizer` does not allow it.
    """
    if config.init_from is None:
        return
    found = inspect_checkpoint(Path(config.init_from))
    path = found.directory / "tokenizer.json"
    if not path.is_file():
        log.warning("%s: not found; cannot check that it matches the shards' tokenizer", path)
        return
    if sha256_file(path) != data.tokenizer_sha256:
        difference = tokenizer_difference(found.tokenizer, open_tokenizer(data.tokenizer_path))
        if difference is not None and config.init_tokenizer == "same":
            what = f'"init_from" is {config.init_from}, whose tokenizer differs from {data.tokenizer_path}'
            hint = "tokenize the documents with the checkpoint's tokenizer, or set init_tokenizer=other"
            raise SettingError(f"{what} ({difference}); expected one tokenizer for both", hint=hint)
        if difference is not None:
            log.warning("%s: its tokenizer differs from the shards' (%s)", config.init_from, difference)
    ours = "eos" if data.special.bos is None else "bos"
    if found.document_prefix not in (None, ours):
        starts = f"{str(found.document_prefix).upper()} before a document, but the shards put {ours.upper()}"
        log.warning("%s: puts %s; new checkpoints follow the shards", config.init_from, starts)


def _steps(name: str, text: str | None, batches: BatchSchedule, data: TrainingData, shape: Architecture) -> int:
    """The number of steps of a duration."""
    steps = steps_of_duration(text or "", batches, data.order.epoch_windows, total_parameters(shape))
    if not steps:
        came = "" if steps is None else ", less than one step"
        kinds = '"1000 steps", "2e12T", "1ep" or "20chinchilla"'
        raise SettingError(f'"train.{name}" is "{text}"{came}; expected one as {kinds}')
    return steps


def build_parts(config: RunConfig, data: TrainingData, shape: Architecture, ranks: Ranks = SINGLE_PROCESS) -> Parts:
    """Build all parts of a resolved config, with initial weights; each rank builds its own."""
    assert config.train.num_threads is not None
    device = prepare(config.train.device, config.train.num_threads, config.seed, ranks.local_rank)
    prefix = data.special.bos if data.special.bos is not None else data.special.eos
    validation = open_validation(config.validation, data.tokenizer_path, prefix, data.sequence_length)
    tasks = open_tasks(config.validation, data.tokenizer_path, data.special, data.sequence_length)
    compute_dtype = torch.bfloat16 if config.train.dtype == "bfloat16" else torch.float32
    with torch.device("meta"):
        model = Transformer(shape, compute_dtype, ranks.tensor_parallel)
    distribute(model, model.blocks, config.train.parallel, ranks, device, compute_dtype)
    if (how := config.train.activation_checkpointing) != "none":
        checkpoint_activations(model, how, config.train.activation_checkpointing_every)
    if config.train.compile:
        for block in model.blocks:
            block.compile()
    parts = Parts(
        model=model,
        optimizer=build_optimizer(model, config.optimizer),
        guard=Guard(config.stability, device),
        gradients=Gradients(model, ranks),
        device=device,
        data=data,
        batches=BatchSchedule(config.train, data.sequence_length),
        validation=validation,
        tasks=tasks,
    )
    begin(config, parts)
    return parts


def begin(config: RunConfig, parts: Parts) -> None:
    """Reset all parts that change to their state before the first step."""
    if config.init_from is None:
        initialize(parts.model, config.model.init, config.seed)
    else:
        load_weights(parts.model, Path(config.init_from))
    parts.optimizer.state.clear()
    if config.init_moments and config.init_from is not None:
        restore_optimizer(parts.model, parts.optimizer, Path(config.init_from) / "training")
    parts.guard.restore(Guard(config.stability, parts.device).capture())
    torch.manual_seed(config.seed)


def open_loader(config: RunConfig, parts: Parts, progress: Progress, steps: int) -> Loader[TensorBatch]:
    """This rank's share of the batches of the remaining steps, read ahead."""
    data, device, ranks, settings = parts.data, parts.device, parts.gradients.ranks, config.data.loader
    sizes = (parts.batches.windows(step) for step in range(progress.step + 1, steps + 1))
    return Loader(
        lambda batch: tensors_of(data.read(rank_slice(batch, ranks.data_rank, ranks.data_world)), device),
        positions_of(progress.position, sizes),
        threads=settings.threads,
        ahead=settings.ahead,
    )


def last_step(config: RunConfig) -> int:
    """The step after which a resolved config stops: `stop_at`, or the end."""
    assert config.train.steps is not None
    stop_at = config.train.stop_at
    return config.train.steps if stop_at is None else int(stop_at.removesuffix(" steps"))


def write_initial(config: RunConfig, data: TrainingData, destination: Path) -> str:
    """Write the model of a config before the first step; returns its identity."""
    config, shape = resolve(config, data)
    parts = build_parts(replace(config, validation=ValidationConfig()), data, shape)
    settings, inputs = artifact_config(config, destination), artifact_inputs(config, data, destination)
    weights = whole_weights(parts.model)
    return save_checkpoint(
        destination, parts.model, data, weights=weights, config=settings, inputs=inputs, training=None
    )

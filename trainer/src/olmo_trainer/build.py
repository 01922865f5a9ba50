"""From a config to the parts of a run: the only file that knows them all."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .checkpoint.restore import load_weights, restore_optimizer
from .checkpoint.save import Progress, save_checkpoint, whole_weights
from .config.errors import ConfigError, Problem
from .config.parse import as_mapping
from .config.schema import RunConfig, ValidationConfig
from .data.batches import BatchPlan, steps_of_duration
from .data.loader import Loader
from .data.order import positions_of, rank_slice
from .data.sources import TrainingData, check_repetition, input_row, repetition_warnings
from .evaluation.bits_per_byte import ValidationSet, open_validation
from .evaluation.tasks import TaskSet, open_tasks
from .formats.inspection import inspect_checkpoint, open_tokenizer, tokenizer_difference
from .formats.json_lines import sha256_file
from .formats.manifest import MANIFEST
from .metrics.energy import footprint
from .metrics.memory import memory_of_rank
from .model.architecture import Architecture, architecture_of, resolved
from .model.flops import flops_per_token, total_parameters
from .model.init import initialize
from .model.recompute import recompute_blocks
from .model.transformer import Transformer
from .optim.guard import Guard
from .optim.update import GatedOptimizer, build_optimizer
from .runtime.device import TensorBatch, prepare, resolve_device, resolve_threads, tensors_of
from .runtime.ranks import ALONE, Ranks, check_world
from .runtime.run_directory import begun_with
from .runtime.sharded import Gradients, distribute
from .runtime.tensor import check_divisible

log = logging.getLogger(__name__)

__all__ = [
    "Parts",
    "artifact_config",
    "artifact_inputs",
    "begin",
    "build_parts",
    "kept_from",
    "last_step",
    "open_loader",
    "plan",
    "resolve",
    "write_initial",
]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Everything that a run works with."""

    device: torch.device
    data: TrainingData
    batches: BatchPlan
    model: Transformer
    gradients: Gradients
    optimizer: GatedOptimizer
    guard: Guard
    validation: ValidationSet | None
    tasks: list[TaskSet]


def resolve(config: RunConfig, data: TrainingData, where: str) -> tuple[RunConfig, Architecture]:
    """The config with every null that stands for a default replaced by what it came to, and the model's shape.

    Raises: ConfigError: the device is not available, the embedding is too small for the tokenizer, or a source would be
    seen too often.
    """
    shape = architecture_of(config.model, data.vocab_size)
    if shape.embedding_rows < data.vocab_size:
        what = f'"model.embedding_size" is {shape.embedding_rows}'
        raise ConfigError(
            Problem(f"{where}: {what}; expected {data.vocab_size} rows or more for {data.tokenizer_path}")
        )
    _check_beginning(config, data, where)
    check_divisible(shape, config.train.parallel.tensor_ranks, where)
    batches = BatchPlan(config.train, data.sequence_length)
    train = replace(
        config.train,
        steps=config.train.steps or _steps("duration", config.train.duration, batches, data, shape, where),
        duration=None,
        device=resolve_device(config.train, where),
        num_threads=resolve_threads(config.train, begun_with(Path(config.run_directory))),
        micro_batch_windows=config.train.micro_batch_windows or config.train.batch_windows,
    )
    if train.stop_at is not None:
        stop = _steps("stop_at", train.stop_at, batches, data, shape, where)
        train = replace(train, stop_at=f"{min(stop, train.steps or stop)} steps")
    assert train.steps is not None
    check_repetition(config, data, batches.first_window(train.steps + 1), where)
    return replace(config, model=resolved(config.model, shape), train=train), shape


def _check_beginning(config: RunConfig, data: TrainingData, where: str) -> None:
    """Check that token ids mean the same to `init_from` and to the shards.

    Raises: ConfigError: the tokenizers differ and `init_tokenizer` does not allow it.
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
            what = f'{where}: "init_from" is {config.init_from}, whose tokenizer differs from {data.tokenizer_path}'
            hint = "tokenize the documents with the checkpoint's tokenizer, or set init_tokenizer=other"
            raise ConfigError(Problem(f"{what} ({difference}); expected one tokenizer for both", hint))
        if difference is not None:
            log.warning("%s: its tokenizer differs from the shards' (%s)", config.init_from, difference)
    ours = "eos" if data.special.bos is None else "bos"
    if found.document_prefix not in (None, ours):
        theirs = str(found.document_prefix).upper()
        log.warning(
            "%s: puts %s before a document, but the shards put %s; new checkpoints follow the shards",
            config.init_from,
            theirs,
            ours.upper(),
        )


def _steps(name: str, text: str | None, batches: BatchPlan, data: TrainingData, shape: Architecture, where: str) -> int:
    """The steps of a duration.

    Raises: ConfigError: it is none, or less than a step.
    """
    steps = steps_of_duration(text or "", batches, data.order.epoch_windows, total_parameters(shape))
    if not steps:
        came = "" if steps is None else ", less than one step"
        kinds = '"1000 steps", "2e12T", "1ep" or "20chinchilla"'
        raise ConfigError(Problem(f'{where}: "train.{name}" is "{text}"{came}; expected one as {kinds}'))
    return steps


def build_parts(config: RunConfig, data: TrainingData, shape: Architecture, where: str, ranks: Ranks = ALONE) -> Parts:
    """Build all parts of a resolved config, with initial weights; each of the ranks builds its own.

    Raises: ConfigError, FormatError.
    """
    assert config.train.num_threads is not None
    device = prepare(config.train.device, config.train.num_threads, config.seed, ranks.local_rank)
    prefix = data.special.bos if data.special.bos is not None else data.special.eos
    validation = open_validation(config.validation, data.tokenizer_path, prefix, data.sequence_length, where)
    tasks = open_tasks(config.validation, data.tokenizer_path, data.special, data.sequence_length, where)
    products = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
    with torch.device("meta"):
        model = Transformer(shape, products, ranks.tensor)
    distribute(model, model.blocks, config.train.parallel, ranks, device)
    if config.train.recompute != "none":
        recompute_blocks(model, config.train.recompute, config.train.recompute_every)
    if config.train.compile:
        for block in model.blocks:
            block.compile()
    optimizer = build_optimizer(model, config.optimizer, where)
    guard = Guard(config.stability, device)
    batches = BatchPlan(config.train, data.sequence_length)
    parts = Parts(
        device=device,
        data=data,
        batches=batches,
        model=model,
        gradients=Gradients(model, ranks),
        optimizer=optimizer,
        guard=guard,
        validation=validation,
        tasks=tasks,
    )
    begin(config, parts)
    return parts


def begin(config: RunConfig, parts: Parts) -> None:
    """Put all parts that change as they are before the first step."""
    if config.init_from is None:
        initialize(parts.model, config.model.init, config.seed)
    else:
        load_weights(parts.model, Path(config.init_from))
    parts.optimizer.state.clear()
    if config.init_moments and config.init_from is not None:
        restore_optimizer(parts.model, parts.optimizer, Path(config.init_from) / "training")
    parts.guard.restore(Guard(config.stability, parts.device).capture())
    torch.manual_seed(config.seed)


def kept_from(config: RunConfig) -> Path | None:
    """The checkpoint whose sidecar files this run's checkpoints keep; None if its tokens are others."""
    return None if config.init_from is None or config.init_tokenizer == "other" else Path(config.init_from)


def open_loader(config: RunConfig, parts: Parts, progress: Progress, steps: int) -> Loader[TensorBatch]:
    """This rank's share of the batches of the steps that are left, read ahead."""
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


def plan(
    config: RunConfig,
    data: TrainingData,
    where: str,
    *,
    ranks: int | None = None,
    tokens_per_second: float | None = None,
) -> dict[str, Any]:
    """What a run would do, without doing it: sizes, costs and how often the data is seen.

    Without a number of `ranks` they are as few as can be: one, or one tensor group. Time and energy are told for a
    given pace of all ranks together; energy for one machine of `energy.declared_watts`.
    """
    config, shape = resolve(config, data, where)
    assert config.train.steps is not None
    ranks = ranks or config.train.parallel.tensor_ranks
    check_world(config.train, ranks, where)
    windows_of_rank = config.train.batch_windows * config.train.parallel.tensor_ranks // ranks
    tokens = BatchPlan(config.train, data.sequence_length).tokens(config.train.steps)
    flops = flops_per_token(shape, data.sequence_length)
    seconds = tokens / tokens_per_second if tokens_per_second else None
    joules = None if seconds is None or not config.energy.declared_watts else seconds * config.energy.declared_watts
    spent = {} if joules is None else footprint(joules, config.energy.pue, config.energy.grid_kg_per_kwh)
    return {
        "parameters": total_parameters(shape),
        "parameters_without_embeddings": total_parameters(shape)
        - shape.embedding_rows * shape.width * (1 if shape.tied else 2),
        "flops_per_token": flops,
        "flops": flops * tokens,
        "flops_per_rank": flops * tokens // ranks,
        "memory_per_rank_bytes": memory_of_rank(shape, config.train, config.optimizer, data.sequence_length, ranks),
        "seconds": seconds,
        **spent,
        "steps": config.train.steps,
        "batch_tokens": config.train.batch_windows * data.sequence_length,
        "micro_batches": math.ceil(windows_of_rank / (config.train.micro_batch_windows or 1)),
        "tokens": tokens,
        "epoch_tokens": data.order.epoch_windows * data.sequence_length,
        "epochs": tokens / (data.order.epoch_windows * data.sequence_length),
        "sources": [
            {
                "path": str(source.directory.path),
                "windows": len(source),
                "repetition": data.order.repetition(index, tokens // data.sequence_length),
            }
            for index, source in enumerate(data.sources)
        ],
        "warnings": repetition_warnings(data, tokens // data.sequence_length),
        "embedding_rows": shape.embedding_rows,
        "device": config.train.device,
        "config": as_mapping(config),
    }


def artifact_config(config: RunConfig, artifact: Path) -> dict[str, Any]:
    """The settings that a checkpoint's bytes depend on, with paths as seen from it."""
    mapping = as_mapping(config)
    for name in ("run_directory", "validation", "checkpoint", "logging", "wandb", "energy"):
        del mapping[name]
    del mapping["train"]["max_skipped_steps"], mapping["train"]["stop_at"], mapping["data"]["loader"]
    for name in ("max_rewinds", "slow_rise_nats", "slow_rise_action"):
        del mapping["stability"][name]

    def seen(path: str | None) -> str | None:
        return None if path is None else Path(os.path.relpath(path, artifact)).as_posix()

    mapping["init_from"], mapping["anneal"] = seen(mapping["init_from"]), seen(mapping["anneal"])
    mapping["data"]["tokenizer"] = seen(mapping["data"]["tokenizer"])
    for source in mapping["data"]["sources"]:
        source["path"], source["label_masks"] = seen(source["path"]), seen(source["label_masks"])
    return mapping


def artifact_inputs(config: RunConfig, data: TrainingData, artifact: Path) -> list[dict[str, Any]]:
    """What a checkpoint was made from: tokens, the checkpoint it began from, and what it was measured on."""
    rows = data.inputs(artifact)
    for name in (*config.validation.documents, *(task.path for task in config.validation.tasks)):
        rows += _rows_of("validation", Path(name), artifact)
    if config.init_from is not None:
        rows += _rows_of("checkpoint", Path(config.init_from), artifact)
    return rows


def _rows_of(role: str, path: Path, artifact: Path) -> list[dict[str, Any]]:
    if path.is_file() or (path / MANIFEST).is_file():
        return [input_row(role, path, artifact)]
    return [input_row(role, item, artifact) for item in sorted(path.rglob("*")) if item.is_file()]


def write_initial(config: RunConfig, data: TrainingData, destination: Path, where: str) -> str:
    """Write the model of a config as it is before the first step; returns its identity.

    Raises: ConfigError, FormatError.
    """
    config, shape = resolve(config, data, where)
    parts = build_parts(replace(config, validation=ValidationConfig()), data, shape, where)
    settings, inputs = artifact_config(config, destination), artifact_inputs(config, data, destination)
    weights = whole_weights(parts.model)
    return save_checkpoint(
        destination, parts.model, data, weights=weights, config=settings, inputs=inputs, training=None
    )

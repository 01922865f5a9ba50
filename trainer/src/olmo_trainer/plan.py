"""A dry run: what a run would do, its costs and its memory, as numbers and as a page to read."""

import math
from typing import Any

from .build import resolve
from .config.schema import OptimizerConfig, RunConfig, TrainConfig
from .data.order import BatchSchedule
from .data.sources import TrainingData, repetition_warnings
from .metrics.measure import footprint
from .metrics.record import clock, scaled
from .model.architecture import Architecture, flops_per_token, total_parameters
from .parallel import check_world
from .settings import as_mapping

__all__ = ["page", "plan"]


def plan(
    config: RunConfig,
    data: TrainingData,
    *,
    ranks: int | None = None,
    tokens_per_second: float | None = None,
) -> dict[str, Any]:
    """What a run would do, without doing it: sizes, costs and how often the data is seen.

    By default `ranks` is as few as possible: one, or one tensor group. Time and energy follow from a given pace of all
    ranks together; energy is for one machine of `energy.declared_watts`.
    """
    config, shape = resolve(config, data)
    assert config.train.steps is not None
    ranks = ranks or config.train.parallel.tensor_ranks
    check_world(config.train, ranks)
    windows_of_rank = config.train.batch_windows * config.train.parallel.tensor_ranks // ranks
    tokens = BatchSchedule(config.train, data.sequence_length).tokens(config.train.steps)
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


_FLOAT32 = 4


def memory_of_rank(
    shape: Architecture, train: TrainConfig, optimizer: OptimizerConfig, sequence_length: int, ranks: int
) -> dict[str, int]:
    """Bytes of weights, gradients, moments (float32, divided where the weights are) and, estimated, of activations.

    Activations are what the backward pass of a micro-batch needs: of each block its input, two norms' outputs, queries,
    keys and values before and after rotation, attention's output and the MLP's inner values. With full activation
    checkpointing, blocks keep only their inputs, except the one being recomputed. Not included: buffers of kernels, of
    the loss and of communication, and the memory of Python and torch themselves.
    """
    shape, ranks = shape.part(train.parallel.tensor_ranks), ranks // train.parallel.tensor_ranks
    division = {"ddp": 1, "fsdp": ranks, "hsdp": train.parallel.shard_ranks or 1}[train.parallel.kind]
    weights = -(-_FLOAT32 * total_parameters(shape) // division)
    windows = min(train.micro_batch_windows or train.batch_windows, -(-train.batch_windows // ranks))
    tokens = windows * sequence_length
    heads = (shape.heads + 2 * shape.key_value_heads) * shape.head_width
    experts = shape.routing.chosen if shape.routing else 1
    kept = 6 * shape.width + 2 * heads + shape.heads * shape.head_width + 4 * experts * shape.inner_width
    again = shape.layers // train.activation_checkpointing_every if train.activation_checkpointing == "full" else 0
    values = (shape.layers - again) * kept + (again + 2) * shape.width
    logits = 2 * _FLOAT32 * shape.embedding_rows if train.loss == "plain" else 0
    tokens_bytes = tokens * (2 if train.dtype == "bfloat16" else 4)
    parts = {
        "weights": weights,
        "gradients": weights,
        "moments": weights * (2 if optimizer.kind == "adamw" else 1),
        "activations_estimate": tokens_bytes * values + tokens * logits,
        "recomputed_estimate": tokens_bytes * kept if again else 0,
    }
    return {**parts, "total_estimate": sum(parts.values())}


_MEMORY = ("weights", "gradients", "moments")


def page(plan: dict[str, Any]) -> str:
    """The plan as a page to read, warnings last."""
    config, memory = plan["config"], plan["memory_per_rank_bytes"]
    rows = [
        (
            "model",
            f"{config['model']['family']}, {_count(plan['parameters'])} parameters, "
            f"{_count(plan['parameters_without_embeddings'])} without the embedding of {plan['embedding_rows']:,} rows",
        ),
        ("data", f"{_count(plan['epoch_tokens'])} tokens an epoch"),
        *(
            ("", f"{source['path']}: {source['windows']:,} windows, seen {_times(source['repetition'])}")
            for source in plan["sources"]
        ),
        (
            "run",
            f"{plan['steps']:,} steps of {_count(plan['batch_tokens'])} tokens, "
            f"{_plural(plan['micro_batches'], 'micro-batch', 'micro-batches')} each: "
            f"{_count(plan['tokens'])} tokens, {_plural(plan['epochs'], 'epoch', 'epochs')}",
        ),
        ("work", f"{_count(plan['flops'])} FLOPs, {_count(plan['flops_per_rank'])} a rank"),
        (
            "memory",
            f"about {_bytes(memory['total_estimate'])} a rank: "
            + ", ".join(f"{name} {_bytes(memory[name])}" for name in _MEMORY)
            + f", activations about {_bytes(memory['activations_estimate'] + memory['recomputed_estimate'])}",
        ),
        ("device", f"{plan['device']}, {_plural(config['train']['num_threads'], 'thread', 'threads')}"),
    ]
    if plan["seconds"] is not None:
        rows.append(("time", clock(plan["seconds"])))
    if "energy/kWh_machines" in plan:
        carbon = plan.get("energy/kgCO2e")
        spent = f"{plan['energy/kWh_machines']:.3g} kWh, {plan['energy/kWh_data_center']:.3g} kWh after PUE"
        rows.append(("energy", spent + (f", {carbon:.3g} kg CO₂e" if carbon is not None else "")))
    rows += [("warning", text) for text in plan["warnings"]]
    return "".join(f"{name:<9}{text}\n" for name, text in rows)


def _count(value: float) -> str:
    """An integer; above 100,000 with three digits and an SI prefix."""
    return f"{value:,.0f}" if value < 1e5 else scaled(value).strip()


def _plural(value: float, one: str, many: str) -> str:
    shown = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    return f"{shown} {one if value == 1 else many}"


def _times(value: float) -> str:
    return "once" if value == 1 else _plural(value, "time", "times")


def _bytes(value: float) -> str:
    return f"{scaled(value)}B"

"""What a run would do, as a page to read."""

from __future__ import annotations

from typing import Any

from .console import clock, scaled

__all__ = ["page"]

_MEMORY = ("weights", "gradients", "moments")


def page(plan: dict[str, Any]) -> str:
    """The page of `build.plan`, warnings last."""
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
        ("work", f"{_count(plan['flops'])} operations, {_count(plan['flops_per_rank'])} a rank"),
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
        told = f"{plan['energy/kWh_machines']:.3g} kWh, {plan['energy/kWh_data_center']:.3g} kWh after PUE"
        rows.append(("energy", told + (f", {carbon:.3g} kg CO₂e" if carbon is not None else "")))
    rows += [("warning", text) for text in plan["warnings"]]
    return "".join(f"{name:<9}{text}\n" for name, text in rows)


def _count(value: float) -> str:
    """A whole number; above 100,000 with three digits and an SI prefix."""
    return f"{value:,.0f}" if value < 1e5 else scaled(value).strip()


def _plural(value: float, one: str, many: str) -> str:
    shown = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    return f"{shown} {one if value == 1 else many}"


def _times(value: float) -> str:
    return "once" if value == 1 else _plural(value, "time", "times")


def _bytes(value: float) -> str:
    return f"{scaled(value)}B"

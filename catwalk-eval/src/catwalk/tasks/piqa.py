"""PIQA (Bisk et al. 2020, arXiv:1911.11641): which of two ways reaches a goal."""

from typing import Any

from catwalk.types import Item, Task

__all__ = ["PIQA"]


def _render(row: dict[str, Any], id: str) -> Item:
    context = f"Question: {row['goal']}\nAnswer:"
    choices = (row["sol1"], row["sol2"])
    return Item(
        id=id,
        contexts=(context, context),
        continuations=tuple(f" {choice}" for choice in choices),
        label=row["label"],
        texts=(row["goal"], *choices),
    )


PIQA = Task(
    name="piqa",
    summary="which of two ways reaches an everyday goal",
    source="PIQA",
    licence="AFL-3.0",
    arrow_directory="piqa/plain_text",
    primary_metric="acc_per_token",  # OLMo (arXiv:2402.00838) appendix
    fields={"goal": str, "sol1": str, "sol2": str, "label": int},
    render=_render,
)

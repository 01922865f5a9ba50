"""HellaSwag (Zellers et al. 2019, arXiv:1905.07830): the right end of a description."""

import re
from typing import Any

from catwalk.types import Item, Task

__all__ = ["HELLASWAG"]

_BRACKETS = re.compile(r"\[.*?\]")


def _clean(text: str) -> str:
    """WikiHow's marks: " [title]" becomes a full stop, other brackets go."""
    return _BRACKETS.sub("", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _render(row: dict[str, Any], id: str) -> Item:
    context = _clean(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
    choices = tuple(_clean(ending) for ending in row["endings"])
    return Item(
        id=id,
        contexts=(context,) * len(choices),
        continuations=tuple(f" {choice}" for choice in choices),
        label=int(row["label"]),
        texts=(row["ctx"], *choices),
    )


HELLASWAG = Task(
    name="hellaswag",
    summary="the right end of a description of an activity",
    source="HellaSwag",
    licence="MIT",
    arrow_directory="hellaswag/none",
    primary_metric="acc_per_token",  # OLMo (arXiv:2402.00838) appendix
    fields={"activity_label": str, "ctx_a": str, "ctx_b": str, "ctx": str, "endings": list, "label": str},
    render=_render,
)

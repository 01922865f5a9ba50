"""COPA (Roemmele et al. 2011): which of two events is the cause, or the effect, of a premise."""

from typing import Any

from catwalk.types import Item, Task

__all__ = ["COPA"]

_CONNECTORS = {"cause": "because", "effect": "therefore"}


def _render(row: dict[str, Any], id: str) -> Item:
    # the premise's full stop gives way to the connector, and the choice goes on in lower case
    context = f"{row['premise'].strip()[:-1]} {_CONNECTORS[row['question']]}"
    choices = (row["choice1"], row["choice2"])
    return Item(
        id=id,
        contexts=(context, context),
        continuations=tuple(f" {choice[:1].lower()}{choice[1:]}" for choice in choices),
        label=row["label"],
        texts=(row["premise"], *choices),
    )


COPA = Task(
    name="copa",
    summary="the more plausible cause or effect of a premise",
    source="SuperGLUE, COPA",
    licence="BSD-2-Clause",
    arrow_directory="super_glue/copa",
    primary_metric="acc_raw",  # OLMo (arXiv:2402.00838) appendix
    fields={"premise": str, "choice1": str, "choice2": str, "question": str, "label": int},
    render=_render,
)

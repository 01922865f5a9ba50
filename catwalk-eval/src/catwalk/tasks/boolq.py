"""BoolQ (Clark et al. 2019, arXiv:1905.10044): yes/no questions on a passage."""

from typing import Any

from catwalk.types import Item, Task

__all__ = ["BOOLQ"]

_CHOICES = ("yes", "no")


def _render(row: dict[str, Any], id: str) -> Item:
    context = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    return Item(
        id=id,
        contexts=(context, context),
        continuations=tuple(f" {choice}" for choice in _CHOICES),
        label=0 if row["answer"] else 1,
        texts=(row["passage"], f"{row['question']}?"),
    )


BOOLQ = Task(
    name="boolq",
    summary="yes/no questions on a Wikipedia passage",
    source="BoolQ",
    licence="CC BY-SA 3.0",
    arrow_directory="boolq/none",
    primary_metric="acc_raw",  # OLMo (arXiv:2402.00838) appendix
    fields={"question": str, "answer": bool, "passage": str},
    render=_render,
)

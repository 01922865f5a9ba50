"""Social IQa (Sap et al. 2019, arXiv:1904.09728): reasoning about people's motives and reactions."""

from typing import Any

from catwalk.types import Item, Task

__all__ = ["SOCIAL_I_QA"]


def _render(row: dict[str, Any], id: str) -> Item:
    context = f"Question: {row['context']} {row['question']}\nAnswer:"
    choices = (row["answerA"], row["answerB"], row["answerC"])
    return Item(
        id=id,
        contexts=(context,) * 3,
        continuations=tuple(f" {choice}" for choice in choices),
        label=int(row["label"]) - 1,
        texts=(row["context"], row["question"], *choices),
    )


SOCIAL_I_QA = Task(
    name="social_i_qa",
    summary="people's motives and reactions, three choices",
    source="Social IQa",
    licence="not stated",
    arrow_directory="social_i_qa/none",
    primary_metric="acc_unconditional",  # Catwalk's setting for social_iqa
    fields={"context": str, "question": str, "answerA": str, "answerB": str, "answerC": str, "label": str},
    render=_render,
)

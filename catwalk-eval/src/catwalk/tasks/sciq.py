"""SciQ (Welbl et al. 2017, arXiv:1707.06209): science exam questions with a supporting passage."""

from typing import Any

from catwalk.types import Item, Task

__all__ = ["SCIQ"]


def _render(row: dict[str, Any], id: str) -> Item:
    # a row without a passage begins with "Question:": the blank line that an empty passage would leave is stripped
    context = f"{row['support']}\nQuestion: {row['question']}\nAnswer:".strip()
    choices = (row["distractor1"], row["distractor2"], row["distractor3"], row["correct_answer"])
    return Item(
        id=id,
        contexts=(context,) * len(choices),
        continuations=tuple(f" {choice}" for choice in choices),
        label=3,
        texts=(row["support"], row["question"], *choices),
    )


SCIQ = Task(
    name="sciq",
    summary="science exam questions with a supporting passage",
    source="SciQ",
    licence="CC BY-NC 3.0",
    arrow_directory="sciq/none",
    primary_metric="acc_raw",  # OLMo (arXiv:2402.00838) appendix
    fields={
        "question": str,
        "distractor1": str,
        "distractor2": str,
        "distractor3": str,
        "correct_answer": str,
        "support": str,
    },
    render=_render,
)

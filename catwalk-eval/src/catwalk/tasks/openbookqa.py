"""OpenBookQA (Mihaylov et al. 2018, arXiv:1809.02789): science facts, the stem goes on in the choice."""

from typing import Any

from catwalk.tasks.arc import lettered_choices
from catwalk.types import Item, Task

__all__ = ["OPENBOOKQA"]


def _render(row: dict[str, Any], id: str) -> Item:
    choices, label = lettered_choices(row)
    return Item(
        id=id,
        contexts=(row["question_stem"],) * len(choices),
        continuations=tuple(f" {choice}" for choice in choices),
        label=label,
        texts=(row["question_stem"], *choices),
    )


OPENBOOKQA = Task(
    name="openbookqa",
    summary="elementary science, the question's stem goes on in the choice",
    source="OpenBookQA, main",
    licence="Apache-2.0 (repository)",
    arrow_directory="openbookqa/main",
    primary_metric="acc_unconditional",  # OLMo (arXiv:2402.00838) appendix
    fields={"id": str, "question_stem": str, "choices": dict, "answerKey": str},
    render=_render,
)

"""ARC easy and challenge (Clark et al. 2018, arXiv:1803.05457) and CommonsenseQA (arXiv:1811.00937)."""

from typing import Any

from catwalk.types import Item, Task

__all__ = ["ARC_CHALLENGE", "ARC_EASY", "COMMONSENSE_QA", "lettered_choices"]


def lettered_choices(row: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    """Choice texts and the gold index of a row with `choices: {text, label}` and `answerKey`."""
    texts, letters = row["choices"]["text"], row["choices"]["label"]
    return tuple(texts), list(letters).index(row["answerKey"].strip())


def _render(row: dict[str, Any], id: str) -> Item:
    choices, label = lettered_choices(row)
    context = f"Question: {row['question']}\nAnswer:"
    return Item(
        id=id,
        contexts=(context,) * len(choices),
        continuations=tuple(f" {choice}" for choice in choices),
        label=label,
        texts=(row["question"], *choices),
    )


_FIELDS: dict[str, type] = {"id": str, "question": str, "choices": dict, "answerKey": str}

ARC_EASY = Task(
    name="arc_easy",
    summary="grade-school science questions that simple retrieval answers",
    source="AI2 ARC, ARC-Easy",
    licence="CC BY-SA 4.0",
    arrow_directory="ai2_arc/ARC-Easy",
    primary_metric="acc_unconditional",  # OLMo (arXiv:2402.00838) appendix: normalised by the unconditional prompt
    fields=_FIELDS,
    render=_render,
)
ARC_CHALLENGE = Task(
    name="arc_challenge",
    summary="grade-school science questions that simple retrieval fails",
    source="AI2 ARC, ARC-Challenge",
    licence="CC BY-SA 4.0",
    arrow_directory="ai2_arc/ARC-Challenge",
    primary_metric="acc_unconditional",  # OLMo (arXiv:2402.00838) appendix
    fields=_FIELDS,
    render=_render,
)
COMMONSENSE_QA = Task(
    name="commonsense_qa",
    summary="questions on everyday knowledge, five choices",
    source="CommonsenseQA",
    licence="MIT",
    arrow_directory="tau/commonsense_qa/none",
    primary_metric="acc_unconditional",  # Catwalk's setting for csqa
    fields=_FIELDS,
    render=_render,
)

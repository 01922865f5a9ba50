"""TruthfulQA, multiple choice (Lin et al. 2022, arXiv:2109.07958).

`mc1`: whether the best true answer is likelier than every false one. `mc2`: the probability of the true answers among
all answers.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...formats.contract import Fields
from ..items import Benchmark, Item, Loading, Row, Score
from ..sources import find_files, read_records, read_text

__all__ = ["TRUTHFULQA"]


def _sentences(text: str) -> list[str]:
    """The answers of a cell of the published table, each ending in a full stop."""
    answers = [one.strip() for one in text.split(";")]
    return [one if one.endswith(".") else f"{one}." for one in answers if one]


def _answers(row: Fields) -> tuple[list[str], list[str], list[str], list[str]]:
    """True and false answers of mc1, then of mc2."""
    if "Best Answer" in row.value:
        best, false = (_sentences(row.string(name)) for name in ("Best Answer", "Incorrect Answers"))
        return best, false, _sentences(row.string("Correct Answers")), false
    found: list[list[str]] = []
    for name in ("mc1_targets", "mc2_targets"):
        target = row.object(name)
        if "choices" in target.value:
            choices, labels = target.array("choices"), target.array("labels")
        else:  # the authors' mc_task.json: {answer: 0 or 1}
            choices, labels = list(target.value), list(target.value.values())
        if len(choices) != len(labels) or not all(isinstance(choice, str) and choice.strip() for choice in choices):
            raise row.error("invalid_value", name, "is not a list of texts with a label each; expected choices, labels")
        if not all(label in (0, 1) for label in labels):
            raise row.error("invalid_value", name, "has a label that is neither 0 nor 1; expected 1 for true answers")
        for wanted in (1, 0):
            found.append([choice for choice, label in zip(choices, labels, strict=True) if label == wanted])
    return found[0], found[1], found[2], found[3]


def _load(loading: Loading) -> tuple[list[Item], list[Path]]:
    names = ("truthfulqa/*.csv", "truthfulqa/*.jsonl", "TruthfulQA.csv", "truthfulqa*.jsonl")
    files = find_files(loading.directory, names, "TruthfulQA.csv")
    primer = find_files(loading.directory, ("truthfulqa/primer.txt",), "a primer", optional=True)
    preamble = read_text(primer[0]).strip() + "\n\n" if primer and loading.style == "text" else ""
    items: list[Item] = []
    for path in files:
        for row in read_records(path):
            sets = _answers(row)
            if not all(sets):
                raise row.error("invalid_value", "question", "lacks true or false answers; expected both")
            question = row.string("Question" if "Question" in row.value else "question", not_empty=True).strip()
            choices = tuple(dict.fromkeys(answer for answers in sets for answer in answers))
            items.append(
                Item(
                    id=str(len(items)),
                    preamble=preamble,
                    question=f"Q: {question}" if loading.style == "text" else question,
                    text_cue="\nA:",
                    choices=tuple(f" {choice}" for choice in choices) if loading.style == "text" else choices,
                    more={"sets": tuple(tuple(choices.index(one) for one in answers) for answers in sets)},
                )
            )
    return items, files + (primer if preamble else [])


def _grade(item: Item, scores: Sequence[Score]) -> Row:
    best, false, correct, incorrect = item.more["sets"]
    sums = [score.sum_logprob for score in scores]
    mc1 = max(sums[place] for place in best) > max(sums[place] for place in false)
    return {
        "id": item.id,
        "scores": {"mc1": float(mc1), "mc2": _share(sums, correct, incorrect)},
        "sum_logprobs": sums,
    }


def _share(sums: Sequence[float], true: Iterable[int], false: Iterable[int]) -> float:
    """The probability of the true answers over that of all."""
    places = {*true, *false}
    highest = max(sums[place] for place in places)
    weights = {place: math.exp(sums[place] - highest) for place in places}
    return math.fsum(weights[place] for place in set(true)) / math.fsum(weights.values())


TRUTHFULQA = Benchmark(
    name="truthfulqa",
    summary="questions that some people would answer falsely; likelihood of given answers",
    source="arXiv:2109.07958",
    files="truthfulqa/TruthfulQA.csv, or truthfulqa/*.jsonl (question, mc1_targets, mc2_targets)",
    primary_metric="mc2",
    load=_load,
    grade_choices=_grade,
    split="validation",
)

"""The benchmarks: how a row of each becomes a prompt with choices, and the sets that they form.

A task is a value of `Task`. To add one, write a function that renders a row and add an entry to `_ALL`. The prompts are
the zero-shot prompts of OLMo (arXiv:2402.00838) and Catwalk; `catwalk show TASK` prints them.
"""

import difflib
import re
from collections.abc import Sequence
from typing import Any

from catwalk.formats.contract import ConfigError
from catwalk.types import Item, Task

__all__ = ["TASKS", "TASK_SETS", "find_tasks"]

Row = dict[str, Any]


def _item(id: str, context: str, choices: Sequence[str], label: int, *texts: str) -> Item:
    """An item whose choices share one context; `texts` are the item's words without the template."""
    return Item(
        id=id,
        contexts=(context,) * len(choices),
        continuations=tuple(f" {choice}" for choice in choices),
        label=label,
        texts=texts,
    )


# ---- science and general knowledge


def _lettered(row: Row) -> tuple[list[str], int]:
    """Choices and the index of the right one, from `choices: {text, label}` and `answerKey`."""
    return list(row["choices"]["text"]), list(row["choices"]["label"]).index(row["answerKey"].strip())


def _question(row: Row, id: str) -> Item:
    """ARC (Clark et al. 2018, arXiv:1803.05457) and CommonsenseQA (Talmor et al. 2019, arXiv:1811.00937)."""
    choices, label = _lettered(row)
    return _item(id, f"Question: {row['question']}\nAnswer:", choices, label, row["question"], *choices)


def _openbookqa(row: Row, id: str) -> Item:
    """OpenBookQA (Mihaylov et al. 2018, arXiv:1809.02789): the choice completes the stem."""
    choices, label = _lettered(row)
    return _item(id, row["question_stem"], choices, label, row["question_stem"], *choices)


def _sciq(row: Row, id: str) -> Item:
    """SciQ (Welbl et al. 2017, arXiv:1707.06209). A row without a passage starts with "Question:", no blank line."""
    context = f"{row['support']}\nQuestion: {row['question']}\nAnswer:".strip()
    choices = [row[key] for key in ("distractor1", "distractor2", "distractor3", "correct_answer")]
    return _item(id, context, choices, 3, row["support"], row["question"], *choices)


def _boolq(row: Row, id: str) -> Item:
    """BoolQ (Clark et al. 2019, arXiv:1905.10044)."""
    question = f"{row['question']}?"
    context = f"{row['passage']}\nQuestion: {question}\nAnswer:"
    return _item(id, context, ("yes", "no"), 0 if row["answer"] else 1, row["passage"], question)


# ---- common sense


def _piqa(row: Row, id: str) -> Item:
    """PIQA (Bisk et al. 2020, arXiv:1911.11641)."""
    choices = row["sol1"], row["sol2"]
    return _item(id, f"Question: {row['goal']}\nAnswer:", choices, row["label"], row["goal"], *choices)


def _social_i_qa(row: Row, id: str) -> Item:
    """Social IQa (Sap et al. 2019, arXiv:1904.09728). Labels count from 1."""
    context = f"Question: {row['context']} {row['question']}\nAnswer:"
    choices = row["answerA"], row["answerB"], row["answerC"]
    return _item(id, context, choices, int(row["label"]) - 1, row["context"], row["question"], *choices)


def _copa(row: Row, id: str) -> Item:
    """COPA (Roemmele et al. 2011): a connector replaces the premise's full stop; the choice starts in lower case."""
    connector = {"cause": "because", "effect": "therefore"}[row["question"]]
    choices = row["choice1"], row["choice2"]
    lowered = [choice[:1].lower() + choice[1:] for choice in choices]
    return _item(id, f"{row['premise'].strip()[:-1]} {connector}", lowered, row["label"], row["premise"], *choices)


def _hellaswag(row: Row, id: str) -> Item:
    """HellaSwag (Zellers et al. 2019, arXiv:1905.07830), without WikiHow's marks."""

    def clean(text: str) -> str:
        return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")

    context = clean(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
    choices = [clean(ending) for ending in row["endings"]]
    return _item(id, context, choices, int(row["label"]), row["ctx"], *choices)


def _winogrande(row: Row, id: str) -> Item:
    """WinoGrande (Sakaguchi et al. 2020, arXiv:1907.10641): each option is in a context of its own, and the rest of the
    sentence is scored."""
    before, after = row["sentence"].split("_", 1)
    options = row["option1"], row["option2"]
    return Item(
        id=id,
        contexts=tuple(f"{before}{option}" for option in options),
        continuations=(f" {after.strip()}",) * 2,
        label=int(row["answer"]) - 1,
        texts=tuple(f"{before}{option}{after}" for option in options),
    )


# ---- GLUE (arXiv:1804.07461) and SuperGLUE (arXiv:1905.00537)


def _rte(row: Row, id: str) -> Item:
    """Label 0 is entailment."""
    first, second = row["sentence1"], row["sentence2"]
    context = f"{first}\nQuestion: {second} True or False?\nAnswer:"
    return _item(id, context, ("True", "False"), row["label"], first, second)


def _commitment_bank(row: Row, id: str) -> Item:
    """Labels: 0 entailment, 1 contradiction, 2 neutral."""
    premise, hypothesis = row["premise"], row["hypothesis"]
    context = f"{premise}\nQuestion: {hypothesis}. True, False or Neither?\nAnswer:"
    return _item(id, context, ("True", "False", "Neither"), row["label"], premise, hypothesis)


def _mrpc(row: Row, id: str) -> Item:
    first, second = row["sentence1"], row["sentence2"]
    question = "Do both sentences mean the same thing?"
    context = f"Sentence 1: {first}\nSentence 2: {second}\nQuestion: {question}\nAnswer:"
    return _item(id, context, ("no", "yes"), row["label"], first, second)


def _sst2(row: Row, id: str) -> Item:
    sentence = row["sentence"].strip()
    context = f"{sentence}\nQuestion: Is this sentence positive or negative?\nAnswer:"
    return _item(id, context, ("negative", "positive"), row["label"], sentence)


# ---- the list

_LETTERED: dict[str, type] = {"id": str, "question": str, "choices": dict, "answerKey": str}
_PAIR: dict[str, type] = {"sentence1": str, "sentence2": str, "label": int}

# Primary metrics: those of the OLMo paper's appendix for the core tasks, Catwalk's settings for the others.
_ALL = (
    Task(
        name="arc_challenge",
        summary="grade-school science questions that simple retrieval fails",
        source="AI2 ARC, ARC-Challenge",
        licence="CC BY-SA 4.0",
        arrow_directory="ai2_arc/ARC-Challenge",
        primary_metric="acc_unconditional",
        fields=_LETTERED,
        render=_question,
    ),
    Task(
        name="arc_easy",
        summary="grade-school science questions that simple retrieval answers",
        source="AI2 ARC, ARC-Easy",
        licence="CC BY-SA 4.0",
        arrow_directory="ai2_arc/ARC-Easy",
        primary_metric="acc_unconditional",
        fields=_LETTERED,
        render=_question,
    ),
    Task(
        name="boolq",
        summary="yes/no questions on a Wikipedia passage",
        source="BoolQ",
        licence="CC BY-SA 3.0",
        arrow_directory="boolq/none",
        primary_metric="acc_raw",
        fields={"question": str, "answer": bool, "passage": str},
        render=_boolq,
    ),
    Task(
        name="commitment_bank",
        summary="is the author committed to an embedded clause",
        source="SuperGLUE, CommitmentBank",
        licence="not stated",
        arrow_directory="super_glue/cb",
        primary_metric="acc_raw",
        fields={"premise": str, "hypothesis": str, "label": int},
        render=_commitment_bank,
    ),
    Task(
        name="commonsense_qa",
        summary="questions on everyday knowledge, five choices",
        source="CommonsenseQA",
        licence="MIT",
        arrow_directory="tau/commonsense_qa/none",
        primary_metric="acc_unconditional",
        fields=_LETTERED,
        render=_question,
    ),
    Task(
        name="copa",
        summary="the more plausible cause or effect of a premise",
        source="SuperGLUE, COPA",
        licence="BSD-2-Clause",
        arrow_directory="super_glue/copa",
        primary_metric="acc_raw",
        fields={"premise": str, "choice1": str, "choice2": str, "question": str, "label": int},
        render=_copa,
    ),
    Task(
        name="hellaswag",
        summary="the right end of a description of an activity",
        source="HellaSwag",
        licence="MIT",
        arrow_directory="hellaswag/none",
        primary_metric="acc_per_token",
        fields={"activity_label": str, "ctx_a": str, "ctx_b": str, "ctx": str, "endings": list, "label": str},
        render=_hellaswag,
    ),
    Task(
        name="mrpc",
        summary="do two sentences say the same",
        source="GLUE, MRPC",
        licence="not stated",
        arrow_directory="glue/mrpc",
        primary_metric="acc_raw",
        fields=_PAIR,
        render=_mrpc,
    ),
    Task(
        name="openbookqa",
        summary="elementary science; the choice completes the question's stem",
        source="OpenBookQA, main",
        licence="Apache-2.0 (repository)",
        arrow_directory="openbookqa/main",
        primary_metric="acc_unconditional",
        fields={"id": str, "question_stem": str, "choices": dict, "answerKey": str},
        render=_openbookqa,
    ),
    Task(
        name="piqa",
        summary="which of two ways reaches an everyday goal",
        source="PIQA",
        licence="AFL-3.0",
        arrow_directory="piqa/plain_text",
        primary_metric="acc_per_token",
        fields={"goal": str, "sol1": str, "sol2": str, "label": int},
        render=_piqa,
    ),
    Task(
        name="rte",
        summary="does the first sentence entail the second",
        source="GLUE, RTE",
        licence="not stated",
        arrow_directory="glue/rte",
        primary_metric="acc_raw",
        fields=_PAIR,
        render=_rte,
    ),
    Task(
        name="sciq",
        summary="science exam questions with a supporting passage",
        source="SciQ",
        licence="CC BY-NC 3.0",
        arrow_directory="sciq/none",
        primary_metric="acc_raw",
        fields=dict.fromkeys(
            ("question", "distractor1", "distractor2", "distractor3", "correct_answer", "support"), str
        ),
        render=_sciq,
    ),
    Task(
        name="social_i_qa",
        summary="people's motives and reactions, three choices",
        source="Social IQa",
        licence="not stated",
        arrow_directory="social_i_qa/none",
        primary_metric="acc_unconditional",
        fields=dict.fromkeys(("context", "question", "answerA", "answerB", "answerC", "label"), str),
        render=_social_i_qa,
    ),
    Task(
        name="sst2",
        summary="sentiment of a sentence from a film review",
        source="GLUE, SST-2",
        licence="not stated",
        arrow_directory="glue/sst2",
        primary_metric="acc_raw",
        fields={"sentence": str, "label": int},
        render=_sst2,
    ),
    Task(
        name="winogrande",
        summary="whom a blank means; the option is in the context, the rest of the sentence is scored",
        source="WinoGrande XL",
        licence="CC BY 4.0",
        arrow_directory="winogrande/winogrande_xl",
        primary_metric="acc_per_token",
        fields=dict.fromkeys(("sentence", "option1", "option2", "answer"), str),
        render=_winogrande,
    ),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}

# The zero-shot tasks of the OLMo paper, without and with HellaSwag, whose full split takes longest.
_CORE8 = ("arc_challenge", "arc_easy", "boolq", "copa", "openbookqa", "piqa", "sciq", "winogrande")
TASK_SETS: dict[str, tuple[str, ...]] = {
    "core8": _CORE8,
    "core9": (*_CORE8[:4], "hellaswag", *_CORE8[4:]),
    "all": tuple(TASKS),
}


def find_tasks(names: tuple[str, ...]) -> list[Task]:
    """Tasks by name or by set, each once, sorted by name.

    Raises:
        ConfigError: every unknown name, each with the nearest known one.
    """
    found: set[str] = set()
    problems = []
    for name in names:
        if name in TASK_SETS:
            found.update(TASK_SETS[name])
        elif name in TASKS:
            found.add(name)
        else:
            near = difflib.get_close_matches(name, [*TASKS, *TASK_SETS], n=1, cutoff=0.0)[0]
            problems.append(f'tasks: unknown task "{name}" (nearest: "{near}")')
    if problems:
        raise ConfigError(*problems, hint="catwalk list shows every task")
    return [TASKS[name] for name in sorted(found)]

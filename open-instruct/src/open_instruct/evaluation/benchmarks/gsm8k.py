"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): word problems, worked out in steps; the last number is the answer."""

import re
from pathlib import Path

from ...formats.contract import Fields
from ..items import Benchmark, Item, Loading, Row, Tools
from ..sources import find_files, read_records

__all__ = ["GSM8K", "last_number"]

_SHOTS = 8  # of a chain of thought, as Wei et al. 2022 (arXiv:2201.11903)
_NUMBER = re.compile(r"(?<![0-9.,])-?\$?[0-9](?:[0-9,]*[0-9])?(?:\.[0-9]+)?")


def last_number(text: str) -> str | None:
    """The last number of a text, without thousands separators and a final `.0`; None if it has none."""
    found = _NUMBER.findall(text)
    if not found:
        return None
    number = found[-1].replace(",", "").replace("$", "")
    sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number)
    whole, _, fraction = digits.partition(".")
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    return ("" if (whole, fraction) == ("0", "") else sign) + whole + (f".{fraction}" if fraction else "")


def _worked(answer: str) -> str:
    """The reasoning of a row's answer without the calculator's marks, and the answer as a sentence."""
    reasoning, _, result = re.sub(r"<<[^<>]*>>", "", answer).rpartition("####")
    return f"{reasoning.strip()}\nThe answer is {result.strip()}."


def _result(row: Fields) -> str:
    answer = row.string("answer")
    found = last_number(answer.rpartition("####")[2])
    if found is None:
        raise row.error("invalid_value", "answer", "ends without a number; expected one after ####")
    return found


def _load(loading: Loading) -> tuple[list[Item], list[Path]]:
    files = find_files(loading.directory, ("gsm8k/test*.jsonl", "test*.jsonl"), "GSM8K's test split")
    shots = _SHOTS if loading.shots is None else loading.shots
    training = find_files(loading.directory, ("gsm8k/train*.jsonl", "train*.jsonl"), "training rows", optional=True)
    blocks: list[str] = []
    if shots and training:
        files += training[:1]
        for row in read_records(training[0]):
            blocks.append(_block(row.string("question"), _worked(row.string("answer"))))
            if len(blocks) == shots:
                break
    blocks = blocks or [_block(question, answer) for question, answer in _OWN[:shots]]
    items: list[Item] = []
    for path in files[: len(files) - bool(shots and training)]:
        for row in read_records(path):
            items.append(
                Item(
                    id=str(len(items)),
                    preamble="Solve each problem step by step, and end with the answer as a number.\n\n",
                    examples=tuple(blocks),
                    question=f"Question: {row.string('question').strip()}",
                    text_cue="\nAnswer:",
                    references=(_result(row),),
                )
            )
    return items, files


def _block(question: str, answer: str) -> str:
    return f"Question: {question.strip()}\nAnswer: {answer}\n\n"


def _grade(item: Item, answer: str, tools: Tools) -> list[Row]:
    return [{"id": item.id, "scores": {"exact_match": float(last_number(answer) == item.references[0])}}]


# Used if the data directory has no training split: problems of ours, in the style of a chain of thought.
_OWN = (
    (
        "A tray holds 6 rows of 4 muffins. Lena takes out 5 muffins. How many are left on the tray?",
        "The tray holds 6 * 4 = 24 muffins. After Lena takes out 5, 24 - 5 = 19 are left.\nThe answer is 19.",
    ),
    (
        "Omar reads 12 pages on Monday and twice as many on Tuesday. How many pages does he read on both days?",
        "On Tuesday he reads 12 * 2 = 24 pages. On both days he reads 12 + 24 = 36 pages.\nThe answer is 36.",
    ),
    (
        "A jacket costs $80. In a sale its price falls by a quarter. What does it cost in the sale, in dollars?",
        "A quarter of 80 is 80 / 4 = 20. The jacket costs 80 - 20 = 60 dollars.\nThe answer is 60.",
    ),
    (
        "A train leaves at 9 o'clock and drives 3 hours at 70 miles an hour. How many miles does it drive?",
        "In 3 hours it drives 3 * 70 = 210 miles.\nThe answer is 210.",
    ),
    (
        "Five friends share a bill of $45 and a tip of $5 equally. How many dollars does each pay?",
        "Together they pay 45 + 5 = 50 dollars. Each pays 50 / 5 = 10 dollars.\nThe answer is 10.",
    ),
    (
        "A farm has 15 hens. Each lays 4 eggs a week. Eggs are sold by the dozen. How many dozens does it sell a week?",
        "The hens lay 15 * 4 = 60 eggs a week. That is 60 / 12 = 5 dozens.\nThe answer is 5.",
    ),
    (
        "Nina is 8 years older than her brother, who is half as old as their cousin of 20. How old is Nina?",
        "Her brother is 20 / 2 = 10 years old. Nina is 10 + 8 = 18 years old.\nThe answer is 18.",
    ),
    (
        "A tank of 90 litres gets 12 litres a minute and leaks 3 litres a minute. In how many minutes is it full?",
        "Each minute adds 12 - 3 = 9 litres. It is full after 90 / 9 = 10 minutes.\nThe answer is 10.",
    ),
)

GSM8K = Benchmark(
    name="gsm8k",
    summary="grade-school word problems, worked out in steps; the last number of the answer",
    source="arXiv:2110.14168",
    files="gsm8k/test*.jsonl (question, answer); gsm8k/train*.jsonl for the examples",
    primary_metric="exact_match",
    load=_load,
    grade=_grade,
    stop=("\nQuestion:", "\n\n\n"),
)

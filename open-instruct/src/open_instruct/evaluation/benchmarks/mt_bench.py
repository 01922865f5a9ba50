"""MT-Bench (Zheng et al. 2023, arXiv:2306.05685): two turns of chat; a judge compares two models' answers.

The judge sees each pair in both orders. A model wins if it wins in both; any other outcome is a tie (section 3.4).
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...formats.chat import Message
from ...formats.contract import ConfigError
from ..items import Asking, Benchmark, Contest, Decoding, Item, Loading, Model, Prompt, Row
from ..sources import find_files, read_records

__all__ = ["MT_BENCH", "ModelOpponent", "RecordedOpponent", "verdict"]

log = logging.getLogger(__name__)
_JUDGE_TOKENS = 1024
_VERDICTS = {"[[A]]": "first", "[[B]]": "second", "[[C]]": "tie"}
_RULES = (
    "You compare two assistants that answered the same user. Judge how well each follows the user's instructions, and "
    "how correct, helpful, relevant, deep and detailed its answers are. The order in which you see them, their names "
    "and their length do not count. First explain your comparison in a few sentences. Then end with your verdict in "
    "exactly this form: [[A]] if assistant A is better, [[B]] if assistant B is better, [[C]] if they are equally good."
)


def verdict(text: str) -> str | None:
    """`first`, `second` or `tie`: the last verdict that a judge wrote; None if it wrote none."""
    found = re.findall(r"\[\[[ABC]\]\]", text)
    return _VERDICTS[found[-1]] if found else None


@dataclass(frozen=True)
class ModelOpponent:
    """A model that answers now."""

    model: Model

    def turn(self, asking: Asking, items: Sequence[Item], turn: int, decoding: Decoding) -> list[str]:
        """Its answers, after its own earlier ones."""
        return _answers(asking, self.model, items, decoding)[turn]


class RecordedOpponent:
    """Answers in a file: rows `{"question_id", "choices": [{"turns": [...]}]}`, as FastChat writes them."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises FormatError."""
        self._path = path
        self._turns: dict[str, list[str]] = {}
        for row in read_records(path):
            choices = row.objects("choices")
            if not choices:
                raise row.error("invalid_value", "choices", "is empty; expected one with turns")
            turns = choices[0].array("turns")
            if not all(isinstance(turn, str) for turn in turns):
                raise row.error("wrong_type", "choices.0.turns", "has an answer that is not a string; expected strings")
            self._turns[str(row.get("question_id", "the question's"))] = turns

    def check(self, items: Sequence[Item]) -> None:
        """Check that every turn of the items is there. Raises ConfigError."""
        for item in items:
            found, wanted = len(self._turns.get(item.id, ())), len(item.more["turns"])
            if found < wanted:
                raise ConfigError(
                    f"opponent: {self._path} has {found} answers to question {item.id}; expected {wanted}"
                )

    def turn(self, asking: Asking, items: Sequence[Item], turn: int, decoding: Decoding) -> list[str]:
        """The recorded answers."""
        return [self._turns[item.id][turn] if turn < len(item.more["turns"]) else "" for item in items]


def _answers(asking: Asking, model: Model, items: Sequence[Item], decoding: Decoding) -> list[list[str]]:
    """The answers to each turn; those of an item without the turn are empty."""
    chats: list[list[Message]] = [[] for _ in items]
    found = []
    for turn in range(max(len(item.more["turns"]) for item in items)):
        going = [index for index, item in enumerate(items) if turn < len(item.more["turns"])]
        for index in going:
            chats[index].append({"role": "user", "content": items[index].more["turns"][turn]})
        prompts = [Prompt(messages=tuple(chats[index])) for index in going]
        texts = [""] * len(items)
        for index, answer in zip(
            going, asking.answers(f"mt_bench, turn {turn + 1}", model, prompts, decoding), strict=True
        ):
            texts[index] = answer.text
            chats[index].append({"role": "assistant", "content": answer.text})
        found.append(texts)
    return found


def _load(loading: Loading) -> tuple[list[Item], list[Path]]:
    names = ("mt_bench/question*.jsonl", "mt_bench_question*.jsonl", "question.jsonl")
    files = find_files(loading.directory, names, "MT-Bench's questions")
    items: list[Item] = []
    for path in files:
        for row in read_records(path):
            turns = row.array("turns")
            if not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
                raise row.error("invalid_value", "turns", "is not a list of questions; expected at least one")
            reference = row.value.get("reference") or []
            items.append(
                Item(
                    id=str(row.get("question_id", "a number")),
                    question=turns[0],
                    group=row.string("category", not_empty=True),
                    more={"turns": turns, "reference": reference},
                )
            )
    return items, files


def _question(item: Item, ours: Sequence[str], theirs: Sequence[str]) -> Prompt:
    """What the judge is asked about two assistants' answers."""
    parts = []
    for turn, text in enumerate(item.more["turns"]):
        if turn < len(item.more["reference"]):
            parts.append(f"[Reference answer to question {turn + 1}]\n{item.more['reference'][turn]}")
        parts.append(f"[User's question {turn + 1}]\n{text}")
    for name, answers in (("A", ours), ("B", theirs)):
        for turn in range(len(item.more["turns"])):
            parts.append(f"[Assistant {name}'s answer {turn + 1}]\n{answers[turn]}\n[End of the answer]")
    # one message: not every template has a place for a system message
    return Prompt(messages=({"role": "user", "content": "\n\n".join([_RULES, *parts])},))


def _hold(items: Sequence[Item], contest: Contest) -> list[Row]:
    opponent, judge = contest.tools.opponent, contest.tools.judge
    assert opponent is not None
    assert judge is not None
    ours = list(zip(*_answers(contest.asking, contest.model, items, contest.decoding), strict=True))
    count = max(len(item.more["turns"]) for item in items)
    turns = [opponent.turn(contest.asking, items, turn, contest.decoding) for turn in range(count)]
    theirs = list(zip(*turns, strict=True))
    asked = [_question(item, a, b) for item, a, b in zip(items, ours, theirs, strict=True)]
    asked += [_question(item, b, a) for item, a, b in zip(items, ours, theirs, strict=True)]
    decoding = Decoding(max_tokens=_JUDGE_TOKENS)
    said = [answer.text for answer in contest.asking.answers("mt_bench, the judge", judge, asked, decoding)]
    rows: list[Row] = [
        {"id": item.id, "group": item.group, "scores": _outcome(verdict(one), verdict(other))}
        | {"answers": list(a), "opponent": list(b), "judgements": [one, other]}
        for item, a, b, one, other in zip(items, ours, theirs, said[: len(items)], said[len(items) :], strict=True)
    ]
    unread = sum(int(row["scores"]["unreadable"]) for row in rows)
    if unread:
        log.warning("mt_bench: %d of %d questions have a judgement without a verdict; they are ties", unread, len(rows))
    return rows


def _outcome(straight: str | None, swapped: str | None) -> Mapping[str, float]:
    """Scores of the model in a pair, from the verdicts where it came first and where it came second."""
    one = {"first": 1, "second": -1, "tie": 0, None: 0}[straight]
    other = {"first": -1, "second": 1, "tie": 0, None: 0}[swapped]
    unreadable = straight is None or swapped is None
    won, lost = one == other == 1, one == other == -1
    return {
        "win_rate": 1.0 if won else 0.0 if lost else 0.5,
        "won": float(won),
        "lost": float(lost),
        "disagreement": float(not unreadable and one != other),
        "first_preferred": (float(straight == "first") + float(swapped == "first")) / 2,
        "unreadable": float(unreadable),
    }


MT_BENCH = Benchmark(
    name="mt_bench",
    summary="two turns of chat; a judge compares with another model in both orders (a tie counts half)",
    source="arXiv:2306.05685",
    files="mt_bench/question*.jsonl (question_id, category, turns, and reference if there is one)",
    primary_metric="win_rate",
    load=_load,
    hold=_hold,
    max_tokens=1024,
    only_chat=True,
    needs=("judge", "opponent"),
)

"""The table of verifiers: from a row's `ground_truth` to a function that scores an answer between 0 and 1.

A verifier first reads the truth and raises ValueError, which says what it expected, so that bad rows are found before
work starts. Then any text has a score, whatever a model wrote.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..evaluation.benchmarks.gsm8k import last_number
from ..evaluation.benchmarks.instructions import INSTRUCTIONS, follows
from .mathematics import final_answer, is_same
from .overlap import squad_tokens, token_f1

__all__ = ["VERIFIERS", "Score", "join", "make_verifier"]

Score = Callable[[str], float]
_REASONING = re.compile(r"\s*<think>(.*)</think>(.*)", re.DOTALL)


def _text(truth: Any) -> str:
    """Read a truth that is a text or a number. Raises ValueError."""
    if isinstance(truth, int | float) and not isinstance(truth, bool):
        return str(truth)
    if not isinstance(truth, str) or not truth.strip():
        raise ValueError("expected a text")
    return truth


def _texts(truth: Any) -> list[str]:
    """Read a truth that is a text, or a list of texts of which one must be given. Raises ValueError."""
    found = truth if isinstance(truth, list) else [truth]
    if not found:
        raise ValueError("expected at least one text")
    return [_text(one) for one in found]


def _gsm8k(truth: Any) -> Score:
    """1 if the last number of the answer equals that of the truth; thousands separators and a final .0 do not count."""
    number = last_number(_text(truth))
    if number is None:
        raise ValueError("expected a text with a number")
    return lambda answer: float(last_number(answer) == number)


def _math(truth: Any) -> Score:
    r"""1 if the answer's last `\boxed{…}`, or what follows its last "answer is", is the same as the truth's."""
    text = _text(truth)
    wanted = final_answer(text) or text

    def score(answer: str) -> float:
        found = final_answer(answer)
        return float(found is not None and is_same(found, wanted))

    return score


def _exact_match(truth: Any) -> Score:
    """1 if the answer is the truth, up to white space."""
    wanted = {" ".join(one.split()) for one in _texts(truth)}
    return lambda answer: float(" ".join(answer.split()) in wanted)


def _f1(truth: Any) -> Score:
    """The harmonic mean of precision and recall of the words, as SQuAD counts them; the best of several truths."""
    wanted = [squad_tokens(one) for one in _texts(truth)]
    if not all(wanted):
        raise ValueError("expected a text with words")
    return lambda answer: max(token_f1(squad_tokens(answer), one) for one in wanted)


def _regex(truth: Any) -> Score:
    """1 if the pattern is found in the answer; it should not nest repetitions, which take exponential time."""
    try:
        pattern = re.compile(_text(truth))
    except re.error as error:
        raise ValueError(f"expected a regular expression ({error})") from error
    return lambda answer: float(pattern.search(answer) is not None)


def _think(truth: Any) -> Score:
    """1 if the answer is `<think>`, reasoning, `</think>` and then text, each mark once; the truth is null."""
    if truth is not None:
        raise ValueError("expected null")

    def score(answer: str) -> float:
        match = _REASONING.fullmatch(answer)
        once = answer.count("<think>") == 1 and answer.count("</think>") == 1
        return float(once and match is not None and bool(match[1].strip()) and bool(match[2].strip()))

    return score


def _ifeval(truth: Any) -> Score:
    """The share of the instructions that are followed; the truth has IFEval's `instruction_id_list` and `kwargs`."""
    if not isinstance(truth, Mapping):
        raise ValueError('expected an object with "instruction_id_list" and "kwargs"')
    names, arguments = truth.get("instruction_id_list"), truth.get("kwargs")
    if not isinstance(names, list) or not names or not all(name in INSTRUCTIONS for name in names):
        raise ValueError('expected "instruction_id_list" with names of IFEval')
    if not isinstance(arguments, list) or len(arguments) != len(names):
        raise ValueError('expected "kwargs" with an object for each instruction')
    checks = []
    for name, given in zip(names, arguments, strict=True):
        if not isinstance(given, Mapping | None):
            raise ValueError('expected "kwargs" with an object for each instruction')
        values = {key: value for key, value in (given or {}).items() if value is not None}
        for key, kind in INSTRUCTIONS[name].arguments.items():
            if not isinstance(values.get(key), kind):
                raise ValueError(f'expected "{key}" of {name} as {kind.__name__}')
        checks.append((name, values))
    return lambda answer: sum(follows(answer, name, values) for name, values in checks) / len(checks)


VERIFIERS: dict[str, Callable[[Any], Score]] = {
    "gsm8k": _gsm8k,
    "math": _math,
    "ifeval": _ifeval,
    "exact_match": _exact_match,
    "f1": _f1,
    "regex": _regex,
    "think": _think,
}


def make_verifier(name: str, truth: Any) -> Score:
    """Return the function that scores answers. Raises ValueError: an unknown name, or a truth that does not fit it."""
    if name not in VERIFIERS:
        raise ValueError(f"expected one of {', '.join(VERIFIERS)}")
    return VERIFIERS[name](truth)


def join(scores: list[Score]) -> Score:
    """Return the mean of several scores as one."""
    return lambda answer: sum(score(answer) for score in scores) / len(scores)

"""Scores of generated text: small functions (generation, right answers) -> number, the best over the answers.

Exact match and F1 follow the definitions of SQuAD's evaluation (arXiv:1606.05250) and of DROP's (arXiv:1903.00161).
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib.util import find_spec
from typing import Any

from catwalk.formats.contract import ConfigError
from catwalk.sandbox import run_program
from catwalk.templates import boxed
from catwalk.types import Task

__all__ = ["METRICS", "Judge", "drop_f1", "equal", "exact_match", "extract_answer", "f1", "judge", "normalise"]

Judge = Callable[[str, tuple[str, ...]], dict[str, float]]
_Metric = Callable[[str, Sequence[str]], float]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


# ---- exact match and F1


def normalise(text: str) -> str:
    """SQuAD's normal form: lower case, without ASCII punctuation and articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(generation: str, references: Sequence[str]) -> float:
    """Whether the normal forms are equal."""
    return float(any(normalise(generation) == normalise(reference) for reference in references))


def equal(generation: str, references: Sequence[str]) -> float:
    """Whether the texts are equal, or the numbers that they are, whatever their white space.

    SQuAD's normal form has no signs, points and brackets: in it 1.5 is 15, and every answer of a task on brackets is
    right.
    """

    def form(text: str) -> str | Decimal:
        try:
            return Decimal(text.strip().replace(",", ""))
        except InvalidOperation:
            return " ".join(text.split())

    return float(any(form(generation) == form(reference) for reference in references))


def f1(generation: str, references: Sequence[str]) -> float:
    """The overlap of words in their normal form; without words on either side, whether both have none."""

    def one(reference: str) -> float:
        return _overlap(normalise(generation).split(), normalise(reference).split())

    return max(map(one, references))


def _overlap(found: Sequence[str], wanted: Sequence[str]) -> float:
    if not found or not wanted:
        return float(list(found) == list(wanted))
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted))


def _drop_words(text: str) -> list[str]:
    """DROP's normal form: split at spaces and hyphens, numbers by value, no articles, no punctuation in words."""
    words = []
    for word in re.split(r" |-", text):
        plain = word.lower() if _number(word) is not None else word.lower().translate(_PUNCTUATION)
        value = _number(plain)
        plain = str(value) if value is not None else plain
        words += _ARTICLES.sub(" ", plain).split()
    return words


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def drop_exact_match(generation: str, references: Sequence[str]) -> float:
    """Whether DROP's normal forms are equal."""
    return float(any(_drop_words(generation) == _drop_words(reference) for reference in references))


def drop_f1(generation: str, references: Sequence[str]) -> float:
    """DROP's F1 of one span: the overlap of distinct words, 0 if the answer has numbers and none is found."""

    def one(reference: str) -> float:
        found, wanted = set(_drop_words(generation)), set(_drop_words(reference))
        numbers = {word for word in wanted if _number(word) is not None}
        if numbers and not numbers & found:
            return 0.0
        return _overlap(sorted(found), sorted(wanted))

    return max(map(one, references))


# ---- by libraries

_LIBRARIES = {  # and the extras with them
    **dict.fromkeys(("rouge1", "rouge2", "rougeL"), ("rouge_score", "summaries")),
    **dict.fromkeys(("bleu", "chrf"), ("sacrebleu", "translation")),
    "sentiment": ("vaderSentiment", "bias"),
}


def _rouge(kind: str) -> _Metric:
    def score(generation: str, references: Sequence[str]) -> float:
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer([kind], use_stemmer=True)
        return max(float(scorer.score(reference, generation)[kind].fmeasure) for reference in references)

    return score


def _sacrebleu(kind: str) -> _Metric:
    def score(generation: str, references: Sequence[str]) -> float:
        import sacrebleu

        of_sentence = sacrebleu.sentence_bleu if kind == "bleu" else sacrebleu.sentence_chrf
        return float(of_sentence(generation, list(references)).score)

    return score


@cache
def _sentiment_analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def sentiment(generation: str, references: Sequence[str]) -> float:
    """VADER's compound score, from −1 to 1, as BOLD (arXiv:2101.11718) has it. There is no right answer."""
    return float(_sentiment_analyzer().polarity_scores(generation)["compound"])


# ---- programs


def pass_at_1(generation: str, references: Sequence[str]) -> float:
    """Whether the tests pass; the reference is the program with `<<GENERATION>>` where the generated text belongs."""
    return float(run_program(references[0].replace("<<GENERATION>>", generation)).passed)


METRICS: dict[str, _Metric] = {
    "exact_match": exact_match,
    "equal": equal,
    "f1": f1,
    "drop_exact_match": drop_exact_match,
    "drop_f1": drop_f1,
    "rouge1": _rouge("rouge1"),
    "rouge2": _rouge("rouge2"),
    "rougeL": _rouge("rougeL"),
    "bleu": _sacrebleu("bleu"),
    "chrf": _sacrebleu("chrf"),
    "sentiment": sentiment,
    "pass_at_1": pass_at_1,
}


def extract_answer(generation: str, pattern: str | None) -> str:
    r"""The last match of a regular expression, without commas in numbers; `boxed` is the content of \\boxed{...}."""
    if pattern is None:
        return generation.strip()
    if pattern == "boxed":
        return boxed(generation)
    found = re.findall(pattern, generation)
    last = found[-1] if found else ""
    last = next((group for group in last if group), "") if isinstance(last, tuple) else last
    return last.replace(",", "") if re.fullmatch(r"-?[\d,.]+", last) else last


def judge(task: Task, *, allow_code: bool = False) -> Judge:
    """The function that scores a task's generated texts.

    Raises:
        ConfigError: for an unknown metric, one whose library is not installed, or a task that runs generated programs
            without `allow_code`.
    """
    if task.runs_code and not allow_code:
        problem = f"tasks: {task.name} runs programs that the model wrote"
        raise ConfigError(problem, hint="pass --allow-code to run them in a sandbox")
    for name in task.metrics:
        if name not in METRICS:
            raise ConfigError(f'tasks: {task.name}: unknown metric "{name}"; expected {", ".join(METRICS)}')
        library, extra = _LIBRARIES.get(name, ("", ""))
        if library and find_spec(library) is None:
            problem = f"tasks: {task.name}: {library}, which computes {name}, is not installed"
            raise ConfigError(problem, hint=f'pip install "catwalk-eval[{extra}]"')

    def scores(text: str, references: tuple[str, ...]) -> dict[str, float]:
        answer = text if task.runs_code else extract_answer(text, task.extract)
        return {name: METRICS[name](answer, references) for name in task.metrics}

    return scores

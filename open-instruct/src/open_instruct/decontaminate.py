"""Which rows ask what an evaluation asks: prompts and evaluation texts compared by n-grams of words."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .formats.contract import ConfigError, row_files
from .formats.contract import read_rows as read_json_rows

__all__ = ["Contamination", "EvaluationTexts"]

_WORD = re.compile(r"\w+")
# the fields of an evaluation's rows that may have its question
_FIELDS = ("text", "prompt", "question", "query", "instruction", "problem", "inputs", "input")


@dataclass(frozen=True)
class Contamination:
    """The evaluation text that a row's prompt repeats, and the share of the shorter of the two that matches."""

    place: str
    overlap: float


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _texts(row: dict[str, Any]) -> Iterator[str]:
    """The question of an evaluation's row: a document's text, the user's messages, or a field named for it."""
    if isinstance(row.get("messages"), list):
        yield from _prompts(row["messages"])
        return
    if isinstance(row.get("turns"), list):
        yield from (turn for turn in row["turns"] if isinstance(turn, str))
    yield from (row[name] for name in _FIELDS if isinstance(row.get(name), str))


def _prompts(messages: list[Any]) -> Iterator[str]:
    for message in messages:
        if isinstance(message, dict) and message.get("role") == "user" and isinstance(message.get("content"), str):
            yield message["content"]


class EvaluationTexts:
    """The texts of evaluations, indexed by their n-grams; texts of fewer words are matched whole."""

    def __init__(self, paths: list[Path], ngram_words: int, threshold: float) -> None:
        """Read JSON Lines files or directories: documents (`catwalk documents`), chats, or rows with a question.

        Raises:
            ConfigError: a path that does not exist, or that has no text.
            FormatError: a row that is not JSON.
        """
        self.size, self.threshold = ngram_words, threshold
        self._index: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        self._texts: list[tuple[str, int]] = []  # place, words
        for path in paths:
            if not path.exists():
                raise ConfigError(f"--decontaminate: {path} not found; expected a file or a directory of rows")
            before = len(self._texts)
            for file in row_files(path):
                for line, row in read_json_rows(file):
                    for text in _texts(row):
                        self._add(f"{file}:{line}", _words(text))
            if len(self._texts) == before:
                raise ConfigError(
                    f"--decontaminate: {path} has no text; expected one of {', '.join(_FIELDS)}, messages"
                )

    def _add(self, place: str, words: list[str]) -> None:
        if not words:
            return
        number = len(self._texts)
        self._texts.append((place, len(words)))
        size = min(self.size, len(words))
        for gram in {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}:
            self._index[gram].append(number)

    def find(self, row: dict[str, Any]) -> Contamination | None:
        """The text that a chat or a pair repeats most, if it is at least the threshold."""
        messages = row.get("messages")
        if messages is None:
            prompt, chosen = row.get("prompt"), row.get("chosen")
            messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
            messages = [*messages, *(chosen[:-1] if isinstance(chosen, list) else [])]
        found = [match for text in dict.fromkeys(_prompts(messages)) if (match := self._best(_words(text)))]
        return max(found, key=lambda match: match.overlap, default=None)

    def _best(self, words: list[str]) -> Contamination | None:
        matched: defaultdict[int, set[int]] = defaultdict(set)  # text -> positions of the prompt's words
        for size in {self.size, len(words)} if len(words) < self.size else {self.size}:
            for start in range(len(words) - size + 1):
                for number in self._index.get(tuple(words[start : start + size]), ()):
                    matched[number].update(range(start, start + size))
        best: Contamination | None = None
        for number, positions in matched.items():
            place, length = self._texts[number]
            overlap = len(positions) / max(1, min(len(words), length))
            if overlap >= self.threshold and (best is None or overlap > best.overlap):
                best = Contamination(place, min(1.0, overlap))
        return best

    def count(self) -> Counter[str]:
        """Count the texts of each file."""
        return Counter(place.rpartition(":")[0] for place, _ in self._texts)

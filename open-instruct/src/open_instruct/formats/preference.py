"""Pairs of a better and a worse answer. Implements docs/formats/preference.md v1."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .chat import Message, check_messages, read_source_fields
from .errors import FormatError, kind
from .json_text import parse_rows, require
from .manifest import row_files

__all__ = ["Pair", "parse_pair", "read_preference"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One row: the messages that both answers share, and the two answers."""

    id: str
    source: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    path: Path
    line: int

    @property
    def place(self) -> str:
        """Give `path:line`, for messages to the user."""
        return f"{self.path}:{self.line}"

    def conversation(self, answer: str) -> tuple[Message, ...]:
        """Give the prompt and one of the answers as messages."""
        return (*self.prompt, {"role": "assistant", "content": answer})


def parse_pair(row: dict[str, Any], path: Path, line: int) -> Pair:
    """Check one row. Raises FormatError."""
    lists = {name: require(row, name, list, path, line=line) for name in ("chosen", "rejected")}
    row_id, source = read_source_fields(row, path, line)
    chosen, rejected = (check_messages(messages, name, path, line) for name, messages in lists.items())

    def fail(code: str, field: str, sentence: str) -> FormatError:
        return FormatError(code, path, f'"{field}" {sentence}', line=line, field=field)

    if chosen[:-1] != rejected[:-1]:
        raise fail(
            "prompt_mismatch", "rejected", 'answers another prompt; expected the messages of "chosen" before the last'
        )
    _check_prompt(row.get("prompt"), chosen[:-1], fail, path, line)
    if chosen[-1] == rejected[-1]:
        raise fail("identical_answers", "rejected", 'is equal to "chosen"; expected another answer')
    return Pair(
        id=row_id,
        source=source,
        prompt=chosen[:-1],
        chosen=chosen[-1]["content"],
        rejected=rejected[-1]["content"],
        path=path,
        line=line,
    )


def _check_prompt(prompt: Any, common: tuple[Message, ...], fail: Any, path: Path, line: int) -> None:
    if prompt is None:
        return
    if not isinstance(prompt, str | list):
        sentence = f'"prompt" is {kind(prompt)}; expected a string or an array'
        raise FormatError("wrong_type", path, sentence, line=line, field="prompt")
    if isinstance(prompt, str):
        same = prompt == common[-1]["content"]
    else:
        plain = [
            {"role": one.get("role"), "content": one.get("content")} if isinstance(one, dict) else one for one in prompt
        ]
        same = plain == list(common)
    if not same:
        raise fail("prompt_mismatch", "prompt", 'differs; expected what "chosen" and "rejected" begin with')


def read_preference(path: Path) -> Iterator[Pair | FormatError]:
    """Yield each row of a file or directory, or the error that it is. Raises FormatError for a bad artifact."""
    return parse_rows(row_files(path, "preference"), parse_pair)

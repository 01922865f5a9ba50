"""Rows that ask something and say how an answer is judged: prompts of docs/formats/chat.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import collect_rows, warn_of_ignored
from ..formats.chat import Conversation, Message, parse_conversation, parse_rows
from ..formats.contract import ConfigError, FormatError, type_name
from ..formats.manifest import artifact_files
from .table import VERIFIERS, Score, join, make_verifier

__all__ = ["Prompt", "read_prompts"]

_ANSWER: Message = {"role": "assistant", "content": "?"}


@dataclass(frozen=True)
class Prompt:
    """The messages to answer, and the function that scores an answer (None if the row names no verifier)."""

    row: Conversation
    messages: tuple[Message, ...]
    verifiers: tuple[str, ...]
    score: Score | None

    @property
    def place(self) -> str:
        """Give `path:line`, for messages to the user."""
        return self.row.place


def read_prompts(paths: Sequence[str], where: str, *, judged: bool) -> list[Prompt]:
    """Read the prompts of files and directories of chat rows; with `judged`, each row must name a verifier.

    Raises:
        ConfigError: a path that does not exist; `where` names the setting.
        BadRows: rows that break docs/formats/chat.md.
    """
    rows: list[Prompt] = []
    for path in paths:
        if not Path(path).exists():
            raise ConfigError(f"{where}: {path} not found; expected a file or a directory")
        files = artifact_files(Path(path), "chat")
        rows += collect_rows(parse_rows(files, lambda row, file, line: _parse(row, file, line, judged)))
    warn_of_ignored([prompt.row for prompt in rows], where, ("verifier", "ground_truth"))
    return rows


def _parse(row: dict[str, Any], path: Path, line: int, judged: bool) -> Prompt:
    messages = row.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    if isinstance(messages, list) and isinstance(last, dict) and last.get("role") in ("user", "tool"):
        row = row | {"messages": [*messages, _ANSWER]}  # a chat row has an answer; this one is not used
    conversation = parse_conversation(row, path, line)

    def fail(code: str, field: str, sentence: str) -> FormatError:
        return FormatError(code, path, f'"{field}" {sentence}', line=line, field=field)

    named = row.get("verifier")
    names = named if isinstance(named, list) else [] if named is None else [named]
    if not all(isinstance(name, str) for name in names):
        raise fail("wrong_type", "verifier", f"is {type_name(named)}; expected a name or an array of names")
    if unknown := [name for name in names if name not in VERIFIERS]:
        raise fail("invalid_value", "verifier", f'is "{unknown[0]}"; expected one of {", ".join(VERIFIERS)}')
    if not names:
        if judged or named is not None:
            raise fail("missing_field", "verifier", f"is missing; expected one of {', '.join(VERIFIERS)}")
        return Prompt(conversation, conversation.messages[:-1], (), None)
    truths = row.get("ground_truth") if isinstance(named, list) else [row.get("ground_truth")]
    if not isinstance(truths, list) or len(truths) != len(names):
        raise fail("wrong_type", "ground_truth", f"does not fit; expected an array of {len(names)}, one per verifier")
    scores = []
    for name, truth in zip(names, truths, strict=True):
        try:
            scores.append(make_verifier(name, truth))
        except ValueError as error:
            raise fail("invalid_value", "ground_truth", f"does not fit the verifier {name}; {error}") from error
    return Prompt(conversation, conversation.messages[:-1], tuple(names), join(scores))

"""Conversations: read and check rows with `messages`. Implements docs/formats/chat.md v1."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from .errors import FormatError, kind
from .json_text import parse_rows, require
from .manifest import row_files

__all__ = [
    "ROLES",
    "Conversation",
    "Message",
    "check_messages",
    "parse_conversation",
    "read_chat",
    "read_source_fields",
]

ROLES = ("system", "user", "assistant")
Message: TypeAlias = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """One row: its messages with `role` and `content` alone, and the place it came from."""

    id: str
    source: str
    messages: tuple[Message, ...]
    path: Path
    line: int

    @property
    def place(self) -> str:
        """Give `path:line`, for messages to the user."""
        return f"{self.path}:{self.line}"


def check_messages(value: list[Any], field: str, path: Path, line: int) -> tuple[Message, ...]:
    """Check a list of messages as the contract orders: types, contents, roles, `empty_messages`, `role_order`.

    Raises:
        FormatError: the first rule that the list breaks; its field begins with `field`.
    """

    def fail(code: str, position: int | None, name: str, sentence: str) -> FormatError:
        where = field if position is None else f"{field}.{position}.{name}"
        return FormatError(code, path, f'"{where}" {sentence}', line=line, field=where)

    for position, message in enumerate(value):
        if not isinstance(message, dict):
            where = f"{field}.{position}"
            sentence = f'"{where}" is {kind(message)}; expected an object'
            raise FormatError("wrong_type", path, sentence, line=line, field=where)
        for name in ("role", "content"):
            require(message, name, str, path, prefix=f"{field}.{position}.", line=line)
    for position, message in enumerate(value):
        if not message["content"]:
            raise fail("invalid_value", position, "content", "is empty; expected text")
    for position, message in enumerate(value):
        if message["role"] not in ROLES:
            raise fail(
                "unknown_role", position, "role", f'is "{message["role"]}"; expected "system", "user" or "assistant"'
            )
    if not any(message["role"] == "assistant" for message in value):
        raise fail("empty_messages", None, "", "has no assistant's answer; expected at least one")
    turns = value[1:] if value[0]["role"] == "system" else value
    offset = len(value) - len(turns)
    for position, message in enumerate(turns):
        expected = ("user", "assistant")[position % 2]
        if message["role"] != expected:
            raise fail("role_order", position + offset, "role", f'is "{message["role"]}"; expected "{expected}"')
    if value[-1]["role"] != "assistant":
        raise fail("role_order", len(value) - 1, "role", f'is "{value[-1]["role"]}", the last; expected "assistant"')
    return tuple({"role": message["role"], "content": message["content"]} for message in value)


def read_source_fields(row: dict[str, Any], path: Path, line: int) -> tuple[str, str]:
    """Check the optional fields that chat and preference rows share; return (id, source), `""` where absent or null."""
    present = {key: value for key, value in row.items() if value is not None}
    for name, expected in (("id", str), ("source", str), ("dataset", str), ("metadata", dict)):
        if name in present:
            require(present, name, expected, path, line=line)
    return present.get("id", ""), present.get("source", present.get("dataset", ""))


def parse_conversation(row: dict[str, Any], path: Path, line: int) -> Conversation:
    """Check one row. Raises FormatError."""
    messages = require(row, "messages", list, path, line=line)
    row_id, source = read_source_fields(row, path, line)
    checked = check_messages(messages, "messages", path, line)
    return Conversation(id=row_id, source=source, messages=checked, path=path, line=line)


def read_chat(path: Path) -> Iterator[Conversation | FormatError]:
    """Yield each row of a file or directory, or the error that it is. Raises FormatError for a bad artifact."""
    return parse_rows(row_files(path, "chat"), parse_conversation)

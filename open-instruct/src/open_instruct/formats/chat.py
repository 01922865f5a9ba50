"""Rows of conversations and of preferences. Implements docs/formats/chat.md and preference.md, version 1."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from .contract import Fields, FormatError, Reader, decode_object, read_lines, type_name
from .manifest import artifact_files

__all__ = [
    "READERS",
    "ROLES",
    "Conversation",
    "Message",
    "Pair",
    "check_messages",
    "check_row_fields",
    "dump_chat",
    "dump_preference",
    "is_trained",
    "parse_conversation",
    "parse_pair",
    "parse_rows",
    "read_chat",
    "read_preference",
    "read_source_fields",
    "unused_fields",
]

# ---- conversations


ROLES = ("system", "user", "assistant", "tool")
# role of a message -> roles that may come before it; "" is the beginning
_BEFORE = {
    "system": ("",),
    "user": ("", "system", "assistant"),
    "assistant": ("user", "assistant", "tool"),
    "tool": ("assistant", "tool"),
}
Message: TypeAlias = dict[str, str]
# Content for the model that training would ignore: in a row, in a message
_UNSUPPORTED_ROW = ("tools", "functions", "documents", "images", "videos", "audios")
_UNSUPPORTED_MESSAGE = (
    "tool_calls",
    "function_call",
    "tool_call_id",
    "reasoning_content",
    "reasoning",
    "thinking",
    "images",
    "audio",
    "refusal",
)
_KNOWN_ROW = ("messages", "chosen", "rejected", "prompt", "id", "source", "dataset", "metadata")
_KNOWN_MESSAGE = ("role", "content", "weight", "train")


@dataclass(frozen=True, kw_only=True)
class _Row:
    """What both formats have, and the place of the row; `ignored` are the fields that nothing reads."""

    id: str
    source: str
    ignored: tuple[str, ...] = ()
    path: Path
    line: int

    @property
    def place(self) -> str:
        """Give `path:line`, for messages to the user."""
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Conversation(_Row):
    """One row: its messages with only `role` and `content`.

    `untrained` are the answers, counted from 0, with `weight` 0 or `train` false.
    """

    messages: tuple[Message, ...]
    untrained: frozenset[int] = frozenset()


def check_messages(value: list[Any], labels: list[str], field: str, path: Path, line: int) -> tuple[Message, ...]:
    """Check messages as the contract orders: types, contents, weights, fields, roles, `empty_messages`, `role_order`.

    `labels` name each message (`messages.0`), `field` all of them.

    Raises:
        FormatError: the first rule that the list breaks.
    """

    def fail(code: str, position: int | None, name: str, sentence: str, hint: str = "") -> FormatError:
        where = field if position is None else f"{labels[position]}.{name}"
        return FormatError(code, path, f'"{where}" {sentence}', line=line, field=where, hint=hint)

    for label, message in zip(labels, value, strict=True):
        if not isinstance(message, dict):
            sentence = f'"{label}" is {type_name(message)}; expected an object'
            raise FormatError("wrong_type", path, sentence, line=line, field=label)
        for name in ("role", "content"):
            Fields(message, path, line, label).string(name)
    for position, message in enumerate(value):
        if not message["content"]:
            raise fail("invalid_value", position, "content", "is empty; expected text")
    for position, message in enumerate(value):
        _check_weight(message, position, fail)
    for position, message in enumerate(value):
        for name in _UNSUPPORTED_MESSAGE:
            if message.get(name):
                sentence = f"is {type_name(message[name])}, which training would ignore; expected none"
                raise fail("invalid_value", position, name, sentence, _WRITE_AS_TEXT)
    for position, message in enumerate(value):
        if message["role"] not in ROLES:
            sentence = f'is "{message["role"]}"; expected "system", "user", "assistant" or "tool"'
            raise fail("unknown_role", position, "role", sentence)
    if not any(message["role"] == "assistant" for message in value):
        raise fail("empty_messages", None, "", "has no assistant's answer; expected at least one")
    before = ""
    for position, message in enumerate(value):
        role = message["role"]
        if before not in _BEFORE[role]:
            expected = " or ".join(f'"{one}"' for one in ROLES if before in _BEFORE[one])
            raise fail("role_order", position, "role", f'is "{role}"; expected {expected}')
        before = role
    if value[-1]["role"] != "assistant":
        raise fail("role_order", len(value) - 1, "role", f'is "{value[-1]["role"]}", the last; expected "assistant"')
    return tuple({"role": message["role"], "content": message["content"]} for message in value)


_WRITE_AS_TEXT = "write what the model should read or say into content as text, or remove the field"


def _check_weight(message: dict[str, Any], position: int, fail: Any) -> None:
    weight, train = message.get("weight"), message.get("train")
    if weight is not None:
        if not isinstance(weight, int | float) or isinstance(weight, bool):
            raise fail("wrong_type", position, "weight", f"is {type_name(weight)}; expected a number")
        if weight not in (0, 1):
            raise fail("invalid_value", position, "weight", f"is {weight}; expected 0 or 1")
    if train is not None and not isinstance(train, bool):
        raise fail("wrong_type", position, "train", f"is {type_name(train)}; expected a boolean")
    if weight is not None and train is not None and bool(weight) != train:
        raise fail(
            "invalid_value", position, "train", f"is {str(train).lower()} with weight {weight}; expected the same"
        )
    if train and message["role"] != "assistant":
        sentence = f'is true on a "{message["role"]}" message; expected it on answers only'
        raise fail("invalid_value", position, "train", sentence)


def is_trained(message: dict[str, Any]) -> bool:
    """Whether an answer is trained: its `weight` is not 0 and its `train` not false."""
    return message.get("weight") != 0 and message.get("train") is not False


def unused_fields(row: dict[str, Any], messages: list[dict[str, Any]]) -> tuple[str, ...]:
    """List the fields of a row and of its messages that have a value and that nothing reads."""
    found = [name for name, value in row.items() if name not in _KNOWN_ROW and value is not None]
    for message in messages:
        found += [
            f"message {name}" for name in message if name not in _KNOWN_MESSAGE and message[name] not in (None, "")
        ]
    return tuple(dict.fromkeys(found))


def check_row_fields(row: dict[str, Any], path: Path, line: int) -> None:
    """Refuse content for the model outside the messages, such as tools. Raises FormatError."""
    for name in _UNSUPPORTED_ROW:
        if row.get(name):
            sentence = f'"{name}" is {type_name(row[name])}, which the model would not see; expected none'
            raise FormatError("invalid_value", path, sentence, line=line, field=name, hint=_WRITE_AS_TEXT)


def read_source_fields(row: dict[str, Any], path: Path, line: int) -> tuple[str, str]:
    """Check the optional fields that chat and preference rows share; return (id, source), `""` where absent or null."""
    fields = Fields(row, path, line)
    row_id, source, dataset = map(fields.optional_string, ("id", "source", "dataset"))
    fields.optional_object("metadata")
    return row_id or "", (dataset if source is None else source) or ""


def parse_conversation(row: dict[str, Any], path: Path, line: int) -> Conversation:
    """Check one row. Raises FormatError."""
    messages = Fields(row, path, line).array("messages")
    row_id, source = read_source_fields(row, path, line)
    labels = [f"messages.{position}" for position in range(len(messages))]
    checked = check_messages(messages, labels, "messages", path, line)
    check_row_fields(row, path, line)
    answers = [message for message in messages if message["role"] == "assistant"]
    return Conversation(
        id=row_id,
        source=source,
        messages=checked,
        untrained=frozenset(number for number, answer in enumerate(answers) if not is_trained(answer)),
        ignored=unused_fields(row, messages),
        path=path,
        line=line,
    )


def read_chat(path: Path) -> Iterator[Conversation | FormatError]:
    """Yield each row of a file or directory, or the error that it is. Raises FormatError for a bad artifact."""
    return parse_rows(artifact_files(path, "chat"), parse_conversation)


def dump_chat(path: Path) -> Iterator[dict[str, Any] | FormatError]:
    """Yield each row as the contract prints it, with `weight` 0 on each answer that is not trained, or its error."""
    for row in read_chat(path):
        if isinstance(row, FormatError):
            yield row
            continue
        messages: list[dict[str, Any]] = []
        answers = 0
        for message in row.messages:
            skipped = message["role"] == "assistant" and answers in row.untrained
            answers += message["role"] == "assistant"
            messages.append(message | ({"weight": 0} if skipped else {}))
        yield {"id": row.id, "source": row.source, "messages": messages}


# ---- preferences: pairs of a better and a worse answer


@dataclass(frozen=True, kw_only=True)
class Pair(_Row):
    """One row: the messages that both answers share, the two answers, and by how much the better one is better."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    margin: float | None = None


def parse_pair(row: dict[str, Any], path: Path, line: int) -> Pair:
    """Check one row, in any of the three forms. Raises FormatError."""
    fields = Fields(row, path, line)
    sides = {name: fields.get(name, "an array or a string") for name in ("chosen", "rejected")}
    for name, side in sides.items():
        if not isinstance(side, list | str):
            raise fields.wrong_type(name, "an array or a string")
    row_id, source = read_source_fields(row, path, line)
    prompt = row.get("prompt")
    if prompt is not None and not isinstance(prompt, str | list):
        sentence = f'"prompt" is {type_name(prompt)}; expected a string or an array'
        raise FormatError("wrong_type", path, sentence, line=line, field="prompt")
    whole = {name: _conversation(name, side, prompt, path, line) for name, side in sides.items()}
    chosen, rejected = (
        check_messages(messages, labels, name, path, line) for name, (messages, labels) in whole.items()
    )
    check_row_fields(row, path, line)

    def fail(code: str, field: str, sentence: str, hint: str = "") -> FormatError:
        return FormatError(code, path, f'"{field}" {sentence}', line=line, field=field, hint=hint)

    for messages, labels in whole.values():
        if messages[-2]["role"] == "assistant":
            raise fail("role_order", f"{labels[-1]}.role", 'is "assistant" again; expected a prompt without an answer')
        if not is_trained(messages[-1]):
            key, value = ("weight", "0") if messages[-1].get("weight") == 0 else ("train", "false")
            raise fail("invalid_value", f"{labels[-1]}.{key}", f"is {value}; expected an answer to train on")
    if chosen[:-1] != rejected[:-1]:
        raise fail(
            "prompt_mismatch", "rejected", 'answers another prompt; expected the messages of "chosen" before the last'
        )
    if not _begins(prompt, chosen[:-1]):
        raise fail("prompt_mismatch", "prompt", 'differs; expected the beginning of "chosen" and "rejected"')
    if chosen[-1] == rejected[-1]:
        hint = "data.identical_answers=drop skips such rows and counts them"
        raise fail("identical_answers", "rejected", 'is equal to "chosen"; expected another answer', hint)
    return Pair(
        id=row_id,
        source=source,
        prompt=chosen[:-1],
        chosen=chosen[-1]["content"],
        rejected=rejected[-1]["content"],
        margin=None if row.get("margin") is None else fields.number("margin", minimum=0),
        ignored=unused_fields(row, [message for messages, _ in whole.values() for message in messages]),
        path=path,
        line=line,
    )


def _conversation(
    name: str, side: str | list[Any], prompt: str | list[Any] | None, path: Path, line: int
) -> tuple[list[Any], list[str]]:
    """Return the messages of one side, after the prompt if it is only an answer, and a label for each."""
    if isinstance(side, str):
        if prompt is None:
            sentence = f'"{name}" is a string without "prompt"; expected an array of messages, or a prompt too'
            raise FormatError("wrong_type", path, sentence, line=line, field=name)
        for field, text in ((name, side), ("prompt", prompt)):
            if not text:
                raise FormatError("invalid_value", path, f'"{field}" is empty; expected text', line=line, field=field)
        messages: list[Any] = [{"role": "assistant", "content": side}]
        labels = [name]
    else:
        messages, labels = side, [f"{name}.{position}" for position in range(len(side))]
    first = messages[0] if messages else None
    alone = isinstance(first, dict) and first.get("role") == "assistant"
    if prompt is None or not alone:
        return messages, labels
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}, *messages], ["prompt", *labels]
    return [*prompt, *messages], [*(f"prompt.{position}" for position in range(len(prompt))), *labels]


def _begins(prompt: str | list[Any] | None, common: tuple[Message, ...]) -> bool:
    if prompt is None:
        return True
    if isinstance(prompt, str):
        return prompt == common[-1]["content"]
    plain = [
        {"role": one.get("role"), "content": one.get("content")} if isinstance(one, dict) else one for one in prompt
    ]
    return plain == list(common)


def read_preference(path: Path) -> Iterator[Pair | FormatError]:
    """Yield each row of a file or directory, or the error that it is. Raises FormatError for a bad artifact."""
    return parse_rows(artifact_files(path, "preference"), parse_pair)


def dump_preference(path: Path) -> Iterator[dict[str, Any] | FormatError]:
    """Yield each pair as the contract prints it, or its error."""
    for row in read_preference(path):
        if isinstance(row, Pair):
            yield {name: getattr(row, name) for name in ("id", "source", "prompt", "chosen", "rejected")}
        else:
            yield row


# ---- rows and their fields


Row = TypeVar("Row")


def parse_rows(files: Iterable[Path], parse: Callable[[dict[str, Any], Path, int], Row]) -> Iterator[Row | FormatError]:
    """Yield `parse(row, file, line)` of every line of JSON Lines files, or the error of an invalid line.

    `line` is 1-based. A file that ends early yields `truncated` after its last complete row, and the next file follows.
    """
    for path in files:
        try:
            for number, line in read_lines(path):
                try:
                    yield parse(decode_object(line, path, number), path, number)
                except FormatError as error:
                    yield error
        except FormatError as error:
            yield error


READERS = {
    "chat": Reader(dump_chat, ("conversations", "messages"), lambda row: (1, len(row["messages"]))),
    "preference": Reader(dump_preference, ("pairs",), lambda row: (1,)),
}

"""Pairs of a better and a worse answer. Implements docs/formats/preference.md v1."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .chat import Message, check_messages, check_row_fields, is_trained, read_source_fields, unused_fields
from .errors import FormatError
from .json_lines import type_name
from .manifest import artifact_files
from .rows import parse_rows, require

__all__ = ["Pair", "dump", "parse_pair", "read_preference"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One row: the messages that both answers share, and the two answers."""

    id: str
    source: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    ignored: tuple[str, ...] = ()
    path: Path
    line: int

    @property
    def place(self) -> str:
        """Give `path:line`, for messages to the user."""
        return f"{self.path}:{self.line}"


def parse_pair(row: dict[str, Any], path: Path, line: int) -> Pair:
    """Check one row, in any of the three forms. Raises FormatError."""
    sides = {name: require(row, name, (list, str), path, line=line) for name in ("chosen", "rejected")}
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
        ignored=unused_fields(row, [message for messages, _ in whole.values() for message in messages]),
        path=path,
        line=line,
    )


def _conversation(
    name: str, side: str | list[Any], prompt: str | list[Any] | None, path: Path, line: int
) -> tuple[list[Any], list[str]]:
    """Give the messages of one side, after the prompt where it is only an answer, and a label for each."""
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


def dump(path: Path) -> Iterator[dict[str, Any] | FormatError]:
    """Yield each pair as the contract prints it, or its error."""
    for row in read_preference(path):
        if isinstance(row, Pair):
            yield {name: getattr(row, name) for name in ("id", "source", "prompt", "chosen", "rejected")}
        else:
            yield row

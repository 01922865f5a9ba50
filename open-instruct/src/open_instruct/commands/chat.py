"""`open-instruct chat`: talk to a checkpoint line by line, or let it answer the prompts of a file of chats."""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..chat.generate import Chatter, Sampling
from ..data.read import collect_rows, warn_of_ignored
from ..errors import RequestError
from ..formats.chat import Conversation, Message, parse_conversation
from ..formats.manifest import row_files
from ..formats.rows import parse_rows

__all__ = ["answer_file", "read_prompts", "talk"]

log = logging.getLogger(__name__)
_LINE_EVERY_S = 10.0


def talk(
    chatter: Chatter, lines: Iterable[str], sampling: Sampling, system: str | None, write: Callable[[str], None]
) -> None:
    """Answer each line of `lines` as the next message of one conversation; `/new` begins another."""
    opening: list[Message] = [{"role": "system", "content": system}] if system else []
    messages = list(opening)
    turn = 0
    for line in lines:
        text = line.rstrip("\n")
        if not text.strip():
            continue
        if text.strip() == "/new":
            messages = list(opening)
            continue
        messages.append({"role": "user", "content": text})
        answer = chatter.answer(messages, sampling, sampling.seed + turn, write)
        write("\n")
        turn += 1
        messages.append({"role": "assistant", "content": answer.text})


def _parse_prompt(row: dict[str, Any], path: Path, line: int) -> Conversation:
    """Check a chat row, or one that ends with a user's message, as if it had an answer of one character."""
    messages = row.get("messages")
    if (
        isinstance(messages, list)
        and messages
        and isinstance(messages[-1], dict)
        and messages[-1].get("role") == "user"
    ):
        row = row | {"messages": [*row["messages"], {"role": "assistant", "content": _UNANSWERED}]}
    return parse_conversation(row, path, line)


_UNANSWERED = "?"


def read_prompts(source: str) -> list[tuple[Conversation, str | None]]:
    """Read rows and the last answer of each, if it has one. Raises RequestError, BadRows, FormatError."""
    if not Path(source).exists():
        raise RequestError(f"--input: {source} not found; expected a file of chat rows")

    def parse(row: dict[str, Any], path: Path, line: int) -> tuple[Conversation, str | None]:
        conversation = _parse_prompt(row, path, line)
        has_answer = len(conversation.messages) == len(row["messages"])
        return conversation, conversation.messages[-1]["content"] if has_answer else None

    rows = collect_rows(parse_rows(row_files(Path(source), "chat"), parse))
    warn_of_ignored([row for row, _ in rows], "--input")
    return rows


def answer_file(chatter: Chatter, source: str, target: str, sampling: Sampling, system: str | None) -> None:
    """Answer the prompt of every row: its messages without a last answer, if it has one.

    Rows `{"id", "source", "messages", "answer_tokens", "ended", "reference"}` go to the file `target`, or to standard
    output where it is `-`: the last of the messages is the model's answer, `reference` the row's own. Row i is drawn
    with the seed `sampling.seed` + i, whatever the other rows are.
    """
    rows = read_prompts(source)
    lines = []
    began = last = time.monotonic()
    for index, (row, reference) in enumerate(rows):
        prompt = list(row.messages[:-1])
        if system and prompt[0]["role"] != "system":
            prompt.insert(0, {"role": "system", "content": system})
        answer = chatter.answer(prompt, sampling, sampling.seed + index)
        value = {
            "id": row.id,
            "source": row.source,
            "messages": [*prompt, {"role": "assistant", "content": answer.text}],
            "answer_tokens": answer.tokens,
            "ended": answer.ended,
            "reference": reference,
        }
        lines.append(json.dumps(value, ensure_ascii=False) + "\n")
        now = time.monotonic()
        if now - last >= _LINE_EVERY_S:
            last = now
            left = (len(rows) - index - 1) * (now - began) / (index + 1)
            log.info("chat  %d/%d answers  eta %d:%02d", index + 1, len(rows), left // 60, left % 60)
    if target == "-":
        sys.stdout.writelines(lines)
        return
    path = Path(target)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(path)
    log.info("chat  %d answers in %.1f s: %s", len(rows), time.monotonic() - began, path)


if __name__ == "__main__":  # python -m of this module is the command, not nothing
    from ..__main__ import main

    sys.exit(main(["chat", *sys.argv[1:]]))

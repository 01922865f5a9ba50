"""Rows to examples of token ids, with a count of the rows that were truncated or skipped."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from ..chat.encode import IGNORED, ConversationEncoder
from ..chat.render import Refusal
from ..formats.chat import Conversation, Message
from ..formats.errors import FormatError
from ..formats.preference import Pair
from .read import BadRows

__all__ = ["Examples", "PairExample", "SftExample", "encode_conversations", "encode_pairs"]

log = logging.getLogger(__name__)
_BATCH = 1000


@dataclass(frozen=True)
class SftExample:
    """A conversation to train on: ids, labels of the same length, and the UTF-8 bytes of the trained text."""

    input_ids: list[int]
    labels: list[int]
    answer_bytes: int
    source: str
    place: str

    @property
    def highest_id(self) -> int:
        """Give the highest token id."""
        return max(self.input_ids)


@dataclass(frozen=True)
class PairExample:
    """A pair to train on: the prompt's ids and each answer's with the end of its turn."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    source: str
    place: str

    @property
    def highest_id(self) -> int:
        """Give the highest token id."""
        return max(self.prompt_ids + self.chosen_ids + self.rejected_ids)


Example = TypeVar("Example", SftExample, PairExample)


@dataclass
class Examples(Generic[Example]):
    """The usable examples, how many were truncated, and how many were dropped for each reason."""

    rows: list[Example] = field(default_factory=list)
    truncated: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def highest_id(self) -> int:
        """Give the highest token id of all rows, -1 without rows."""
        return max((row.highest_id for row in self.rows), default=-1)

    def report(self, name: str) -> None:
        """Log the counts."""
        log.info("%s: %d rows", name, len(self.rows))
        if self.truncated:
            log.warning(
                "%s: %d rows were longer than sequence.max_length_tokens and were truncated", name, self.truncated
            )
        for reason, count in sorted(self.dropped.items()):
            log.warning("%s: %d rows were left out: %s", name, count, reason)


_TOO_LONG = "longer than sequence.max_length_tokens"
_NO_ANSWER = "nothing of the answer is left within sequence.max_length_tokens"
_UNTRAINED = "no answer is to be trained (weight 0 or train false)"


def _refused(row: Conversation | Pair, refusal: Refusal, encoder: ConversationEncoder) -> FormatError:
    sentence = f"{encoder.template.name} template refuses the row ({refusal}); expected messages it can render"
    hint = "remove the row, or choose another template"
    return FormatError("invalid_value", row.path, sentence, line=row.line, hint=hint)


def _warn_of_system(conversations: Sequence[Sequence[Message]], encoder: ConversationEncoder) -> None:
    count = sum(messages[0]["role"] == "system" for messages in conversations)
    if count and encoder.drops_system:
        log.warning("%d rows have a system message, which %s template drops", count, encoder.template.name)


def encode_conversations(
    rows: Sequence[Conversation], encoder: ConversationEncoder, max_length: int, too_long: Literal["truncate", "drop"]
) -> Examples[SftExample]:
    """Encode conversations; `max_length` is in tokens.

    Raises:
        BadRows: rows that the template refuses.
    """
    result: Examples[SftExample] = Examples()
    _warn_of_system([row.messages for row in rows], encoder)
    refused: list[FormatError] = []
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        every = encoder.encode([row.messages for row in batch], [row.untrained for row in batch])
        for row, encoded in zip(batch, every, strict=True):
            if isinstance(encoded, Refusal):
                refused.append(_refused(row, encoded, encoder))
                continue
            ids, labels = encoded.input_ids, encoded.labels
            answers = [message["content"] for message in row.messages if message["role"] == "assistant"]
            trained = [answer for number, answer in enumerate(answers) if number not in row.untrained]
            if not trained:
                result.dropped[_UNTRAINED] += 1
                continue
            answer_bytes = sum(len(answer.encode()) for answer in trained)
            if len(ids) > max_length:
                if too_long == "drop":
                    result.dropped[_TOO_LONG] += 1
                    continue
                ids, labels = ids[:max_length], labels[:max_length]
                kept = [token for token in labels if token not in (IGNORED, encoder.stop_id)]
                answer_bytes = len(encoder.tokenizer.decode(kept).encode())
                if not kept:
                    result.dropped[_NO_ANSWER] += 1
                    continue
                result.truncated += 1
            result.rows.append(SftExample(ids, labels, answer_bytes, row.source, row.place))
    if refused:
        raise BadRows(refused)
    return result


def encode_pairs(
    rows: Sequence[Pair], encoder: ConversationEncoder, max_length: int, too_long: Literal["truncate", "drop"]
) -> Examples[PairExample]:
    """Encode pairs; a prompt and an answer together have at most `max_length` tokens.

    Raises:
        BadRows: rows that the template refuses.
    """
    result: Examples[PairExample] = Examples()
    _warn_of_system([row.prompt for row in rows], encoder)
    refused: list[FormatError] = []
    for row in rows:
        try:
            prompt = encoder.encode_prompt(row.prompt)
            chosen, rejected = (encoder.encode_answer(row.prompt, one) for one in (row.chosen, row.rejected))
        except Refusal as refusal:
            refused.append(_refused(row, refusal, encoder))
            continue
        room = max_length - len(prompt)
        if max(len(chosen), len(rejected)) > room:
            if too_long == "drop":
                result.dropped[_TOO_LONG] += 1
                continue
            chosen, rejected = chosen[: max(room, 0)], rejected[: max(room, 0)]
            if room < 1 or chosen == rejected:
                result.dropped[_NO_ANSWER] += 1
                continue
            result.truncated += 1
        result.rows.append(PairExample(prompt, chosen, rejected, row.source, row.place))
    if refused:
        raise BadRows(refused)
    return result

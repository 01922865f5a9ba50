"""From files of rows to examples of token ids: read and check, hold out, encode, pack. No torch here."""

import hashlib
import json
import logging
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar

from .chat.encode import IGNORED, ConversationEncoder
from .chat.render import Refusal
from .formats.chat import Conversation, Message, Pair, read_chat, read_preference
from .formats.contract import ConfigError, FormatError, Problem, WorkError

__all__ = [
    "BadRows",
    "Examples",
    "PairExample",
    "SftExample",
    "collect_rows",
    "encode_conversations",
    "encode_pairs",
    "pack_lengths",
    "read_conversations",
    "read_pairs",
    "row_hash",
    "split_rows",
    "warn_of_ignored",
    "warn_of_overlap",
]

Row = TypeVar("Row", Conversation, Pair)
Parsed = TypeVar("Parsed")
log = logging.getLogger(__name__)
_MAX_ERRORS = 20
_BATCH = 1000

# ---- read


class BadRows(WorkError):
    """Rows that cannot be used; the first 20 are named, the others counted."""

    def __init__(self, errors: Sequence[FormatError], total: int | None = None) -> None:
        """Name the errors, at least one, in file order; `total` counts them if `errors` has only the first ones."""
        shown = [Problem(str(error), error.hint) for error in errors[:_MAX_ERRORS]]
        if more := (total or len(errors)) - len(shown):
            shown.append(Problem(f"{more} more rows are bad; expected none"))
        super().__init__(*shown)


def collect_rows(found: Iterable[Parsed | FormatError]) -> list[Parsed]:
    """List the rows of a reader. Raises BadRows, after the last row, if any of them are errors."""
    rows: list[Parsed] = []
    errors: list[FormatError] = []
    total = 0
    for row in found:
        if not isinstance(row, FormatError):
            rows.append(row)
            continue
        total += 1
        if total <= _MAX_ERRORS:
            errors.append(row)
    if errors:
        raise BadRows(errors, total)
    return rows


def read_conversations(paths: Sequence[str], where: str) -> list[Conversation]:
    """Read every chat row of files and directories, in the order given.

    Raises:
        ConfigError: a path that does not exist; `where` names the setting.
        BadRows: rows or files that break docs/formats/chat.md.
    """
    return _read_all(paths, where, read_chat)


def read_pairs(
    paths: Sequence[str], where: str, *, drop_identical: bool = False, uses_margin: bool = False
) -> list[Pair]:
    """Read every preference row of files and directories, as `read_conversations` does.

    With `drop_identical`, pairs of equal answers are dropped and counted; otherwise they are bad rows. Unless the
    caller `uses_margin`, rows that have one are counted.
    """
    code = "identical_answers" if drop_identical else None
    return _read_all(paths, where, read_preference, code, used=("margin",) if uses_margin else ())


def _read_all(
    paths: Sequence[str],
    where: str,
    read: Callable[[Path], Iterator[Row | FormatError]],
    dropped_code: str | None = None,
    used: Collection[str] = (),
) -> list[Row]:
    for path in paths:
        if not Path(path).exists():
            raise ConfigError(f"{where}: {path} not found; expected a file or a directory")
    dropped = 0

    def found() -> Iterator[Row | FormatError]:
        nonlocal dropped
        for path in paths:
            try:
                for row in read(Path(path)):
                    if isinstance(row, FormatError) and row.code == dropped_code:
                        dropped += 1
                    else:
                        yield row
            except FormatError as error:  # a whole artifact that cannot be read
                yield error

    rows = collect_rows(found())
    if dropped:
        log.warning("%s: %d rows were left out: %s", where, dropped, dropped_code)
    warn_of_ignored(rows, where, used)
    return rows


def warn_of_ignored(rows: Sequence[Conversation] | Sequence[Pair], where: str, used: Collection[str] = ()) -> None:
    """Warn about the fields of rows that nothing reads (except `used`), with the number of rows that have them."""
    ignored = Counter(name for row in rows for name in row.ignored if name not in used)
    for name, count in sorted(ignored.items()):
        log.warning("%s: %d rows have the field %s, which is not used", where, count, name)


def row_hash(row: Conversation | Pair) -> bytes:
    """Return the sha256 of a row's content: its messages and, of a pair, both answers; not its id, file or line."""
    if isinstance(row, Pair):
        value: list[object] = [list(row.prompt), row.chosen, row.rejected]
    else:
        value = [*row.messages, *([sorted(row.untrained)] if row.untrained else [])]
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).digest()


def split_rows(rows: Sequence[Row], fraction: float) -> tuple[list[Row], list[Row]]:
    """Split rows into (kept, held out) by their hash, so that equal rows are always on the same side."""
    limit = int(fraction * 2**64)
    kept: list[Row] = []
    held_out: list[Row] = []
    for row in rows:
        side = held_out if int.from_bytes(row_hash(row)[:8]) < limit else kept
        side.append(row)
    return kept, held_out


def warn_of_overlap(rows: Sequence[Row], held_out: Sequence[Row]) -> None:
    """Warn if held-out rows are also training rows."""
    known = {row_hash(row) for row in rows} if held_out else set()
    both = sum(row_hash(row) in known for row in held_out)
    if both:
        log.warning(
            "%d of %d held-out rows are also training rows; their loss says nothing about new text", both, len(held_out)
        )


# ---- encode


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
        """Return the highest token id."""
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
        """Return the highest token id."""
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
        """Return the highest token id of all rows, -1 without rows."""
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


def _refused(row: Conversation | Pair, refusal: Refusal, encoder: ConversationEncoder) -> FormatError:
    sentence = f"{encoder.template.name} template refuses the row ({refusal}); expected messages that it can render"
    hint = "remove the row, or choose another template"
    return FormatError("invalid_value", row.path, sentence, line=row.line, hint=hint)


def _nothing_trained(row: Conversation) -> FormatError:
    sentence = "no answer is to be trained (weight 0 or train false); expected at least one"
    return FormatError("invalid_value", row.path, sentence, line=row.line, hint="remove the row")


def _warn_of_system(conversations: Sequence[Sequence[Message]], encoder: ConversationEncoder) -> None:
    count = sum(messages[0]["role"] == "system" for messages in conversations)
    if count and encoder.drops_system:
        log.warning("%d rows have a system message, which %s template drops", count, encoder.template.name)


def encode_conversations(
    rows: Sequence[Conversation], encoder: ConversationEncoder, max_length: int, too_long: Literal["truncate", "drop"]
) -> Examples[SftExample]:
    """Encode conversations; `max_length` is in tokens.

    Raises:
        BadRows: rows that the template refuses, or that have no answer to train.
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
                refused.append(_nothing_trained(row))
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


# ---- pack


def pack_lengths(lengths: list[int], capacity: int) -> list[list[int]]:
    """Assign items of given `lengths` (each 1 up to `capacity`) to bins; return the indices of the items in each bin.

    Best-fit decreasing over the whole data set (Ding et al. 2024, arXiv:2404.10830, section 3): each item goes into the
    fullest bin that has room for it, and nothing is cut. Equal lengths keep their order; of equally full bins, the
    older one is used.
    """
    order = sorted(range(len(lengths)), key=lambda item: (-lengths[item], item))
    bins: list[list[int]] = []
    open_bins: list[tuple[int, int]] = []  # (room, bin), sorted; only bins with room
    for item in order:
        position = bisect_left(open_bins, (lengths[item], 0))
        if position == len(open_bins):
            bins.append([])
            room, chosen = capacity, len(bins) - 1
        else:
            room, chosen = open_bins.pop(position)
        bins[chosen].append(item)
        if room > lengths[item]:
            insort(open_bins, (room - lengths[item], chosen))
    return bins

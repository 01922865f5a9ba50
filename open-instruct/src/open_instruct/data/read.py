"""Rows from files, checked to the last one before any work starts; and which of them are held out."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import RequestError
from ..formats.chat import Conversation, read_chat
from ..formats.errors import FormatError
from ..formats.preference import Pair, read_preference

__all__ = [
    "BadRows",
    "read_conversations",
    "read_pairs",
    "row_hash",
    "split_rows",
    "warn_of_ignored",
    "warn_of_overlap",
]

Row = TypeVar("Row", Conversation, Pair)
log = logging.getLogger(__name__)
_MAX_ERRORS = 20


class BadRows(ValueError):
    """Rows that break their format: `errors` holds the first ones, `total` counts all."""

    def __init__(self, errors: list[FormatError], total: int) -> None:
        """Hold the errors in file order."""
        super().__init__(str(errors[0]))
        self.errors, self.total = errors, total


def read_conversations(paths: Sequence[str], where: str) -> list[Conversation]:
    """Read every chat row of files and directories, in the order given.

    Raises:
        RequestError: a path that is missing; `where` names the setting.
        BadRows: rows or files that break docs/formats/chat.md.
    """
    return _read_all(paths, where, read_chat)


def read_pairs(paths: Sequence[str], where: str, *, drop_identical: bool = False) -> list[Pair]:
    """Read every preference row of files and directories, as `read_conversations` does.

    With `drop_identical` pairs of equal answers are left out and counted, else they are bad rows.
    """
    return _read_all(paths, where, read_preference, "identical_answers" if drop_identical else None)


def _read_all(
    paths: Sequence[str],
    where: str,
    read: Callable[[Path], Iterator[Row | FormatError]],
    left_out: str | None = None,
) -> list[Row]:
    for path in paths:
        if not Path(path).exists():
            raise RequestError(f"{where}: {path} not found; expected a file or a directory")
    rows: list[Row] = []
    errors: list[FormatError] = []
    total = dropped = 0
    for path in paths:
        try:
            for row in read(Path(path)):
                if not isinstance(row, FormatError):
                    rows.append(row)
                    continue
                if row.code == left_out:
                    dropped += 1
                    continue
                total += 1
                if len(errors) < _MAX_ERRORS:
                    errors.append(row)
        except FormatError as error:
            total += 1
            errors.append(error)
    if errors:
        raise BadRows(errors, total)
    if dropped:
        log.warning("%s: %d rows were left out: %s", where, dropped, left_out)
    warn_of_ignored(rows, where)
    return rows


def warn_of_ignored(rows: Sequence[Conversation] | Sequence[Pair], where: str) -> None:
    """Count the rows with fields that nothing reads."""
    ignored = Counter(name for row in rows for name in row.ignored)
    for name, count in sorted(ignored.items()):
        log.warning("%s: %d rows have the field %s, which is not used", where, count, name)


def row_hash(row: Conversation | Pair) -> bytes:
    """Give the sha256 of what a row teaches: its messages (and, of a pair, both answers), not its id or place."""
    if isinstance(row, Pair):
        value: list[object] = [list(row.prompt), row.chosen, row.rejected]
    else:
        value = [*row.messages, *([sorted(row.untrained)] if row.untrained else [])]
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).digest()


def split_rows(rows: Sequence[Row], fraction: float) -> tuple[list[Row], list[Row]]:
    """Split rows into (kept, held out) by their hash, so that equal rows fall on one side in any company."""
    limit = int(fraction * 2**64)
    kept: list[Row] = []
    held_out: list[Row] = []
    for row in rows:
        side = held_out if int.from_bytes(row_hash(row)[:8]) < limit else kept
        side.append(row)
    return kept, held_out


def warn_of_overlap(rows: Sequence[Row], held_out: Sequence[Row]) -> None:
    """Warn where held-out rows are training rows too."""
    known = {row_hash(row) for row in rows} if held_out else set()
    both = sum(row_hash(row) in known for row in held_out)
    if both:
        log.warning(
            "%d of %d held-out rows are training rows too; their loss says nothing about new text", both, len(held_out)
        )

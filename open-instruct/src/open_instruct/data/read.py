"""Rows from files, checked to the last one before any work starts; and which of them are held out."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import Problem, RequestError, WorkError
from ..formats.chat import Conversation, read_chat
from ..formats.errors import FormatError
from ..formats.preference import Pair, read_preference

__all__ = [
    "BadRows",
    "collect_rows",
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


class BadRows(WorkError):
    """Rows that cannot be used; the first 20 are named, the others counted."""

    def __init__(self, errors: Sequence[FormatError], total: int | None = None) -> None:
        """Name the errors, at least one, in file order; `total` counts them where `errors` has only the first ones."""
        super().__init__(str(errors[0]))
        self.problems = [Problem(str(error), error.hint or "") for error in errors[:_MAX_ERRORS]]
        more = (total or len(errors)) - len(self.problems)
        if more:
            self.problems.append(Problem(f"{more} more rows are bad; expected none"))


def collect_rows(found: Iterable[Parsed | FormatError]) -> list[Parsed]:
    """List the rows of a reader. Raises BadRows, after the last row, where some of them are errors."""
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
        RequestError: a path that is missing; `where` names the setting.
        BadRows: rows or files that break docs/formats/chat.md.
    """
    return _read_all(paths, where, read_chat)


def read_pairs(paths: Sequence[str], where: str, *, drop_identical: bool = False) -> list[Pair]:
    """Read every preference row of files and directories, as `read_conversations` does.

    With `drop_identical`, pairs of equal answers are skipped and counted, else they are bad rows.
    """
    return _read_all(paths, where, read_preference, "identical_answers" if drop_identical else None)


def _read_all(
    paths: Sequence[str],
    where: str,
    read: Callable[[Path], Iterator[Row | FormatError]],
    dropped_code: str | None = None,
) -> list[Row]:
    for path in paths:
        if not Path(path).exists():
            raise RequestError(f"{where}: {path} not found; expected a file or a directory")
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
    warn_of_ignored(rows, where)
    return rows


def warn_of_ignored(rows: Sequence[Conversation] | Sequence[Pair], where: str) -> None:
    """Warn about the fields of rows that nothing reads, with the number of rows that have each."""
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

"""`open-instruct mix`: sample rows from several files into one directory with a manifest.

Which rows are taken, and their order, depends only on the seed and the rows' content, not on the order of the files.
"""

import hashlib
import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .data import collect_rows
from .errors import RequestError
from .formats.chat import parse_conversation
from .formats.json_lines import canonical_line
from .formats.manifest import input_entries, row_files
from .formats.preference import parse_pair
from .formats.rows import parse_rows
from .output import Output

__all__ = ["Source", "mix", "parse_source"]

log = logging.getLogger(__name__)
_PARSERS: dict[str, Any] = {"chat": parse_conversation, "preference": parse_pair}


@dataclass(frozen=True)
class Source:
    """A path and how much of it to take: `count` rows, or `times` its number of rows (0.5: half, 2.0: each twice)."""

    path: Path
    count: int | None = None
    times: float = 1.0

    @property
    def name(self) -> str:
        """Return the `source` for rows that have none: the file's name up to the first dot."""
        return self.path.name.split(".")[0]

    def amount(self, available: int) -> int:
        """Return the number of rows to take of `available` ones."""
        return self.count if self.count is not None else round(self.times * available)


def parse_source(text: str) -> Source:
    """Read `PATH`, `PATH=COUNT` or `PATH=TIMES` (with a dot). Raises RequestError."""
    path, equals, amount = text.rpartition("=")
    if not equals or not path:
        return Source(Path(text))
    try:
        source = Source(Path(path), times=float(amount)) if "." in amount else Source(Path(path), count=int(amount))
    except ValueError:
        source = Source(Path(path), count=-1)
    if source.amount(1) < 0:
        raise RequestError(f'{text}: the amount is "{amount}"; expected a count such as 500 or a factor such as 0.5')
    return source


def _check_names(sources: list[Source]) -> None:
    """Refuse two files of the same name: their rows would get the same `source`."""
    paths: dict[str, Path] = {}
    for source in sources:
        other = paths.setdefault(source.name, source.path)
        if other.resolve() != source.path.resolve():
            raise RequestError(
                f'{source.path}: would label its rows "{source.name}", as would {other}; expected different names',
                "rename one of the two files",
            )


def _read(source: Source, format_name: str) -> list[dict[str, Any]]:
    if not source.path.exists():
        raise RequestError(f"{source.path}: not found; expected a file or a directory of rows")

    def parse(row: dict[str, Any], path: Path, line: int) -> dict[str, Any]:
        _PARSERS[format_name](row, path, line)
        return row

    rows = collect_rows(parse_rows(row_files(source.path, format_name), parse))
    name = source.name
    return [row if row.get("source") or row.get("dataset") else row | {"source": name} for row in rows]


def _rank(seed: int, purpose: str, text: str, copy: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{purpose}\0{copy}\0{text}".encode()).digest()


def _take(rows: list[dict[str, Any]], amount: int, seed: int) -> list[str]:
    seen: Counter[str] = Counter()
    ranked = []
    for row in rows:
        text = json.dumps(row, sort_keys=True, ensure_ascii=False)
        ranked.append((_rank(seed, "choose", text, seen[text]), canonical_line(row)))
        seen[text] += 1
    order = [line for _, line in sorted(ranked)]
    return [order[position % len(order)] for position in range(amount)] if order else []


def mix(sources: list[Source], output_dir: str, *, format_name: str, seed: int) -> None:
    """Take the requested rows of each source and write them, shuffled, to one directory of `format_name`.

    Raises:
        RequestError: a path does not exist, a source is empty, or the output directory contains something else.
        BadRows, FormatError: rows that break their format.
    """
    _check_names(sources)
    loaded = [(source, _read(source, format_name)) for source in sources]
    config = {
        "seed": seed,
        "sources": [{"name": source.path.name, "rows": source.amount(len(rows))} for source, rows in loaded],
    }
    config["sources"].sort(key=lambda entry: (entry["name"], entry["rows"]))  # type: ignore[attr-defined]
    inputs = []
    for path in dict.fromkeys(source.path for source in sources):
        inputs += input_entries(format_name, path, Path(output_dir))
    output = Output(output_dir, format_name=format_name, config=config, inputs=inputs)
    if output.is_done():
        log.info("mix: already done: %s", output.directory)
        return
    lines: list[str] = []
    for source, rows in loaded:
        amount = source.amount(len(rows))
        if amount and not rows:
            raise RequestError(f"{source.path}: has no rows; expected at least one")
        lines += _take(rows, amount, seed)
        log.info("mix  %s: %d of %d rows", source.path, amount, len(rows))
    seen: Counter[str] = Counter()
    ranked = []
    for line in lines:
        ranked.append((_rank(seed, "order", line, seen[line]), line))
        seen[line] += 1
    with output.begin(keep_trainer=False, keep_failed=False):
        output.result.mkdir(parents=True)
        file = output.result / f"{format_name}-0000.jsonl"
        file.write_text("".join(line for _, line in sorted(ranked)), encoding="utf-8")
        output.publish(counts=_counts(format_name, lines), details={})
    log.info("mix  %d rows: %s", len(lines), output.directory)


def _counts(format_name: str, lines: list[str]) -> dict[str, int]:
    if format_name == "preference":
        return {"pairs": len(lines)}
    messages = sum(len(json.loads(line)["messages"]) for line in lines)
    return {"conversations": len(lines), "messages": messages}

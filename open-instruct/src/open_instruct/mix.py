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
from .formats.chat import parse_conversation, parse_pair, parse_rows
from .formats.contract import ConfigError, canonical_line
from .formats.manifest import artifact_files, describe_input
from .output import Output

__all__ = ["mix"]

log = logging.getLogger(__name__)
_PARSERS: dict[str, Any] = {"chat": parse_conversation, "preference": parse_pair}


def mix(amounts: list[str], output_dir: str, *, format_name: str, seed: int) -> None:
    """Take rows of each `PATH[=AMOUNT]` and write them, shuffled, to one directory of `format_name`.

    Raises:
        ConfigError: a path does not exist, a source is empty, or the output directory contains something else.
        BadRows, FormatError: rows that break their format.
    """
    # ---- read and check
    sources = [_parse_source(text) for text in amounts]
    _check_names(sources)
    loaded = [(source, _read(source, format_name)) for source in sources]
    taken = [{"name": source.path.name, "rows": source.amount(len(rows))} for source, rows in loaded]
    config = {"seed": seed, "sources": sorted(taken, key=lambda entry: (entry["name"], entry["rows"]))}
    inputs = []
    for path in dict.fromkeys(source.path for source in sources):
        inputs += describe_input(format_name, path, Path(output_dir))
    output = Output(output_dir, format_name=format_name, config=config, inputs=inputs)
    if output.is_done():
        log.info("mix: already done: %s", output.directory)
        return

    # ---- choose
    lines: list[str] = []
    for source, rows in loaded:
        amount = source.amount(len(rows))
        if amount and not rows:
            raise ConfigError(f"{source.path}: has no rows; expected at least one")
        keys = [json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows]
        order = _shuffle([canonical_line(row) for row in rows], keys, f"{seed}\0choose")
        lines += [order[position % len(order)] for position in range(amount)]
        log.info("mix  %s: %d of %d rows", source.path, amount, len(rows))

    # ---- write
    with output.begin(keep_trainer=False, keep_failed=False):
        output.result.mkdir(parents=True)
        file = output.result / f"{format_name}-0000.jsonl"
        file.write_text("".join(_shuffle(lines, lines, f"{seed}\0order")), encoding="utf-8")
        if format_name == "preference":
            counts = {"pairs": len(lines)}
        else:
            messages = sum(len(json.loads(line)["messages"]) for line in lines)
            counts = {"conversations": len(lines), "messages": messages}
        output.publish(counts=counts, details={})
    log.info("mix  %d rows: %s", len(lines), output.directory)


@dataclass(frozen=True)
class _Source:
    """A path and how much of it to take: `count` rows, or `times` its number of rows (0.5: half, 2.0: each twice)."""

    path: Path
    count: int | None = None
    times: float = 1.0

    @property
    def name(self) -> str:
        """The `source` for rows that have none: the file's name up to the first dot."""
        return self.path.name.split(".")[0]

    def amount(self, available: int) -> int:
        """Return the number of rows to take of `available` ones."""
        return self.count if self.count is not None else round(self.times * available)


def _parse_source(text: str) -> _Source:
    """Read `PATH`, `PATH=COUNT` or `PATH=TIMES` (with a dot). Raises ConfigError."""
    path, equals, amount = text.rpartition("=")
    if not equals or not path:
        return _Source(Path(text))
    try:
        source = _Source(Path(path), times=float(amount)) if "." in amount else _Source(Path(path), count=int(amount))
    except ValueError:
        source = _Source(Path(path), count=-1)
    if source.amount(1) < 0:
        raise ConfigError(f'{text}: the amount is "{amount}"; expected a count such as 500 or a factor such as 0.5')
    return source


def _check_names(sources: list[_Source]) -> None:
    """Refuse two files of the same name: their rows would get the same `source`."""
    paths: dict[str, Path] = {}
    for source in sources:
        other = paths.setdefault(source.name, source.path)
        if other.resolve() != source.path.resolve():
            raise ConfigError(
                f'{source.path}: would label its rows "{source.name}", as would {other}; expected different names',
                hint="rename one of the two files",
            )


def _read(source: _Source, format_name: str) -> list[dict[str, Any]]:
    if not source.path.exists():
        raise ConfigError(f"{source.path}: not found; expected a file or a directory of rows")

    def parse(row: dict[str, Any], path: Path, line: int) -> dict[str, Any]:
        _PARSERS[format_name](row, path, line)
        return row

    rows = collect_rows(parse_rows(artifact_files(source.path, format_name), parse))
    return [row if row.get("source") or row.get("dataset") else row | {"source": source.name} for row in rows]


def _shuffle(lines: list[str], keys: list[str], seed: str) -> list[str]:
    """Order lines by the hash of the seed and of each line's key; equal keys are numbered."""
    seen: Counter[str] = Counter()
    ranked = []
    for line, key in zip(lines, keys, strict=True):
        ranked.append((hashlib.sha256(f"{seed}\0{seen[key]}\0{key}".encode()).digest(), line))
        seen[key] += 1
    return [line for _, line in sorted(ranked)]

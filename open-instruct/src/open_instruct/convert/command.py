"""`open-instruct convert`: rows of other projects to chats or pairs in one directory with a manifest.

A row that breaks its own format is an error with `file:line`, and nothing is written. A row that is well-formed but
cannot be trained on (a tie, an empty answer, a question without an answer) is left out, counted by reason, and written
next to the result.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..data import BadRows
from ..formats.chat import parse_conversation, parse_pair
from ..formats.contract import ConfigError, Fields, FormatError, WorkError, atomic_file, canonical_line
from ..formats.manifest import describe_input
from ..output import Output
from .read import download, find_files, read_file
from .shapes import SHAPES, Shape, Unusable, detect

__all__ = ["convert"]

log = logging.getLogger(__name__)
_LOOK_AT = 50  # rows, to detect a shape
_MAX_ERRORS = 20


def convert(
    paths: list[str],
    output_dir: str,
    *,
    shape_name: str | None = None,
    format_name: str | None = None,
    source: str | None = None,
    hub: list[str] | None = None,
    ghost_attention: bool = False,
) -> None:
    """Convert files, directories and data sets of the Hub to one directory of `format_name`.

    Without `shape_name` each file's shape is detected. Without `format_name` it is `chat` if every shape can become
    chats, else `preference`. `source` replaces the file's name as the rows' source.
    With `ghost_attention`, a chat with a system message trains its last answer only (Touvron et al. 2023,
    arXiv:2307.09288, section 3.3): the model learns to follow an instruction from many turns ago.

    Raises:
        ConfigError: a path that does not exist, rows of an unknown shape, or an output directory in use.
        BadRows: rows that break their own format.
        WorkError: no row is left.
    """
    roots = [*map(Path, paths), *(download(name) for name in hub or [])]
    if not roots:
        raise ConfigError("nothing to convert; expected files, directories or --hub")
    files = list(dict.fromkeys(file for root in roots for file in find_files(root)))
    shapes = {file: _shape(file, shape_name) for file in files}
    for file, name in shapes.items():
        log.info("convert  %s: %s", file, name)
    if format_name is None:
        format_name = "chat" if all(SHAPES[name].chat for name in shapes.values()) else "preference"
    for file, name in shapes.items():
        if _maker(SHAPES[name], format_name) is None:
            raise ConfigError(f"{file}: rows of {name} cannot become {format_name} rows; expected another --to")

    output = Output(
        output_dir,
        format_name=format_name,
        config={
            "ghost_attention": ghost_attention,
            "shapes": sorted({f"{file.name}={name}" for file, name in shapes.items()}),
            "source": source,
        },
        inputs=[entry for file in files for entry in describe_input("source", file, Path(output_dir))],
    )
    if output.is_done():
        log.info("convert: already done: %s", output.directory)
        return
    aside = output.directory.with_name(output.directory.name + ".dropped.jsonl")
    dropped: Counter[str] = Counter()
    errors: list[FormatError] = []
    bad = rows = messages = 0
    with output.begin(keep_trainer=False, keep_failed=False):
        output.result.mkdir(parents=True)
        with (
            (output.result / f"{format_name}-0000.jsonl").open("w", encoding="utf-8") as kept,
            atomic_file(output.partial / "dropped.jsonl") as left_out,
        ):
            for file, name in shapes.items():
                for made in _convert_file(file, SHAPES[name], format_name, source):
                    if isinstance(made, FormatError):
                        bad += 1
                        errors += [made] if len(errors) < _MAX_ERRORS else []
                    elif isinstance(made, _Dropped):
                        dropped[made.reason] += 1
                        left_out.write(canonical_line(made.record()).encode())
                    else:
                        if ghost_attention:
                            _train_last_answer(made.get("messages", []))
                        rows += 1
                        messages += len(made.get("messages", ()))
                        kept.write(canonical_line(made))
        if errors:
            raise BadRows(errors, bad)
        for reason, count in sorted(dropped.items()):
            log.warning("convert: %d rows were left out: %s", count, reason)
        if not rows:
            raise WorkError(f"{files[0]}: no row is left to train on; expected at least one")
        if dropped:
            (output.partial / "dropped.jsonl").replace(aside)
            log.warning("convert: they are in %s", aside)
        else:
            aside.unlink(missing_ok=True)
        counts = {"pairs": rows} if format_name == "preference" else {"conversations": rows, "messages": messages}
        details = {"rows_dropped": dict(sorted(dropped.items()))} if dropped else {}
        output.publish(counts=counts, details=details)
    log.info("convert  %d rows: %s", rows, output.directory)


def _train_last_answer(messages: list[dict[str, Any]]) -> None:
    """Give every answer but the last `weight` 0, if the chat begins with a system message."""
    if messages and messages[0]["role"] == "system":
        for message in messages[:-1]:
            if message["role"] == "assistant":
                message.pop("train", None)
                message["weight"] = 0


class _Dropped:
    """A row that was left out."""

    def __init__(self, reason: str, row: dict[str, Any], path: Path, line: int) -> None:
        self.reason, self.row, self.path, self.line = reason, row, path, line

    def record(self) -> dict[str, Any]:
        """What is written aside."""
        return {"reason": self.reason, "file": self.path.name, "line": self.line, "row": self.row}


def _shape(path: Path, name: str | None) -> str:
    """The named shape, or the one that the first rows have."""
    if name is not None:
        if name not in SHAPES:
            raise ConfigError(f'--from: is "{name}"; expected one of {", ".join(sorted(SHAPES))}')
        return name
    found = list(islice(read_file(path), _LOOK_AT))
    rows = [row[1] for row in found if not isinstance(row, FormatError)]
    if not rows:
        errors = [row for row in found if isinstance(row, FormatError)]
        if errors:
            raise BadRows(errors)
        raise ConfigError(f"{path}: has no rows; expected at least one")
    detected = detect(rows)
    if detected is None:
        keys = ", ".join(sorted({key for row in rows for key in row})[:12])
        raise ConfigError(
            f"{path}: rows with the keys {keys}; expected one of the known shapes",
            hint=f"name one with --from: {', '.join(sorted(SHAPES))}",
        )
    return detected


def _maker(shape: Shape, format_name: str) -> Any:
    return shape.chat if format_name == "chat" else shape.preference


def _convert_file(
    path: Path, shape: Shape, format_name: str, source: str | None
) -> Iterator[dict[str, Any] | FormatError | _Dropped]:
    make = _maker(shape, format_name)
    parse: Any = parse_conversation if format_name == "chat" else parse_pair
    stem = source or path.name.partition(".")[0]
    for placed in read_file(path):
        if isinstance(placed, FormatError):
            yield placed
            continue
        line, row = placed
        try:
            made = list(make(Fields(row, path, line)))
        except Unusable as unusable:
            yield _Dropped(str(unusable), row, path, line)
            continue
        except FormatError as error:
            yield error
            continue
        for number, one in enumerate(made):
            if not isinstance(one.get("source"), str):
                named = next((row[key] for key in ("source", "dataset") if isinstance(row.get(key), str)), "")
                one["source"] = source or named or stem
            one["id"] = _identity(row, stem, line, number if len(made) > 1 else None)
            try:
                parse(one, path, line)
            except FormatError as error:  # well-formed, but not a conversation to train on
                yield _Dropped(_reason(error), row, path, line)
            else:
                yield one


def _identity(row: dict[str, Any], stem: str, line: int, number: int | None) -> str:
    keys = ("id", "message_tree_id", "prompt_id", "question_id", "idx")
    own = next((str(row[key]) for key in keys if isinstance(row.get(key), str | int)), f"{stem}-{line}")
    return own if number is None else f"{own}_{number}"


_REASONS = {
    "role_order": "messages out of order",
    "empty_messages": "no answer",
    "identical_answers": "two equal answers",
    "prompt_mismatch": "two answers to different questions",
}


def _reason(error: FormatError) -> str:
    if error.code == "invalid_value":
        return "an empty message" if "is empty" in str(error) else "content that training would ignore"
    return _REASONS.get(error.code, error.code)

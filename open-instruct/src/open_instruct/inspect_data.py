"""`open-instruct inspect`: what training would see: rows by source, lengths, truncation, and the tokens of one row."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .chat.encode import IGNORED, ConversationEncoder
from .chat.render import choose_template
from .config import SequenceSettings, TemplateSettings
from .data import PairExample, SftExample, encode_conversations, encode_pairs, read_conversations, read_pairs
from .errors import RequestError
from .formats.manifest import NAME, read_manifest, row_files
from .formats.rows import parse_rows
from .model import check_model_directory, fitting_length, load_tokenizer

__all__ = ["inspect_data"]

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


def _is_preference(path: Path) -> bool:
    """Whether the first row of a file or directory has `chosen`: pairs, not chats."""
    row_format = str(read_manifest(path)["format"]) if (path / NAME).is_file() else "chat"
    for row in parse_rows(row_files(path, row_format), lambda value, *_: value):
        return isinstance(row, dict) and "chosen" in row
    return False


def inspect_data(
    paths: Sequence[str],
    checkpoint: str,
    template: TemplateSettings,
    sequence: SequenceSettings,
    row: int | None,
    *,
    drop_identical: bool = False,
) -> Iterator[str]:
    """Yield the lines of the report; `row` (from 0) adds that row's tokens, with `T` next to the trained ones.

    Raises:
        RequestError: a path that does not exist, or a row after the last.
    """
    inspection = check_model_directory(checkpoint)
    for path in paths:
        if not Path(path).exists():
            raise RequestError(f"{path}: not found; expected a configuration, a file of rows or a directory")
    tokenizer = load_tokenizer(inspection)
    chosen = choose_template(template, tokenizer.chat_template)
    added = [text for text in chosen.special_tokens if len(tokenizer.encode(text, add_special_tokens=False)) != 1]
    if added:
        tokenizer.add_tokens(added, special_tokens=True)
        yield f"new tokens: {', '.join(added)}"
    encoder = ConversationEncoder(tokenizer, chosen)
    yield f"template: {chosen.name}; a turn ends with {tokenizer.convert_ids_to_tokens(encoder.stop_id)!r}"
    limit = fitting_length(sequence.max_length_tokens, inspection)
    result: Any
    if _is_preference(Path(paths[0])):
        pairs = read_pairs(paths, "data.train", drop_identical=drop_identical)
        result = encode_pairs(pairs, encoder, limit, sequence.too_long)
        rows = [_pair_columns(example) for example in result.rows]
    else:
        conversations = read_conversations(paths, "data.train")
        result = encode_conversations(conversations, encoder, limit, sequence.too_long)
        rows = [_sft_columns(example) for example in result.rows]
    yield from _summary(result, rows)
    if result.highest_id >= inspection.embedding_rows:
        token = tokenizer.convert_ids_to_tokens(result.highest_id)
        yield f"not in the embedding's {inspection.embedding_rows} rows: {token!r}; sft adds rows for such tokens"
    if row is not None:
        if not 0 <= row < len(rows):
            raise RequestError(f"--row: is {row}; expected 0 up to {len(rows) - 1}")
        yield from _tokens(result.rows[row], tokenizer)


def _sft_columns(example: SftExample) -> dict[str, int]:
    return {"tokens": len(example.input_ids), "trained": sum(label != IGNORED for label in example.labels)}


def _pair_columns(example: PairExample) -> dict[str, int]:
    return {"prompt": len(example.prompt_ids), "chosen": len(example.chosen_ids), "rejected": len(example.rejected_ids)}


def _summary(result: Any, rows: list[dict[str, int]]) -> Iterator[str]:
    by_source: dict[str, list[dict[str, int]]] = defaultdict(list)
    for example, columns in zip(result.rows, rows, strict=True):
        by_source[example.source or "(no source)"].append(columns)
    for source, members in sorted(by_source.items()):
        sums = ", ".join(f"{sum(member[name] for member in members)} {name}" for name in members[0])
        yield f"source {source}: {len(members)} rows, {sums}"
    yield f"truncated: {result.truncated}"
    for reason, count in sorted(result.dropped.items()):
        yield f"left out: {count} ({reason})"
    for name in rows[0] if rows else ():
        ordered = sorted(columns[name] for columns in rows)
        values = "  ".join(f"{quantile:.0%} {ordered[round(quantile * (len(ordered) - 1))]}" for quantile in _QUANTILES)
        yield f"{name} per row: {values}"


def _tokens(example: SftExample | PairExample, tokenizer: Any) -> Iterator[str]:
    if isinstance(example, SftExample):
        parts = [("", example.input_ids, [label != IGNORED for label in example.labels])]
    else:
        parts = [("prompt", example.prompt_ids, [False] * len(example.prompt_ids))]
        for name, ids in (("chosen", example.chosen_ids), ("rejected", example.rejected_ids)):
            parts.append((name, ids, [True] * len(ids)))
    for name, ids, trained in parts:
        if name:
            yield f"{name}:"
        for position, (token, is_trained) in enumerate(zip(ids, trained, strict=True)):
            yield f"{position:6d}  {token:7d}  {'T' if is_trained else '.'}  {tokenizer.decode([token])!r}"

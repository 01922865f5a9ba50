"""`open-instruct inspect`: what training would see: rows by source, lengths, truncation, and the tokens of one row."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from .chat.encode import IGNORED, ConversationEncoder
from .chat.render import choose_template
from .config import DpoConfig, SequenceSettings, SftConfig, TemplateSettings, load_config
from .data import PairExample, SftExample, encode_conversations, encode_pairs, read_conversations, read_pairs
from .formats.chat import parse_rows
from .formats.contract import ConfigError
from .formats.manifest import MANIFEST, artifact_files, read_manifest
from .model.load import check_model_directory, fitting_length, load_tokenizer
from .settings import read_settings

__all__ = ["inspect_data"]

_GREEN, _FAINT = 32, 2
_MARK = 17  # column of the T in a line of _tokens
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


def inspect_data(
    data: str,
    *,
    checkpoint: str | None,
    template: str | None,
    max_length_tokens: int | None,
    row: int | None,
    color: bool = False,
) -> Iterator[str]:
    """Yield the lines of the report on `data`, a YAML file with settings or rows.

    The other arguments override the settings; `row` (from 0) adds that row's tokens, with `T` next to
    the trained ones, which are green with `color`.

    Raises:
        ConfigError: a path that does not exist, or a row after the last.
    """
    # ---- settings
    paths, template_settings, sequence, drop_identical = [data], TemplateSettings(), SequenceSettings(), False
    if data.endswith((".yaml", ".yml")):
        config = _read_config(Path(data))
        paths, template_settings, sequence = config.data.train, config.template, config.sequence
        checkpoint = checkpoint or config.model
        drop_identical = isinstance(config, DpoConfig) and config.data.identical_answers == "drop"
    if checkpoint is None:
        raise ConfigError("--checkpoint: not set; expected a directory with a tokenizer")
    if template is not None:
        template_settings = replace(template_settings, name=template)

    # ---- tokenizer and template
    inspection = check_model_directory(checkpoint)
    for path in paths:
        if not Path(path).exists():
            raise ConfigError(f"{path}: not found; expected a configuration, a file of rows or a directory")
    tokenizer = load_tokenizer(inspection)
    chosen = choose_template(template_settings, tokenizer.chat_template)
    added = [text for text in chosen.special_tokens if len(tokenizer.encode(text, add_special_tokens=False)) != 1]
    if added:
        tokenizer.add_tokens(added, special_tokens=True)
        yield f"new tokens: {', '.join(added)}"
    encoder = ConversationEncoder(tokenizer, chosen)
    yield f"template: {chosen.name}; a turn ends with {tokenizer.convert_ids_to_tokens(encoder.stop_id)!r}"

    # ---- rows
    if max_length_tokens is None:
        max_length_tokens = sequence.max_length_tokens
    max_length = fitting_length(max_length_tokens, inspection)
    examples: Any
    if _is_preference(Path(paths[0])):
        pairs = read_pairs(paths, "data.train", drop_identical=drop_identical)
        examples = encode_pairs(pairs, encoder, max_length, sequence.too_long)
        counts = [_pair_counts(example) for example in examples.rows]
    else:
        conversations = read_conversations(paths, "data.train")
        examples = encode_conversations(conversations, encoder, max_length, sequence.too_long)
        counts = [_sft_counts(example) for example in examples.rows]
    yield from _summary(examples, counts)
    if examples.highest_id >= inspection.embedding_rows:
        token = tokenizer.convert_ids_to_tokens(examples.highest_id)
        yield f"not in the embedding's {inspection.embedding_rows} rows: {token!r}; sft adds rows for such tokens"
    if row is not None:
        if not 0 <= row < len(counts):
            raise ConfigError(f"--row: is {row}; expected 0 to {len(counts) - 1}")
        for line in _tokens(examples.rows[row], tokenizer):
            is_trained = line[_MARK : _MARK + 1] == "T"
            yield f"\x1b[{_GREEN if is_trained else _FAINT}m{line}\x1b[0m" if color else line


def _read_config(path: Path) -> SftConfig | DpoConfig:
    """Read the settings of either stage; those of dpo have keys that sft does not have."""
    tree = read_settings(path)
    data = tree.get("data")
    is_dpo = "loss" in tree or (isinstance(data, dict) and "identical_answers" in data)
    return load_config(DpoConfig, path, []) if is_dpo else load_config(SftConfig, path, [])


def _is_preference(path: Path) -> bool:
    """Whether the first row of a file or directory has `chosen`: pairs, not chats."""
    row_format = read_manifest(path).format if (path / MANIFEST).is_file() else "chat"
    for row in parse_rows(artifact_files(path, row_format), lambda value, *_: value):
        return isinstance(row, dict) and "chosen" in row
    return False


def _sft_counts(example: SftExample) -> dict[str, int]:
    return {"tokens": len(example.input_ids), "trained": sum(label != IGNORED for label in example.labels)}


def _pair_counts(example: PairExample) -> dict[str, int]:
    return {"prompt": len(example.prompt_ids), "chosen": len(example.chosen_ids), "rejected": len(example.rejected_ids)}


def _summary(examples: Any, counts: list[dict[str, int]]) -> Iterator[str]:
    by_source: dict[str, list[dict[str, int]]] = defaultdict(list)
    for example, lengths in zip(examples.rows, counts, strict=True):
        by_source[example.source or "(no source)"].append(lengths)
    for source, members in sorted(by_source.items()):
        sums = ", ".join(f"{sum(member[name] for member in members)} {name}" for name in members[0])
        yield f"source {source}: {len(members)} rows, {sums}"
    yield f"truncated: {examples.truncated}"
    for reason, count in sorted(examples.dropped.items()):
        yield f"left out: {count} ({reason})"
    for name in counts[0] if counts else ():
        ordered = sorted(lengths[name] for lengths in counts)
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

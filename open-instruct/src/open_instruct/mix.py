"""`open-instruct mix`: sample rows from several files into one directory with a manifest.

Which rows are taken, and their order, depends only on the seed and the rows' content, not on the order of the files.
"""

import hashlib
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from os.path import expanduser
from pathlib import Path
from typing import Any

from .chat.encode import IGNORED
from .chat.render import choose_template
from .config import TemplateSettings
from .data import SftExample, collect_rows, encode_conversations, encode_pairs
from .decontaminate import EvaluationTexts
from .formats.chat import parse_conversation, parse_pair, parse_rows
from .formats.contract import ConfigError, canonical_line
from .formats.manifest import artifact_files, describe_input
from .output import Output
from .settings import read_settings

__all__ = ["mix"]

log = logging.getLogger(__name__)
_PARSERS: dict[str, Any] = {"chat": parse_conversation, "preference": parse_pair}


def mix(
    amounts: list[str],
    output_dir: str,
    *,
    format_name: str,
    seed: int,
    decontaminate: list[str] | None = None,
    ngram_words: int = 8,
    threshold: float = 0.5,
    checkpoint: str | None = None,
    template: str | None = None,
) -> None:
    """Take rows of each `PATH[=AMOUNT[@SEED]]` and write them, shuffled, to one directory of `format_name`.

    An entry that ends in .yaml is a file with a list of such entries, `sources`. Rows whose prompts repeat a text of
    `decontaminate` are removed before the choice and written to `<output_dir>.contaminated.jsonl`. With `checkpoint`,
    the table of sources also has tokens.

    Raises:
        ConfigError: a path does not exist, a source is empty, or the output directory contains something else.
        BadRows, FormatError: rows that break their format.
    """
    # ---- read and check
    if ngram_words < 1 or not 0 < threshold <= 1:
        raise ConfigError("--ngram-words and --threshold: expected 1 or more, and a number above 0 and at most 1")
    sources = [_parse_source(text) for text in _expand(amounts)]
    _check_names(sources)
    loaded = [(source, _read(source, format_name)) for source in sources]
    removed: list[dict[str, Any]] = []
    if decontaminate:
        texts = EvaluationTexts([Path(path) for path in decontaminate], ngram_words, threshold)
        loaded = [(source, list(_clean(source, rows, texts, removed))) for source, rows in loaded]
    taken: list[dict[str, Any]] = [
        {"name": source.path.name, "rows": source.amount(len(rows))}
        | ({"seed": source.seed} if source.seed is not None else {})
        for source, rows in loaded
    ]
    config: dict[str, Any] = {
        "seed": seed,
        "sources": sorted(taken, key=lambda entry: (entry["name"], entry["rows"], str(entry.get("seed", "")))),
    }
    inputs = []
    if decontaminate:
        config["decontaminate"] = {"ngram_words": ngram_words, "threshold": threshold}
        for evaluation in dict.fromkeys(decontaminate):
            inputs += describe_input("evaluation", Path(evaluation), Path(output_dir))
    for path in dict.fromkeys(source.path for source in sources):
        inputs += describe_input(format_name, path, Path(output_dir))
    output = Output(output_dir, format_name=format_name, config=config, inputs=inputs)
    if output.is_done():
        log.info("mix: already done: %s", output.directory)
        return

    # ---- choose
    lines: list[str] = []
    table: list[tuple[str, int, int, list[str]]] = []
    for source, rows in loaded:
        amount = source.amount(len(rows))
        if amount and not rows:
            raise ConfigError(f"{source.path}: has no rows; expected at least one")
        keys = [json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows]
        own_seed = seed if source.seed is None else source.seed
        order = _shuffle([canonical_line(row) for row in rows], keys, f"{own_seed}\0choose")
        chosen = [order[position % len(order)] for position in range(amount)]
        lines += chosen
        table.append((str(source.path), amount, len(rows), chosen))

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
        details = {"rows_contaminated": len(removed)} if decontaminate else {}
        output.publish(counts=counts, details=details)
    if removed:
        aside = output.directory.with_name(output.directory.name + ".contaminated.jsonl")
        aside.write_text("".join(map(canonical_line, removed)), encoding="utf-8")
        for (name, file), count in sorted(Counter((one["source"], one["evaluation"]) for one in removed).items()):
            log.warning("mix  %s: %d rows repeat %s and were removed", name, count, file)
        log.warning("mix  they are in %s", aside)
    for text in _table(table, format_name, checkpoint, template):
        log.info("mix  %s", text)
    log.info("mix  %d rows: %s", len(lines), output.directory)


@dataclass(frozen=True)
class _Source:
    """A path and how much of it to take: `count` rows, or `times` its number of rows (0.5: half, 2.0: each twice)."""

    path: Path
    count: int | None = None
    times: float = 1.0
    seed: int | None = None

    @property
    def name(self) -> str:
        """The `source` for rows that have none: the file's name up to the first dot."""
        return self.path.name.split(".")[0]

    def amount(self, available: int) -> int:
        """Return the number of rows to take of `available` ones."""
        return self.count if self.count is not None else round(self.times * available)


def _parse_source(text: str) -> _Source:
    """Read `PATH`, `PATH=COUNT` or `PATH=TIMES` (with a dot), and `@SEED` after the amount. Raises ConfigError."""
    path, equals, amount = text.rpartition("=")
    if not equals or not path:
        return _Source(Path(text))
    amount, _, own = amount.partition("@")
    try:
        seed = int(own) if own else None
        if "." in amount:
            source = _Source(Path(path), times=float(amount), seed=seed)
        else:
            source = _Source(Path(path), count=int(amount), seed=seed)
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


def _expand(amounts: list[str]) -> list[str]:
    """Replace each .yaml file by its list of `sources`."""
    found: list[str] = []
    for text in amounts:
        if not text.endswith((".yaml", ".yml")):
            found.append(text)
            continue
        tree = read_settings(Path(text))
        sources = tree.get("sources")
        if set(tree) != {"sources"} or not isinstance(sources, list) or not all(isinstance(s, str) for s in sources):
            raise ConfigError(f'{text}: expected one setting, "sources", a list of PATH[=AMOUNT[@SEED]]')
        found += [expanduser(source) for source in sources]
    return found


def _clean(
    source: _Source, rows: list[dict[str, Any]], texts: EvaluationTexts, removed: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the rows whose prompts repeat no evaluation; describe the others in `removed`."""
    for row in rows:
        match = texts.find(row)
        if match is None:
            yield row
            continue
        file, _, line = match.place.rpartition(":")
        removed.append(
            {
                "source": source.name,
                "evaluation": Path(file).name,
                "line": int(line),
                "overlap": round(match.overlap, 3),
                "row": row,
            }
        )


def _table(
    sources: list[tuple[str, int, int, list[str]]], format_name: str, checkpoint: str | None, template: str | None
) -> Iterator[str]:
    """Yield a line for each source: rows taken, rows it has and, with a tokenizer, tokens and trained tokens."""
    width = max(len("source"), *(len(path) for path, *_ in sources))
    counter = _TokenCounter(checkpoint, template) if checkpoint else None
    head = f"{'source':{width}}  {'rows':>9}  {'of':>9}"
    yield head + (f"  {'tokens':>12}  {'trained':>12}" if counter else "")
    for path, amount, available, lines in sorted(sources):
        text = f"{path:{width}}  {amount:>9}  {available:>9}"
        if counter:
            tokens, trained = counter.count(lines, format_name)
            text += f"  {tokens:>12}  {trained:>12}"
        yield text


class _TokenCounter:
    """Counts the tokens of rows as training would encode them, without a limit of length."""

    def __init__(self, checkpoint: str, template: str | None) -> None:
        from .chat.encode import ConversationEncoder
        from .model.load import check_model_directory, load_tokenizer

        tokenizer = load_tokenizer(check_model_directory(checkpoint))
        chosen = choose_template(TemplateSettings(name=template), tokenizer.chat_template)
        tokenizer.add_tokens(list(chosen.special_tokens), special_tokens=True)
        self.encoder = ConversationEncoder(tokenizer, chosen)

    def count(self, lines: list[str], format_name: str) -> tuple[int, int]:
        copies = Counter(lines)
        rows = [_PARSERS[format_name](json.loads(line), Path("mix"), 0) for line in copies]
        encode: Any = encode_pairs if format_name == "preference" else encode_conversations
        examples = encode(rows, self.encoder, sys.maxsize, "drop").rows
        tokens = trained = 0
        for example, times in zip(examples, copies.values(), strict=True):
            if isinstance(example, SftExample):
                tokens += times * len(example.input_ids)
                trained += times * sum(label != IGNORED for label in example.labels)
            else:
                answers = len(example.chosen_ids) + len(example.rejected_ids)
                tokens += times * (2 * len(example.prompt_ids) + answers)
                trained += times * answers
        return tokens, trained

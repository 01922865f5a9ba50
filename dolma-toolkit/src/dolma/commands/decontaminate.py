"""``dolma decontaminate``: find evaluation items in training documents, remove those documents, and certify it.

1. Write the index: the rule, then every item's text.
2. Tag the documents with it, and mix those without a span if ``output`` is set: one ``dolma run``.
3. Look at the marked documents again: which item, where, how much of it.
4. Write the certificate (docs/formats/decontamination.md).
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dolma import _native
from dolma.commands import mix, tag
from dolma.commands import run as pipeline
from dolma.config import REQUIRED, SKIP_BAD_ROWS, at_least, setting
from dolma.core.data_types import make_variable_name
from dolma.errors import ConfigError, Problem, nearest, raises_dolma_errors
from dolma.files.paths import Source, expand
from dolma.formats.contract import FormatError, canonical_json, canonical_line, write_file, write_gzip
from dolma.formats.files import lines, parse_object, sha256_of
from dolma.formats.manifest import MANIFEST, describe_input, find_manifest, read_manifest, write_manifest
from dolma.places import InputPattern, OutputDirectory, OutputName
from dolma.records import Reporter, save_config

__all__ = ["Config", "run"]

log = logging.getLogger(__name__)

TAGGER = "evaluation_overlap_v1"
INDEX, MATCHES, ITEMS, CERTIFICATE = "index.jsonl", "matches.jsonl.gz", "items.jsonl.gz", "certificate.json"

RULES: dict[str, dict[str, Any]] = {
    # Brown et al. 2020, appendix C: a common 13-gram, in lower case and without punctuation; at least 8 words
    "ngrams": {"unit": "words", "length": 13, "min_length": 8},
    # Touvron et al. 2023 (Llama 2), appendix A.6: more than 10 tokens, 4 of which may differ, none of the first 10
    "tokens": {"unit": "words", "length": 10, "min_length": 10, "mismatches": 4},
    # OpenAI 2023 (GPT-4), appendix C: one of three random substrings of 50 characters; letters and digits only
    "characters": {"unit": "characters", "length": 50, "min_length": 20, "samples": 3},
    # Magnusson et al. 2023 (Paloma), guideline G1: a common paragraph of at least 13 words
    "paragraphs": {"unit": "paragraphs", "length": 1, "min_length": 1, "min_words": 13},
}
_CLASSES = {"clean": (0.0, 0.2), "not_clean": (0.2, 2.0), "not_dirty": (0.0, 0.8), "dirty": (0.8, 2.0)}
"""Shares of an item, from and to; those of Llama 2 (appendix A.6)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``dolma decontaminate``."""

    documents: list[InputPattern] = setting([], "training documents: files, patterns (`*`, `**`) or directories")
    evaluation: list[InputPattern] = setting(
        [], "evaluation items: documents ({id, text}), or items.jsonl.gz of `catwalk run`"
    )
    destination: OutputDirectory = setting(REQUIRED, "directory for the index, the matches and the certificate")
    output: OutputDirectory | None = setting(None, "directory for the documents without evaluation text")
    rule: str = setting(
        "ngrams", "what counts: ngrams (GPT-3), tokens (Llama 2), characters (GPT-4), paragraphs (Paloma)"
    )
    length: int | None = setting(None, "words, or characters, that must be equal (default: that of the rule)")
    min_length: int | None = setting(
        None, "a shorter item is compared whole, down to this length (default: the rule's)"
    )
    min_words: int | None = setting(None, "words that a paragraph must have (rule paragraphs; default: 13)")
    name: OutputName = setting("evaluation_overlap", "name of the attributes next to the documents")
    processes: int = setting(1, "number of threads; the output does not depend on it")
    skip_bad_rows: int = setting(0, SKIP_BAD_ROWS)

    def check(self) -> Iterator[Problem]:
        """What is wrong between the settings."""
        if self.rule not in RULES:
            yield Problem("rule", f'is "{self.rule}"; expected {", ".join(RULES)}', nearest(self.rule, RULES))
            return
        yield from at_least(1, processes=self.processes)
        yield from at_least(0, skip_bad_rows=self.skip_bad_rows)
        for name in ("length", "min_length", "min_words"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield Problem(name, f"is {value}; expected at least 1")
        if self.rule == "paragraphs" and (self.length, self.min_length) != (None, None):
            yield Problem("length", "is set, but paragraphs are compared whole", "set min_words")
        if self.rule != "paragraphs" and self.min_words is not None:
            yield Problem("min_words", f"is set, but the rule is {self.rule}; expected the rule paragraphs")

    def index_rule(self) -> dict[str, Any]:
        """The first line of the index."""
        rule: dict[str, Any] = {"format": "evaluation-index", "version": 1} | RULES[self.rule]
        given = {name: getattr(self, name) for name in ("length", "min_length", "min_words")}
        rule |= {name: value for name, value in given.items() if value is not None}
        return rule | {"min_length": min(rule["min_length"], rule["length"])}


@raises_dolma_errors
def run(config: Config) -> None:
    """Does the four steps."""
    start = time.monotonic()
    sources = expand(config.documents)
    evaluation = expand(config.evaluation, "evaluation")
    destination = Path(config.destination)

    # ---- 1. the index
    _write_index(config, evaluation, destination)
    index = _native.EvaluationIndex(str(destination / INDEX))
    too_short = [id for id, _, patterns in index.items if not patterns]
    if len(too_short) == len(index.items):
        message = f"has {len(index.items)} items, all too short for the rule {config.rule}; expected longer ones"
        raise ConfigError([Problem("evaluation", message, "lower min_length")])
    if too_short:
        text = "%d of %d items are too short to be found, such as %s; items.jsonl.gz lists them"
        log.warning(f"decontaminate  {text}", len(too_short), len(index.items), too_short[0])

    # ---- 2. mark documents, and leave them out
    tagging = tag.Config(
        experiment=config.name, taggers=[TAGGER], resources={TAGGER: str(destination / INDEX)}, processes=1
    )
    stages = [pipeline.StageConfig(tag=tagging, keep=True)]
    if config.output is not None:
        stages.append(pipeline.StageConfig(mix=_mixing(config, config.output)))
    pipeline.run(
        pipeline.Config(
            documents=config.documents,
            stages=stages,
            processes=config.processes,
            skip_bad_rows=config.skip_bad_rows,
        )
    )

    # ---- 3. look at marked documents again
    plan = tag.make_plan(tagging, sources)
    items = [_Item(id, units, patterns) for id, units, patterns in index.items]
    found = _Matches(index, items, _key(config))
    with write_gzip(destination / MATCHES, level=6) as file:
        for one in plan.files:
            [output] = one.outputs
            attributes = Path(plan.artifacts[output["artifact"]].directory, output["path"])
            for row in found.of_file(Path(one.path), one.name, attributes):
                file.write(canonical_line(row).encode())
    with write_gzip(destination / ITEMS, level=6) as file:
        file.writelines(canonical_line(item.row()).encode() for item in items)

    # ---- 4. the certificate
    marks = sorted({Path(artifact.directory) for artifact in plan.artifacts})
    certificate = _certificate(config, evaluation, destination, marks, items, found)
    write_file(destination / CERTIFICATE, canonical_json(certificate).encode())
    _write_manifest(config, destination, evaluation, marks, certificate)
    save_config(config, [destination])
    counts = certificate["counts"]
    text = f"{counts['items_matched']:,} of {counts['items']:,} items found in {counts['documents_matched']:,} of "
    text += f"{counts['documents']:,} documents"
    Reporter("decontaminate", [destination]).finish(time.monotonic() - start, counts, text)


# ---- 1. the index


def _write_index(config: Config, evaluation: Sequence[Source], destination: Path) -> None:
    """The file is written only if it changes, so that finished attributes stay finished.

    Raises:
        ConfigError: there is no item, or two have one id. FormatError: a damaged row.
    """
    ids: dict[str, str] = {}
    rows = [canonical_line(config.index_rule())]
    for source in evaluation:
        for number, row in _rows(source):
            id, text = _item(row, source, number)
            place = f"{source.name}:{number}"
            if id in ids:
                message = f'has the id "{id}" at {place} and {ids[id]}; expected each id once'
                raise ConfigError([Problem("evaluation", message, "decontaminate them in separate runs")])
            ids[id] = place
            rows.append(canonical_line({"id": id, "text": text}))
    if not ids:
        raise ConfigError([Problem("evaluation", "has no items; expected at least one")])
    data = "".join(rows).encode()
    path = destination / INDEX
    if not path.is_file() or path.read_bytes() != data:
        destination.mkdir(parents=True, exist_ok=True)
        write_file(path, data)


def _rows(source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in lines(Path(source.path)):
        yield number, parse_object(line, source.name, number)


def _item(row: dict[str, Any], source: Source, number: int) -> tuple[str, str]:
    """Id and text of a document, or of an item of `catwalk run`: the last context with all continuations."""

    def wrong(field: str, expected: str) -> FormatError:
        message = f'"{field}" is {row.get(field)!r:.60}; expected {expected}'
        return FormatError("wrong_type", source.name, message, line=number, field=field)

    if "continuations" in row:
        context = row.get("context")
        context = context[-1] if isinstance(context, list) and context else context
        if not isinstance(context, str):
            raise wrong("context", "a text")
        if not isinstance(row["continuations"], list):
            raise wrong("continuations", "a list of texts")
        return f"{row.get('task')}-{row.get('id')}", "\n".join([context, *map(str, row["continuations"])])
    if not isinstance(row.get("id"), str | int):
        raise wrong("id", "a string")
    if not isinstance(row.get("text"), str):
        raise wrong("text", "a string")
    return str(row["id"]), row["text"]


# ---- 2. marks


def _mixing(config: Config, output: str) -> mix.Config:
    stream = mix.StreamConfig(
        name="documents",
        documents=config.documents,
        attributes=[config.name],
        filter=mix.FilterConfig(syntax="jq", exclude=[f"(.attributes.{_key(config)} // []) | length > 0"]),
        output=mix.OutputConfig(path=output, discard_fields=["attributes"]),
    )
    return mix.Config(streams=[stream])


def _key(config: Config) -> str:
    return f"{make_variable_name(config.name)}__{make_variable_name(TAGGER)}__overlap"


# ---- 3. matches


@dataclasses.dataclass
class _Item:
    id: str
    units: int
    patterns: int
    documents: int = 0
    runs: list[tuple[int, int]] = dataclasses.field(default_factory=list)

    @property
    def share(self) -> float:
        """Of its units, those that some document has."""
        covered, end = 0, 0
        for start, length in sorted(self.runs):
            covered += max(0, start + length - max(start, end))
            end = max(end, start + length)
        return covered / self.units if self.units else 0.0

    def row(self) -> dict[str, Any]:
        """Of items.jsonl.gz."""
        found = {"id": self.id, "units": self.units, "documents": self.documents, "share": round(self.share, 6)}
        return found | {"is_too_short": not self.patterns}


class _Matches:
    """The rows of matches.jsonl.gz, and what they add up to. `key` is the attribute of the marks."""

    def __init__(self, index: _native.EvaluationIndex, items: list[_Item], key: str) -> None:
        self._index, self._items, self._key = index, items, key
        self.counts: Counter[str] = Counter()

    def of_file(self, documents: Path, name: str, attributes: Path) -> Iterator[dict[str, Any]]:
        """Rows of one document file, in its order."""
        marked: list[str] = []
        for number, line in lines(attributes):
            self.counts["documents"] += 1
            row = parse_object(line, attributes, number)
            if row["attributes"].get(self._key):
                marked.append(str(row["id"]))
        self.counts["documents_matched"] += len(marked)
        left = iter(marked)
        wanted = next(left, None)
        for number, line in lines(documents, ["id", "text"]) if marked else ():
            try:
                row = parse_object(line, name, number)
            except FormatError:
                continue  # a row that was skipped
            if str(row.get("id")) == wanted and (matches := self._index.matches(row["text"])):
                yield from self._rows(wanted, name, number, matches)
                wanted = next(left, None)

    def _rows(
        self, id: str, name: str, line: int, matches: Iterable[tuple[int, int, int, int, int]]
    ) -> Iterator[dict[str, Any]]:
        seen: set[int] = set()
        for position, item_start, length, start, end in matches:
            item = self._items[position]
            item.runs.append((item_start, length))
            item.documents += position not in seen
            seen.add(position)
            self.counts["matches"] += 1
            yield {
                "document": id,
                "path": name,
                "line": line,
                "start": start,
                "end": end,
                "item": item.id,
                "item_start": item_start,
                "units": length,
                "share": round(length / item.units, 6),
            }


# ---- 4. the certificate


def _certificate(
    config: Config,
    evaluation: Sequence[Source],
    destination: Path,
    marks: Sequence[Path],
    items: Sequence[_Item],
    found: _Matches,
) -> dict[str, Any]:
    matched = [item for item in items if item.documents]
    findable = [item for item in items if item.patterns]
    counts = {
        "documents": found.counts["documents"],
        "documents_matched": found.counts["documents_matched"],
        "matches": found.counts["matches"],
        "items": len(items),
        "items_too_short": len(items) - len(findable),
        "items_matched": len(matched),
    }
    counts |= {
        f"items_{name}": sum(low <= item.share < high for item in findable) for name, (low, high) in _CLASSES.items()
    }
    training = read_manifest(Path(config.output)) if config.output else None
    samples = {Path(source.path).parent: find_manifest(_root(Path(source.path)), "document") for source in evaluation}
    value: dict[str, Any] = {
        "format": "decontamination",
        "version": 1,
        "rule": config.rule,
        "settings": config.index_rule(),
        "index": {
            "sha256": sha256_of(destination / INDEX),
            "inputs": sorted(sha256_of(Path(source.path)) for source in evaluation),
        },
        "documents_sha256": _only(one.identity if one else None for one in samples.values()),
        "marks_sha256": _only(read_manifest(directory).identity for directory in marks),
        "training_sha256": training.identity if training else None,
        "documents_in": counts["documents"],
        "documents_removed": counts["documents_matched"] if training else 0,
        "documents_out": training.counts["documents"] if training else counts["documents"],
        "counts": counts,
        "files": {name: sha256_of(destination / name) for name in (MATCHES, ITEMS)},
    }
    return value


def _only(identities: Iterable[str | None]) -> str | None:
    """The identity of an artifact, if everything belongs to one."""
    found = set(identities)
    return found.pop() if len(found) == 1 else None


def _root(path: Path) -> Path:
    """The directory with the manifest of a document file: the nearest one above it, else its own."""
    return next((parent for parent in list(path.parents)[:4] if (parent / MANIFEST).is_file()), path.parent)


def _write_manifest(
    config: Config, destination: Path, evaluation: Sequence[Source], marks: Sequence[Path], value: dict[str, Any]
) -> None:
    (destination / MANIFEST).unlink(missing_ok=True)
    inputs = [row for directory in marks for row in describe_input("attributes", directory, destination)]
    for place in dict.fromkeys(_root(Path(source.path)) for source in evaluation):
        named = (
            [place]
            if (place / MANIFEST).is_file()
            else [Path(source.path) for source in evaluation if _root(Path(source.path)) == place]
        )
        inputs += [row for path in named for row in describe_input("documents", path, destination)]
    if config.output:
        inputs += describe_input("training", Path(config.output), destination)
    write_manifest(
        destination,
        format="table",
        writer={"name": "dolma-toolkit", "version": _native.__version__},
        files=[destination / name for name in (INDEX, MATCHES, ITEMS, CERTIFICATE)],
        config={"rule": config.rule, **config.index_rule()},
        counts=value["counts"],
        details={},
        inputs=inputs,
    )


if __name__ == "__main__":  # `python -m dolma.commands.decontaminate` is `dolma decontaminate`
    from dolma.__main__ import main

    main(["decontaminate", *sys.argv[1:]])

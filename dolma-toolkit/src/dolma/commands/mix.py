"""``dolma mix``: filters documents by their attributes, replaces spans, writes new documents."""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from dolma import _native
from dolma.config import GENERATE_IDS, REQUIRED, SKIP_BAD_ROWS, Compression, WorkDir, at_least, load, setting, to_yaml
from dolma.errors import ConfigError, Problem, nearest, raises_dolma_errors
from dolma.files.paths import PACKINGS, Source, attributes_root, expand, named, select
from dolma.files.store import current
from dolma.places import InputPattern, OutputDirectory
from dolma.plan import Document, Plan, skipped_rows
from dolma.records import Reporter, bytes_text, count_text, error_log, save_config, save_skipped
from dolma.staging import with_remote_paths

__all__ = [
    "BudgetConfig",
    "Config",
    "SampleConfig",
    "ShuffleConfig",
    "SplitConfig",
    "mixer",
    "run",
]

log = logging.getLogger(__name__)

UNITS = ("bytes", "documents", "tokens")
SYNTAXES = ("jsonpath", "jq")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """A share of the documents, or several copies of them."""

    rate: float = setting(REQUIRED, "how many of each document on average; above 1 documents are repeated")
    seed: int = setting(0, "another number, another choice")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """As many documents as fit, taken in a random order."""

    bytes: int | None = setting(None, "bytes of text (UTF-8) as it is written")
    documents: int | None = setting(None, "documents")
    tokens: int | None = setting(None, "tokens, as `attribute` counts them")
    attribute: str | None = setting(None, "key of the attribute with a document's number of tokens")
    seed: int = setting(0, "another number, another choice")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Parts by the score of an attribute's first span."""

    attribute: str = setting(REQUIRED, "key of the attribute")
    ranges: list[float] = setting([], "rising scores at which the second, third, … part begins")
    percentiles: list[float] = setting([], "or rising percentiles of the documents that are written")
    weight: str | None = setting(None, "key of the attribute with what a document counts in percentiles, e.g. tokens")
    missing: float | None = setting(None, "score of documents without the attribute; if not set, they are an error")

    @property
    def parts(self) -> int:
        """How many there are."""
        return 1 + len(self.ranges or self.percentiles)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShuffleConfig:
    """A random order of documents."""

    seed: int = setting(0, "another number, another order")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where documents go, and which of their fields do."""

    path: OutputDirectory = setting(REQUIRED, "directory of the output")
    max_size_in_bytes: int = setting(2 * 2**30, "bytes of compressed input per output file")
    format: str | None = setting(
        None, "of the output: jsonl or parquet (default: jsonl; without shuffle, that of each input)"
    )
    discard_fields: list[str] = setting([], "top-level fields to drop")
    min_text_length: int = setting(0, "minimum bytes (UTF-8) of the final text, without white space at its ends")
    keep_dropped: OutputDirectory | None = setting(
        None, "directory for the documents that are dropped, each with the reason"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Which documents are kept."""

    include: list[str] = setting([], "expressions; one has to match")
    exclude: list[str] = setting([], "expressions; none may match")
    syntax: str = setting("jsonpath", "of the expressions: jsonpath or jq")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanReplacementConfig:
    """What replaces spans of the text."""

    span: str = setting(REQUIRED, "expression that selects spans [start, end, score], with offsets in characters")
    min_score: float | None = setting(None, "replace spans with this score or more")
    max_score: float | None = setting(None, "replace spans with less than this score")
    replacement: str = setting("", "{} is replaced by the text of the span, $.a.b by a string of the document")
    syntax: str = setting("jsonpath", "of the expression: jsonpath or jq")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """Documents that are treated the same way."""

    name: str = setting(REQUIRED, "beginning of the names of its output files")
    documents: list[InputPattern] = setting([], "document files or patterns")
    output: OutputConfig = setting(REQUIRED, "the output")
    attributes: list[str] = setting([], "names of directories under attributes/; of equal keys the last one counts")
    filter: FilterConfig | None = setting(None, "which documents are kept")
    span_replacement: list[SpanReplacementConfig] = setting([], "what replaces spans")
    sample: SampleConfig | None = setting(None, "how many of the remaining documents are taken")
    budget: BudgetConfig | None = setting(None, "how much of the rest is taken")
    split: SplitConfig | None = setting(None, "parts by score, each in its own directory part-00, part-01, …")
    compression: Compression = setting(Compression(), "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``dolma mix``."""

    streams: list[StreamConfig] = setting([], "what is mixed; written in a file")
    processes: int = setting(1, "number of threads; the output does not depend on it")
    shuffle: bool = setting(True, "pack inputs into output files; false: one output for each input, with its name")
    shuffle_documents: ShuffleConfig | None = setting(None, "order documents at random within each stream")
    generate_ids: bool = setting(False, GENERATE_IDS)
    skip_bad_rows: int = setting(0, SKIP_BAD_ROWS)
    work_dir: WorkDir = setting(WorkDir(), "")
    dryrun: bool = setting(False, "print the settings and the plan, then stop")

    def check(self) -> Iterator[Problem]:
        """What is wrong between the settings."""
        if not self.streams:
            yield Problem("streams", "is empty; expected at least one stream")
        yield from at_least(1, processes=self.processes)
        yield from at_least(0, skip_bad_rows=self.skip_bad_rows)
        if self.shuffle_documents is not None:
            yield from _check_seed(self.shuffle_documents.seed, "shuffle_documents.seed")
            if not self.shuffle:
                expected = "expected true with shuffle_documents, since documents leave their files"
                yield Problem("shuffle", f"is false; {expected}")
        seen: dict[tuple[str, str], int] = {}
        yield from _check_dropped(self.streams)
        for index, stream in enumerate(self.streams):
            yield from _check_stream(stream, f"streams.{index}")
            other = seen.setdefault((os.path.realpath(stream.output.path), stream.name), index)
            if other != index:
                message = f'is "{stream.name}", as in streams.{other}, which has the same output.path'
                yield Problem(f"streams.{index}.name", f"{message}; expected different names")


def _check_dropped(streams: Sequence[StreamConfig]) -> Iterator[Problem]:
    """Dropped documents need a directory of their own."""
    kept = {os.path.realpath(stream.output.path): index for index, stream in enumerate(streams)}
    seen: dict[tuple[str, str], int] = {}
    for index, stream in enumerate(streams):
        place = stream.output.keep_dropped
        if place is None:
            continue
        key, real = f"streams.{index}.output.keep_dropped", os.path.realpath(place)
        if real in kept:
            message = f'is "{place}", the output.path of streams.{kept[real]}; expected another directory'
            yield Problem(key, message)
        other = seen.setdefault((real, stream.name), index)
        if other != index:
            message = f'is "{place}", as in streams.{other}, which has the same name; expected another directory'
            yield Problem(key, message)


def _check_stream(stream: StreamConfig, key: str) -> Iterator[Problem]:
    if not stream.name or "/" in stream.name or stream.name.startswith("."):
        yield Problem(f"{key}.name", f'is "{stream.name}"; expected the beginning of a file name')
    yield from _check_choice(stream.sample, stream.budget, stream.split, key)
    output = stream.output
    if output.format not in (None, "jsonl", "parquet"):
        yield Problem(f"{key}.output.format", f'is "{output.format}"; expected jsonl or parquet')
    if output.format == "parquet" and stream.compression.output is not None:
        message = f'is "{stream.compression.output}"; expected null with output.format parquet, which packs by itself'
        yield Problem(f"{key}.compression.output", message)
    if output.max_size_in_bytes < 1:
        yield Problem(f"{key}.output.max_size_in_bytes", f"is {output.max_size_in_bytes}; expected at least 1")
    if output.min_text_length < 0:
        yield Problem(f"{key}.output.min_text_length", f"is {output.min_text_length}; expected at least 0")
    for field in {"id", "text"} & set(output.discard_fields):
        yield Problem(f"{key}.output.discard_fields", f'names "{field}", which every document has to have')
    expressions = [(f"{key}.filter.syntax", stream.filter.syntax)] if stream.filter else []
    for index, span in enumerate(stream.span_replacement):
        expressions.append((f"{key}.span_replacement.{index}.syntax", span.syntax))
        if span.min_score is None and span.max_score is None:
            expected = "expected at least one of them"
            yield Problem(f"{key}.span_replacement.{index}", f"has neither min_score nor max_score; {expected}")
    for place, syntax in expressions:
        if syntax not in SYNTAXES:
            yield Problem(place, f'is "{syntax}"; expected jsonpath or jq')
    yield from stream.compression.check(f"{key}.compression")


def _check_choice(
    sample: SampleConfig | None, budget: BudgetConfig | None, split: SplitConfig | None, key: str
) -> Iterator[Problem]:
    """What is wrong in a stream's choice; ``key`` is that of the stream."""
    if sample is not None:
        yield from _check_seed(sample.seed, f"{key}.sample.seed")
        if not (0 <= sample.rate <= 1000 and math.isfinite(sample.rate)):
            yield Problem(f"{key}.sample.rate", f"is {sample.rate}; expected 0 to 1000")
    if budget is not None:
        yield from _check_seed(budget.seed, f"{key}.budget.seed")
        given = [unit for unit in UNITS if getattr(budget, unit) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            yield Problem(f"{key}.budget", f"gives {found} of bytes, documents and tokens; expected one of them")
        for unit in given:
            if getattr(budget, unit) < 0:
                yield Problem(f"{key}.budget.{unit}", f"is {getattr(budget, unit)}; expected at least 0")
        if "tokens" in given and budget.attribute is None:
            hint = "run a tagger that counts tokens, and name its attribute"
            expected = "expected the key of the attribute with a document's number of tokens"
            yield Problem(f"{key}.budget.attribute", f"is missing; {expected}", hint)
        if "tokens" not in given and budget.attribute is not None:
            yield Problem(f"{key}.budget.attribute", f'is "{budget.attribute}"; expected with tokens only')
    if split is not None:
        yield from _check_split(split, f"{key}.split")


def _check_split(split: SplitConfig, key: str) -> Iterator[Problem]:
    if bool(split.ranges) == bool(split.percentiles):
        what = "gives both" if split.ranges else "gives neither"
        yield Problem(key, f"{what} ranges and percentiles; expected one of them")
    for name in ("ranges", "percentiles"):
        values = getattr(split, name)
        if any(low >= high for low, high in pairwise(values)):
            yield Problem(f"{key}.{name}", f"is {values}; expected rising numbers")
    if any(not 0 < percentile < 100 for percentile in split.percentiles):
        yield Problem(f"{key}.percentiles", f"is {split.percentiles}; expected numbers between 0 and 100")
    if split.weight is not None and not split.percentiles:
        yield Problem(f"{key}.weight", f'is "{split.weight}"; expected with percentiles only')
    if split.parts > 100:
        yield Problem(key, f"makes {split.parts} parts; expected at most 100, since all are open at once")


def _check_seed(seed: int, key: str) -> Iterator[Problem]:
    """Seeds have 64 bits."""
    if not 0 <= seed < 2**64:
        yield Problem(key, f"is {seed}; expected 0 to 2^64 - 1")


@with_remote_paths(streams=True)
@raises_dolma_errors
def run(config: Config) -> None:
    """Mixes; see ``docs/guide/dedupe-and-mix.md``."""
    settings = make_settings(config)
    kept = [stream["part_directories"] or [stream["output_directory"]] for stream in settings["streams"]]
    outputs = [Path(directory) for directories in kept for directory in directories]
    if config.dryrun:
        streams = zip(kept, settings["streams"], strict=True)
        shards = [f"# {d}/{s['name']}" for directories, t in streams for d in directories for s in t["shards"]]
        sys.stdout.write("\n".join([to_yaml(config).rstrip(), *shards]) + "\n")
        return
    directories = sorted(set(outputs))
    reporter = Reporter("mix", directories)
    start = time.monotonic()
    for warning in _native.mix_check(json.dumps(settings), store=current()):
        log.warning("mix  %s", warning)
    with error_log(outputs[0]):
        plan = Plan(documents_of(settings, config), config.processes, config.generate_ids, config.skip_bad_rows)
        plan.add("mix", settings)
        summary = plan.run(reporter)["mix"]
    save_config(config, directories)
    report(outputs[0], summary, time.monotonic() - start, reporter)


def documents_of(settings: Mapping[str, Any], config: Config) -> Iterator[Document]:
    """The document files of all streams, in order."""
    for stream, given in zip(settings["streams"], config.streams, strict=True):
        for shard in stream["shards"]:
            for source in shard["inputs"]:
                yield Document(source["path"], named(source["path"]), given.compression.input)


def report(directory: Path, summary: dict[str, Any], seconds: float, reporter: Reporter) -> None:
    """Says what was done, and lists skipped rows in ``directory``."""
    if summary["replaced_files"]:
        log.warning("mix  removed %d files of an earlier run with other settings", summary["replaced_files"])
    rows = skipped_rows(row for stream in summary["streams"] for row in stream.pop("skipped", []))
    save_skipped("mix", directory, list(dict.fromkeys(rows)))
    for line in _funnel_lines(summary["streams"]):
        log.info(line)
    for line in _warnings(summary["streams"]):
        log.warning("mix  %s", line)
    keys = ("documents_in", "documents_out", "bytes_in", "bytes_out")
    counts = {key: sum(stream[key] for stream in summary["streams"]) for key in keys}
    counts |= {"rows_skipped": len(rows)} if rows else {}
    reporter.finish(seconds, counts, _text(summary["already_done"], counts))


def mixer(config: Mapping[str, Any]) -> None:
    """Runs ``dolma mix`` with settings as a mapping, as in dolma 1.x: the keys are those of the command.

    Raises:
        ConfigError: a setting is wrong, or an attribute that a rule names is in no loaded set.
        FormatError: a document or attribute row is wrong, or they do not belong together.
    """
    run(load(Config, config))


def _text(already_done: bool, counts: Mapping[str, int]) -> str:
    if already_done:
        return "nothing to do: all documents exist"
    documents = f"{count_text(counts['documents_out'])} of {count_text(counts['documents_in'])} documents kept"
    return f"{documents}, {bytes_text(counts['bytes_out'])} of {bytes_text(counts['bytes_in'])} of text"


def make_settings(
    config: Config, documents: Sequence[Source] | None = None, made: Collection[str] = ()
) -> dict[str, Any]:
    """Settings as the core takes them.

    In a pipeline, ``documents`` come from the stage before, and ``made`` has the attribute files of other stages. A
    stream selects from the documents by its patterns; without patterns it takes all.

    Raises:
        ConfigError: documents or attributes are missing; it lists all of them.
    """
    problems: list[Problem] = []
    streams = []
    for index, stream in enumerate(config.streams):
        try:
            key = f"streams.{index}"
            found = expand(stream.documents, f"{key}.documents") if documents is None else documents
            if documents is not None and stream.documents:
                found = select(documents, stream.documents, f"{key}.documents")
            streams.append(_stream(stream, found, key, config, made))
        except ConfigError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigError(problems)
    return {"streams": streams}


def _stream(
    stream: StreamConfig, sources: Sequence[Source], key: str, config: Config, made: Collection[str]
) -> dict[str, Any]:
    problems = list(_problems_of_sources(sources, f"{key}.documents"))
    inputs, directories = [], dict[str, None]()
    for source in sources:
        found, more = _attributes(source, stream, key, made)
        problems.extend(more)
        directories.update(dict.fromkeys(str(directory) for directory, _ in found))
        inputs.append({"path": source.path, "attributes": [str(path) for _, path in found]})
    if problems:
        # a missing set is missing for every document; once is enough
        raise ConfigError(dict.fromkeys(problems))
    extension = "gz" if stream.compression.output is None else stream.compression.output
    suffix = ".parquet" if stream.output.format == "parquet" else f".jsonl.{extension}" if extension else ".jsonl"
    if config.shuffle:
        shards = list(_packed(inputs, stream.name, suffix, stream.output.max_size_in_bytes))
        below = ""
    else:
        shards = [
            {"name": _own_name(source, stream.output.format, stream.compression.output), "inputs": [given]}
            for source, given in zip(sources, inputs, strict=True)
        ]
        _check_distinct(shards, key)
        below = "documents"
    parts = [f"part-{part:02d}" for part in range(stream.split.parts)] if stream.split is not None else []
    keeps_all = stream.filter is None or not (stream.filter.include or stream.filter.exclude)
    return {
        "name": stream.name,
        "shards": shards,
        "attribute_directories": list(directories),
        "output_directory": os.path.join(stream.output.path, below).rstrip("/"),
        "part_directories": [os.path.join(stream.output.path, part, below).rstrip("/") for part in parts],
        "dropped_directory": stream.output.keep_dropped,
        "compression": stream.compression.input,
        "rules": {
            "filter": None if keeps_all or stream.filter is None else dataclasses.asdict(stream.filter),
            "span_replacement": [dataclasses.asdict(span) for span in stream.span_replacement],
            "discard_fields": sorted(set(stream.output.discard_fields)),
            "min_text_length": stream.output.min_text_length,
            **_recorded_choice(stream.sample, stream.budget, stream.split, config.shuffle_documents),
        },
    }


def _problems_of_sources(sources: Iterable[Source], key: str) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for source in sources:
        real = os.path.realpath(source.path)
        if real in seen:
            yield Problem(key, f'lists one file twice: "{seen[real]}" and "{source.name}"')
        seen[real] = source.name


def _attributes(
    source: Source, stream: StreamConfig, key: str, made: Collection[str]
) -> tuple[list[tuple[Path, Path]], list[Problem]]:
    """Directory and file of each set of attributes of a document file, and what is missing."""
    found, problems = [], []
    for position, name in enumerate(stream.attributes):
        place = f"{key}.attributes.{position}"
        try:
            _, directory, relative = attributes_root(source.path, name)
        except ValueError as error:
            hint = "attributes are next to a directory `documents`"
            problems.append(Problem(place, f'is "{name}", but "{source.name}" {error}', hint))
            continue
        directories = _directories(directory, relative, made)
        if not directories:
            parent = directory.parent
            known = [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
            hint = nearest(name, known) or "give the name of a directory below `attributes`"
            problems.append(Problem(place, f'is "{name}", but {directory} was not found', hint))
        for one in directories:
            file = one / relative
            if str(file) in made or file.is_file():
                found.append((one, file))
            else:
                hint = "run the command that makes these attributes on this document file too"
                problems.append(Problem(place, f'is "{name}", but {file} was not found', hint))
    return found, problems


def _directories(directory: Path, relative: str, made: Collection[str]) -> list[Path]:
    """The directory, or those that match it where its name is a pattern; those too that a stage makes."""
    if any(character in directory.name for character in "*?["):
        written = {found for found in glob.glob(str(directory)) if os.path.isdir(found)}
        below = {path.removesuffix(f"/{relative}") for path in made if path.endswith(f"/{relative}")}
        return [Path(found) for found in sorted({*written, *fnmatch.filter(below, str(directory))})]
    return [directory] if str(directory / relative) in made or directory.is_dir() else []


def _packed(
    inputs: Sequence[Mapping[str, Any]], name: str, suffix: str, max_size_bytes: int
) -> Iterator[dict[str, Any]]:
    """Inputs in order, a new shard when the next input would make the compressed size exceed the limit."""
    shards: list[list[Mapping[str, Any]]] = [[]]
    size_bytes = 0
    for given in inputs:
        added = os.path.getsize(given["path"])
        if shards[-1] and size_bytes + added > max_size_bytes:
            shards.append([])
            size_bytes = 0
        shards[-1].append(given)
        size_bytes += added
    for index, shard in enumerate(shards):
        yield {"name": f"{name}-{index:04d}{suffix}", "inputs": shard}


def _own_name(source: Source, format: str | None, packing: str | None) -> str:
    """The document file's path below the last directory ``documents``, with the extension of what is written."""
    _, separator, relative = source.path.rpartition("/documents/")
    name = relative if separator else os.path.basename(source.path)
    is_parquet = name.endswith(".parquet")
    if format is None and packing is not None:
        format = "jsonl"
    if format is None or (is_parquet and format == "parquet"):
        return name
    stem, _, last = name.rpartition(".")
    bare = stem if last in (*PACKINGS, "parquet") else name
    if format == "parquet":
        return f"{bare.removesuffix('.jsonl').removesuffix('.json')}.parquet"
    if is_parquet:
        bare, packing = f"{bare}.jsonl", "gz" if packing is None else packing
    elif packing is None:
        return name
    return f"{bare}.{packing}" if packing else bare


def _check_distinct(shards: Sequence[Mapping[str, Any]], key: str) -> None:
    seen: dict[str, str] = {}
    problems = []
    for shard in shards:
        path = shard["inputs"][0]["path"]
        if shard["name"] in seen:
            message = f'has "{seen[shard["name"]]}" and "{path}", which would both be written to {shard["name"]}'
            problems.append(Problem(f"{key}.documents", message, "set shuffle, or use two streams"))
        seen[shard["name"]] = path
    if problems:
        raise ConfigError(problems)


def _recorded_choice(
    sample: SampleConfig | None, budget: BudgetConfig | None, split: SplitConfig | None, shuffle: ShuffleConfig | None
) -> dict[str, Any]:
    """As the core takes it; without what is not set, so that the manifests of earlier releases stay valid."""
    found: dict[str, Any] = {}
    if sample is not None:
        found["sample"] = dataclasses.asdict(sample)
    if budget is not None:
        [unit] = [unit for unit in UNITS if getattr(budget, unit) is not None]
        limit = getattr(budget, unit)
        found["budget"] = {"unit": unit, "limit": limit, "attribute": budget.attribute, "seed": budget.seed}
    if split is not None:
        found["split"] = dataclasses.asdict(split)
    if shuffle is not None:
        found["shuffle_documents"] = dataclasses.asdict(shuffle)
    return found


def _funnel_lines(streams: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The funnel as a table: how many documents each rule drops by itself, and how many in its turn."""
    for stream in streams:
        total = max(1, stream["documents_in"])
        yield f"{stream['name']}  {stream['documents_in']:,} documents, {bytes_text(stream['bytes_in'])} of text"
        if stream["rules"]:
            yield f"  {'alone':>10} {'in order':>10} {'left':>10}  rule"
        left = stream["documents_in"]
        for rule in stream["rules"]:
            left -= rule["documents_in_order"]
            text = rule["rule"] if len(rule["rule"]) <= 90 else rule["rule"][:89] + "…"
            counts = f"{rule['documents_alone']:>10,} {rule['documents_in_order']:>10,} {left:>10,}"
            yield f"  {counts}  {rule['kind']}: {text}"
        for span in stream["span_replacements"]:
            yield f"  {span['spans']:,} spans ({bytes_text(span['bytes'])}) replaced  {span['span']}"
        for number, part in enumerate(stream.get("parts", [])):
            low, high = (f"{edge:g}" if edge is not None else "" for edge in (part["from"], part["to"]))
            counts = f"{part['documents_out']:,} documents, {bytes_text(part['bytes_out'])} of text"
            yield f"  part-{number:02d}  {counts}  score {low}…{high}"
        share = 100 * stream["documents_out"] / total
        yield f"  kept {stream['documents_out']:,} ({share:.1f}%), {bytes_text(stream['bytes_out'])} of text"


def _warnings(streams: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Warnings about rules that read missing fields, which are more likely a mistake than intended."""
    for stream in streams:
        if not stream["documents_in"]:
            continue
        for rule in stream["rules"]:
            for read in rule.get("reads", []):
                dropped, without = read["documents_dropped"], f"have no {read['field']}"
                start = f"{stream['name']}: {rule['kind']} `{rule['rule']}`"
                why = "jq reads a missing field as null, which is less than any number or string"
                if dropped:
                    counts = f"{dropped:,} of the {rule['documents_alone']:,} documents that it drops {without}"
                    yield f"{start}: {counts} ({why}); guard it: `.{read['field']} != null and …`"
                elif not read["is_found"]:
                    yield f"{start}: {read['field']} is missing or null in every document"
        for span in stream["span_replacements"]:
            nested = not re.fullmatch(r"\s*\$@?\.attributes\.[A-Za-z0-9_]+\s*", span["span"])
            if nested and not span["spans"] and stream["documents_out"]:
                yield f"{stream['name']}: `{span['span']}` selected no span in any written document"


if __name__ == "__main__":  # `python -m dolma.commands.mix` is `dolma mix`
    from dolma.__main__ import main

    main(["mix", *sys.argv[1:]])

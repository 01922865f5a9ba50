"""``dolma mix``: filters documents by their attributes, replaces spans, writes new documents."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dolma import _native
from dolma.config import REQUIRED, load, setting, to_yaml
from dolma.config.shared import (
    GENERATE_IDS,
    SKIP_BAD_ROWS,
    Compression,
    WorkDir,
    at_least,
    error_log,
    save_config,
    save_skipped,
)
from dolma.core.progress import Reporter, bytes_text, count_text
from dolma.errors import Problem, translated
from dolma.files.places import remotely
from dolma.mixing.choice import BudgetConfig, SampleConfig, ShuffleConfig, SplitConfig, check_choice, check_seed
from dolma.mixing.plan import funnel_lines, plan, warnings_of

__all__ = ["Config", "mixer", "run"]

log = logging.getLogger(__name__)

SYNTAXES = ("jsonpath", "jq")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where documents go, and what is left out of them."""

    path: str = setting(REQUIRED, "directory of the output")
    max_size_in_bytes: int = setting(2 * 2**30, "bytes of compressed input per output file")
    format: str | None = setting(
        None, "of the output: jsonl or parquet (default: jsonl; without shuffle, that of each input)"
    )
    discard_fields: list[str] = setting([], "top-level fields that are left out")
    min_text_length: int = setting(0, "minimum bytes (UTF-8) of the final text, without white space at its ends")
    keep_dropped: str | None = setting(None, "directory for the documents that are dropped, each with the reason")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Which documents are kept."""

    include: list[str] = setting([], "expressions of which one has to match")
    exclude: list[str] = setting([], "expressions of which none may match")
    syntax: str = setting("jsonpath", "of the expressions: jsonpath or jq")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanReplacementConfig:
    """What replaces spans of the text."""

    span: str = setting(REQUIRED, "expression that selects spans [start, end, score], with offsets in characters")
    min_score: float | None = setting(None, "replace spans with this score or more")
    max_score: float | None = setting(None, "replace spans with less than this score")
    replacement: str = setting("", "{} stands for the text of the span; $.a.b for a string of the document")
    syntax: str = setting("jsonpath", "of the expression: jsonpath or jq")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """Documents that are treated alike."""

    name: str = setting(REQUIRED, "beginning of the names of its output files")
    documents: list[str] = setting([], "document files or patterns")
    output: OutputConfig = setting(REQUIRED, "the output")
    attributes: list[str] = setting([], "names of directories under attributes/; of equal keys the last one counts")
    filter: FilterConfig | None = setting(None, "which documents are kept")
    span_replacement: list[SpanReplacementConfig] = setting([], "what replaces spans")
    sample: SampleConfig | None = setting(None, "how many of the documents that are left are taken")
    budget: BudgetConfig | None = setting(None, "how much of what is left then")
    split: SplitConfig | None = setting(None, "parts by score, each in a directory part-00, part-01, … of its own")
    compression: Compression = setting(Compression(), "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``dolma mix``."""

    streams: list[StreamConfig] = setting([], "what is mixed; written in a file")
    processes: int = setting(1, "number of threads; the output does not depend on it")
    shuffle: bool = setting(True, "pack inputs into output files; no: one output for each input, with its name")
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
            yield from check_seed(self.shuffle_documents.seed, "shuffle_documents.seed")
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
    """What is dropped may not lie where other documents do."""
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
    yield from check_choice(stream.sample, stream.budget, stream.split, key)
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


@remotely()
def run(config: Config) -> None:
    """Mixes; see ``docs/guide/dedupe-and-mix.md``."""
    settings = plan(config)
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
    for warning in _check_native(settings):
        log.warning("mix  %s", warning)
    with error_log(outputs[0]):
        summary: dict[str, Any] = json.loads(_native.mix(json.dumps(settings), reporter))
    save_config(config, directories)
    if summary["replaced_files"]:
        log.warning("mix  removed %d files of an earlier run with other settings", summary["replaced_files"])
    rows = [row for stream in summary["streams"] for row in stream.pop("skipped", [])]
    save_skipped("mix", outputs[0], [(row["file"], row["line"], row["code"], row["message"]) for row in rows])
    for line in funnel_lines(summary["streams"]):
        log.info(line)
    for line in warnings_of(summary["streams"]):
        log.warning("mix  %s", line)
    counts = _totals(summary["streams"])
    counts |= {"rows_skipped": len(rows)} if rows else {}
    reporter.finish(time.monotonic() - start, counts, _text(summary["already_done"], counts))


def mixer(config: Mapping[str, Any]) -> None:
    """Runs ``dolma mix`` with settings as a mapping, as in dolma 1.x: the keys are those of the command.

    Raises:
        ConfigError: a setting is wrong, or an attribute that a rule names is in no loaded set.
        FormatError: a document or attribute row is wrong, or they do not belong together.
    """
    run(load(Config, config))


@translated
def _check_native(settings: Mapping[str, Any]) -> list[str]:
    return _native.mix_check(json.dumps(settings))


def _totals(streams: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    keys = ("documents_in", "documents_out", "bytes_in", "bytes_out")
    return {key: sum(stream[key] for stream in streams) for key in keys}


def _text(already_done: bool, counts: Mapping[str, int]) -> str:
    if already_done:
        return "nothing to do: all documents are there"
    documents = f"{count_text(counts['documents_out'])} of {count_text(counts['documents_in'])} documents kept"
    return f"{documents}, {bytes_text(counts['bytes_out'])} of {bytes_text(counts['bytes_in'])} of text"


if __name__ == "__main__":  # `python -m dolma.commands.mix` is `dolma mix`
    from dolma.__main__ import main

    main(["mix", *sys.argv[1:]])

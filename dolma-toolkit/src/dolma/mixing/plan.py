"""From the settings of ``dolma mix`` to what the core is told: files found, attributes beside them, shards packed."""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dolma.core.progress import bytes_text
from dolma.errors import ConfigError, Problem, nearest
from dolma.files.paths import PACKINGS, Source, attributes_root, expand
from dolma.mixing.choice import recorded_choice

if TYPE_CHECKING:
    from dolma.commands.mix import Config, StreamConfig

__all__ = ["funnel_lines", "plan", "warnings_of"]


def plan(config: Config) -> dict[str, Any]:
    """Settings as the core takes them.

    Raises:
        ConfigError: documents or attributes are missing; it lists all of them.
    """
    problems: list[Problem] = []
    streams = []
    for index, stream in enumerate(config.streams):
        try:
            streams.append(_stream(stream, f"streams.{index}", config))
        except ConfigError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigError(problems)
    rows = {"generate_ids": config.generate_ids, "skip_bad_rows": config.skip_bad_rows}
    return {"streams": streams, "threads": config.processes, "rows": rows}


def _stream(stream: StreamConfig, key: str, config: Config) -> dict[str, Any]:
    sources = expand(stream.documents, f"{key}.documents")
    problems = list(_problems_of_sources(sources, f"{key}.documents"))
    inputs, directories = [], dict[str, None]()
    for source in sources:
        found, more = _attributes(source, stream, key)
        problems.extend(more)
        directories.update(dict.fromkeys(str(directory) for directory, _ in found))
        inputs.append({"path": source.path, "attributes": [str(path) for _, path in found]})
    if problems:
        # a missing set is missing beside every document; once is enough
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
            **recorded_choice(stream.sample, stream.budget, stream.split, config.shuffle_documents),
        },
    }


def _problems_of_sources(sources: Iterable[Source], key: str) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for source in sources:
        real = os.path.realpath(source.path)
        if real in seen:
            yield Problem(key, f'lists one file twice: "{seen[real]}" and "{source.name}"')
        seen[real] = source.name


def _attributes(source: Source, stream: StreamConfig, key: str) -> tuple[list[tuple[Path, Path]], list[Problem]]:
    """Directory and file of each set of attributes beside a document file, and what is missing."""
    found, problems = [], []
    for position, name in enumerate(stream.attributes):
        place = f"{key}.attributes.{position}"
        try:
            _, directory, relative = attributes_root(source.path, name)
        except ValueError as error:
            hint = "attributes stand beside a directory `documents`"
            problems.append(Problem(place, f'is "{name}", but "{source.name}" {error}', hint))
            continue
        directories = _directories(directory)
        if not directories:
            beside = directory.parent
            known = [entry.name for entry in beside.iterdir() if entry.is_dir()] if beside.is_dir() else []
            hint = nearest(name, known) or "give the name of a directory below `attributes`"
            problems.append(Problem(place, f'is "{name}", but {directory} was not found', hint))
        for one in directories:
            file = one / relative
            if file.is_file():
                found.append((one, file))
            else:
                hint = "run the command that makes these attributes on this document file too"
                problems.append(Problem(place, f'is "{name}", but {file} was not found', hint))
    return found, problems


def _directories(directory: Path) -> list[Path]:
    """The directory, or those that match it where its name is a pattern."""
    if any(character in directory.name for character in "*?["):
        return [Path(found) for found in sorted(glob.glob(str(directory))) if os.path.isdir(found)]
    return [directory] if directory.is_dir() else []


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


def funnel_lines(streams: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The funnel as a table, one line at a time: what each rule drops by itself and in its turn."""
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


def warnings_of(streams: Sequence[Mapping[str, Any]]) -> Iterator[str]:
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
                    yield f"{start}: {counts} ({why}); guard it: `{_guard(read['field'])}`"
                elif not read["is_found"]:
                    yield f"{start}: {read['field']} is missing or null in every document"
        for span in stream["span_replacements"]:
            nested = not re.fullmatch(r"\s*\$@?\.attributes\.[A-Za-z0-9_]+\s*", span["span"])
            if nested and not span["spans"] and stream["documents_out"]:
                yield f"{stream['name']}: `{span['span']}` selected no span in any written document"


def _guard(field: str) -> str:
    return f".{field} != null and …"

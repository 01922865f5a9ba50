"""``dolma dedupe``: marks documents or paragraphs that occurred earlier in the input."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from dolma.config import GENERATE_IDS, REQUIRED, SKIP_BAD_ROWS, Compression, WorkDir, at_least, load, setting, to_yaml
from dolma.errors import ConfigError, Problem
from dolma.files.paths import Source, attributes_root, expand, extension, is_remote, named
from dolma.formats.files import attributes_name
from dolma.lsh import Banding, banding
from dolma.places import InputPattern, LocalPath, OutputName, UpdatedFile
from dolma.plan import Document, Plan, skipped_rows
from dolma.records import Reporter, bytes_text, count_text, error_log, save_config, save_skipped
from dolma.staging import with_remote_paths

__all__ = ["Config", "attribute_keys", "deduper", "make_settings", "report", "run", "what_is_marked", "written"]

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NgramConfig:
    """Comparison of n-grams of words instead of whole paragraphs."""

    ngram_length: int = setting(0, "words in each n-gram; 0 compares whole paragraphs")
    stride: int = setting(0, "words from the start of one n-gram to the start of the next; 0 is 1")
    overlap_threshold: float = setting(1.0, "share of n-grams seen earlier from which a paragraph is marked")
    skip_short_paragraphs: bool = setting(False, "ignore paragraphs with fewer than two n-grams")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DocumentsConfig:
    """Documents as a whole."""

    attribute_name: OutputName = setting(REQUIRED, "key of the attribute")
    key: str = setting(REQUIRED, "JSONPath of the string that is compared, e.g. $.text or $.metadata.url")
    normalize: str | None = setting(None, "url: spellings of one web address count as equal")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParagraphsConfig:
    """Paragraphs of the text."""

    attribute_name: OutputName = setting(REQUIRED, "key of the attribute")
    by_ngram: NgramConfig | None = setting(None, "compare n-grams instead of whole paragraphs")
    paragraph_separator: str = setting(
        "\n", "text between paragraphs; \\n, \\r, \\t and \\\\ are escapes, as in a settings file"
    )


KEEP = ("first", "longest", "highest")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinhashConfig:
    """Documents that share many n-grams of words (MinHash-LSH)."""

    attribute_name: OutputName = setting(REQUIRED, "key of the attribute")
    ngram_length: int = setting(5, "words in each n-gram, in lower case and without punctuation")
    similarity: float = setting(0.85, "Jaccard similarity of n-grams from which documents are found")
    bands: int = setting(0, "keys of a document; 0: by similarity")
    rows: int = setting(0, "values that make a key; 0: by similarity")
    keep: str = setting("first", "which document of a cluster stays: first, longest or highest (score)")
    score: str | None = setting(None, "JSONPath of the score, in the document with its attributes")
    attributes: list[str] = setting([], "names of directories under attributes/ that the score may be in")

    @property
    def banding(self) -> Banding:
        """Bands and rows, given or derived."""
        return Banding(self.bands, self.rows) if self.bands else banding(self.similarity)

    def check(self, key: str) -> Iterator[Problem]:
        """What is wrong between the settings."""
        if self.ngram_length < 1:
            yield Problem(f"{key}.ngram_length", f"is {self.ngram_length}; expected at least 1")
        if not 0 < self.similarity < 1:
            yield Problem(f"{key}.similarity", f"is {self.similarity}; expected more than 0 and less than 1")
        if (self.bands > 0) != (self.rows > 0) or min(self.bands, self.rows) < 0:
            found = f"are {self.bands} and {self.rows}"
            yield Problem(f"{key}.bands and {key}.rows", f"{found}; expected two positive numbers, or none")
        if self.bands * self.rows > MOST_VALUES:
            yield Problem(f"{key}.bands", f"times rows is {self.bands * self.rows}; expected at most {MOST_VALUES}")
        if self.keep not in KEEP:
            yield Problem(f"{key}.keep", f'is "{self.keep}"; expected first, longest or highest')
        if (self.keep == "highest") != (self.score is not None):
            yield Problem(f"{key}.score", "decides if keep is highest, and only then; expected both or neither")
        if self.attributes and self.score is None:
            yield Problem(f"{key}.attributes", "are read for the score; expected a score")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RepeatsConfig:
    """Lines or sentences that stand in many documents, by count."""

    attribute_name: OutputName = setting(REQUIRED, "key of the attribute")
    piece: str = setting("line", "what a text is divided into: line or sentence")
    window: int = setting(1, "how many pieces in a row are compared together (C4: 3 sentences)")
    least: int = setting(2, "how often they have to be found to be marked")
    keep_first: bool = setting(True, "leave the first alone")

    def check(self, key: str) -> Iterator[Problem]:
        """What is wrong between the settings."""
        if self.piece not in PIECES:
            yield Problem(f"{key}.piece", f'is "{self.piece}"; expected line or sentence')
        for name, least in (("window", 1), ("least", 2)):
            if getattr(self, name) < least:
                yield Problem(f"{key}.{name}", f"is {getattr(self, name)}; expected at least {least}")


PIECES = ("line", "sentence")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubstringConfig:
    """Stretches of text that stand somewhere earlier, byte for byte."""

    attribute_name: OutputName = setting(REQUIRED, "key of the attribute")
    length_bytes: int = setting(200, "least length, in bytes of UTF-8")

    def check(self, key: str) -> Iterator[Problem]:
        """What is wrong between the settings."""
        if self.length_bytes < LEAST_LENGTH_BYTES:
            yield Problem(f"{key}.length_bytes", f"is {self.length_bytes}; expected at least {LEAST_LENGTH_BYTES}")


LEAST_LENGTH_BYTES = 16
"""Shorter stretches are in every text, and the work grows as their number."""

MOST_VALUES = 4096
"""Of a sketch: 32 kB for each document on the disk."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DedupeConfig:
    """What is compared, and what is ignored."""

    name: str | None = setting(None, "name of the attribute directory; the attribute's name if not given")
    documents: DocumentsConfig | None = setting(None, "compare documents")
    paragraphs: ParagraphsConfig | None = setting(None, "compare paragraphs")
    minhash: MinhashConfig | None = setting(None, "compare n-grams of documents, to find near-duplicates")
    repeats: RepeatsConfig | None = setting(None, "count lines or sentences")
    substring: SubstringConfig | None = setting(None, "compare all stretches of text of a length")
    skip_empty: bool = setting(False, "ignore what is empty or white space")
    min_length: int = setting(0, "ignore what is shorter (bytes of a document's key, characters of a paragraph)")
    min_words: int = setting(0, "ignore what has fewer words (Unicode word boundaries)")
    num_partitions: int = setting(1, "number of shares into which the keys are divided, each decided by its own run")
    partition_index: int = setting(0, "the share that this run decides")
    file_partition: bool = setting(False, "divide the files instead of the keys")
    document_dir: str = setting("documents", "directory in the paths that `attributes/<name>` replaces")

    @property
    def unit(self) -> tuple[str, DocumentsConfig | ParagraphsConfig | IndexedConfig]:
        """What is compared, and its name."""
        found = {name: getattr(self, name) for name in UNITS}
        return next((name, unit) for name, unit in found.items() if unit is not None)  # `check` saw to it

    @property
    def needs_index(self) -> bool:
        """Whether all documents have to be read before the first is marked."""
        return isinstance(self.unit[1], IndexedConfig)


IndexedConfig = MinhashConfig | RepeatsConfig | SubstringConfig
UNITS = ("documents", "paragraphs", "minhash", "repeats", "substring")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BloomFilterConfig:
    """The filter, by its size or by the number of its keys."""

    file: UpdatedFile = setting(REQUIRED, "filter file; created if missing, else extended")
    read_only: bool = setting(False, "compare with the filter without changing it")
    size_in_bytes: int = setting(0, "size of a new filter")
    estimated_doc_count: int = setting(0, "documents or paragraphs that a new filter is for")
    desired_false_positive_rate: float = setting(0.0, "rate at which a new filter may then be wrong")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``dolma dedupe``."""

    documents: list[InputPattern] = setting(
        [], "document files or patterns, in the order in which the first of equals is kept"
    )
    dedupe: DedupeConfig = setting(REQUIRED, "what is compared")
    bloom_filter: BloomFilterConfig | None = setting(None, "the filter, for documents and paragraphs")
    index: LocalPath | None = setting(
        None, "directory of the index, for minhash, repeats and substring; created if missing, else extended"
    )
    processes: int = setting(1, "number of threads; the output does not depend on it")
    compression: Compression = setting(Compression(), "")
    work_dir: WorkDir = setting(WorkDir(), "")
    generate_ids: bool = setting(False, GENERATE_IDS)
    skip_bad_rows: int = setting(0, SKIP_BAD_ROWS)
    is_s3_volume: bool = setting(False, "only false: output files are renamed when they are whole")
    dryrun: bool = setting(False, "print the settings and the plan, then stop")

    def check(self) -> Iterator[Problem]:
        """What is wrong between the settings."""
        yield from _check_unit(self.dedupe)
        yield from self._check_memory()
        yield from at_least(1, processes=self.processes)
        yield from at_least(0, skip_bad_rows=self.skip_bad_rows)
        if self.is_s3_volume:
            hint = "write to a local disk and copy the attributes"
            yield Problem("is_s3_volume", "is true; expected false, since such volumes cannot rename a file", hint)
        yield from self.compression.check()

    def _check_memory(self) -> Iterator[Problem]:
        """Filter or index, whichever the unit needs."""
        if any(getattr(self.dedupe, name) for name in UNITS):
            needed, other = ("index", "bloom_filter") if self.dedupe.needs_index else ("bloom_filter", "index")
            if getattr(self, needed) is None:
                yield Problem(needed, "is missing; expected " + ("a directory" if needed == "index" else "a filter"))
            if getattr(self, other) is not None:
                yield Problem(other, f"is given; expected {needed} alone, which is what the comparison needs")
        if self.bloom_filter is not None:
            yield from _check_filter(self.bloom_filter)


def _check_unit(config: DedupeConfig) -> Iterator[Problem]:
    given = [f"dedupe.{name}" for name in UNITS if getattr(config, name) is not None]
    if len(given) != 1:
        what = "are both given" if given else "is empty"
        yield Problem(" and ".join(given[:2]) or "dedupe", f"{what}; expected one of {', '.join(UNITS)}")
    elif config.needs_index:
        name, unit = config.unit
        assert isinstance(unit, IndexedConfig)  # what `needs_index` says
        yield from unit.check(f"dedupe.{name}")
        for key in ("num_partitions", "file_partition", "skip_empty"):
            if getattr(config, key) != getattr(DedupeConfig(), key):
                yield Problem(f"dedupe.{key}", "has no use for an index; expected it not to be set")
    for key, least in (("min_length", 0), ("min_words", 0), ("num_partitions", 1), ("partition_index", 0)):
        value = getattr(config, key)
        if value < least:
            yield Problem(f"dedupe.{key}", f"is {value}; expected at least {least}")
    if config.partition_index >= config.num_partitions:
        expected = f"expected less than num_partitions, {config.num_partitions}"
        yield Problem("dedupe.partition_index", f"is {config.partition_index}; {expected}")
    if config.documents is not None and config.documents.normalize not in (None, "url"):
        yield Problem("dedupe.documents.normalize", f'is "{config.documents.normalize}"; expected url, or nothing')
    for key in ("name", "document_dir"):
        value = getattr(config, key)
        if value is not None and (not value or "/" in value or value in (".", "..")):
            yield Problem(f"dedupe.{key}", f'is "{value}"; expected the name of one directory')
    if config.paragraphs is None:
        return
    if not config.paragraphs.paragraph_separator:  # as given: `_unescaped` never makes it empty
        yield Problem("dedupe.paragraphs.paragraph_separator", "is empty; expected at least one character")
    ngram = config.paragraphs.by_ngram
    if ngram is not None:
        prefix = "dedupe.paragraphs.by_ngram"
        for key in ("ngram_length", "stride"):
            if getattr(ngram, key) < 0:
                yield Problem(f"{prefix}.{key}", f"is {getattr(ngram, key)}; expected at least 0")
        if not 0 <= ngram.overlap_threshold <= 1:
            yield Problem(f"{prefix}.overlap_threshold", f"is {ngram.overlap_threshold}; expected 0 to 1")


def _check_filter(config: BloomFilterConfig) -> Iterator[Problem]:
    for key in ("size_in_bytes", "estimated_doc_count"):
        if getattr(config, key) < 0:
            yield Problem(f"bloom_filter.{key}", f"is {getattr(config, key)}; expected at least 0")
    if not 0 <= config.desired_false_positive_rate < 1:
        yield Problem(
            "bloom_filter.desired_false_positive_rate",
            f"is {config.desired_false_positive_rate}; expected more than 0 and less than 1",
        )
    sized = config.size_in_bytes > 0 or (config.estimated_doc_count > 0 and config.desired_false_positive_rate > 0)
    # a remote one is looked for when its settings are sound
    if not sized and not is_remote(config.file) and not os.path.exists(config.file) and not config.read_only:
        yield Problem(
            "bloom_filter",
            "has no size; expected size_in_bytes, or estimated_doc_count and desired_false_positive_rate",
        )


def written(config: Config, document: str) -> Iterator[str]:
    """The directory of attributes next to a document file."""
    yield str(attributes_root(document, _set_name(config.dedupe), config.dedupe.document_dir)[1])


def _set_name(dedupe: DedupeConfig) -> str:
    name = dedupe.name or dedupe.unit[1].attribute_name
    return f"{name}_{dedupe.partition_index}" if dedupe.num_partitions > 1 else name


@with_remote_paths(written, streams=True)
def run(config: Config) -> None:
    """Marks duplicates; see ``docs/guide/dedupe-and-mix.md``."""
    settings = make_settings(config, expand(config.documents))
    if config.dryrun:
        outputs = [f"# {file['attributes_directory']}/{file['relative']}" for file in settings["files"]]
        sys.stdout.write("\n".join([to_yaml(config).rstrip(), *_curve(config), *outputs]) + "\n")
        return
    for line in _curve(config):
        log.info("dedupe  %s", line.removeprefix("# "))
    directories = sorted({Path(file["attributes_directory"]) for file in settings["files"]})
    reporter = Reporter("dedupe", directories)
    start = time.monotonic()
    # a partition of the files may have none
    with error_log(directories[0]) if directories else nullcontext():
        documents = [
            Document(file["path"], named(file["path"]), config.compression.input) for file in settings["files"]
        ]
        plan = Plan(documents, config.processes, config.generate_ids, config.skip_bad_rows)
        plan.add("dedupe", {"near" if config.dedupe.needs_index else "filter": settings})
        [summary] = plan.run(reporter)["dedupe"]
    save_config(config, directories)
    report(config, directories, summary, time.monotonic() - start, reporter)


def _curve(config: Config) -> list[str]:
    """What may be expected of a comparison by chance."""
    minhash = config.dedupe.minhash
    if minhash is None:
        return []
    found = minhash.banding
    return [
        f"# minhash: {found.bands} bands of {found.rows} rows; probability to be found by similarity:",
        f"# {found.curve()}",
    ]


def report(
    config: Config, directories: Sequence[Path], summary: dict[str, Any], seconds: float, reporter: Reporter
) -> None:
    """Says what was done."""
    skipped = skipped_rows(summary.pop("skipped"))
    if directories and not summary["already_done"]:
        save_skipped("dedupe", directories[0], skipped)
        summary |= {"rows_skipped": len(skipped)} if skipped else {}
    _warn(summary, config)
    reporter.finish(seconds, summary, _text(summary, config))


def deduper(config: Mapping[str, Any]) -> None:
    """Runs ``dolma dedupe`` with settings as a mapping, as in dolma 1.x: the keys are those of the command.

    Raises:
        ConfigError: a setting is wrong.
        FormatError: a document is wrong.
    """
    run(load(Config, config))


def make_settings(config: Config, sources: Sequence[Source]) -> dict[str, Any]:
    """Settings as the core takes them: every path worked out, defaults filled in.

    Raises:
        ConfigError: two files would have the same attributes, or one has no place for them.
    """
    dedupe = config.dedupe
    name = _set_name(dedupe)
    if dedupe.file_partition:
        sources = [source for source in sources if _owned(source, dedupe)]
    files = _files(sources, name, config)
    least = {"min_length": dedupe.min_length, "min_words": dedupe.min_words}
    if dedupe.needs_index:
        return {
            "files": files,
            "attributes": _scores(sources, dedupe),
            "index": config.index,
            "attribute_name": dedupe.unit[1].attribute_name,
            **least,
            "unit": _indexed(dedupe),
        }
    assert config.bloom_filter is not None  # `check` saw to it
    unit, comparison = dedupe.unit
    compared = dataclasses.asdict(comparison)
    if dedupe.paragraphs is not None:
        compared["paragraph_separator"] = _unescaped(dedupe.paragraphs.paragraph_separator)
        ngram = dedupe.paragraphs.by_ngram
        compared["by_ngram"] = dataclasses.asdict(ngram) if ngram is not None and ngram.ngram_length > 0 else None
    return {
        "files": files,
        "unit": {unit: compared},
        "skip_empty": dedupe.skip_empty,
        **least,
        "num_partitions": 1 if dedupe.file_partition else dedupe.num_partitions,
        "partition_index": 0 if dedupe.file_partition else dedupe.partition_index,
        "attribute_suffix": f"_{dedupe.partition_index}" if dedupe.num_partitions > 1 else "",
        "bloom_filter": dataclasses.asdict(config.bloom_filter),
    }


def attribute_keys(dedupe: DedupeConfig) -> list[str]:
    """Keys of the attributes that are written."""
    name = dedupe.unit[1].attribute_name
    if dedupe.minhash is not None:
        return [name, f"{name}__cluster", f"{name}__size"]
    return [f"{name}_{dedupe.partition_index}" if dedupe.num_partitions > 1 else name]


def _indexed(dedupe: DedupeConfig) -> dict[str, dict[str, Any]]:
    """The comparison as the core takes it."""
    name, unit = dedupe.unit
    settings = dataclasses.asdict(unit)
    del settings["attribute_name"]
    if isinstance(unit, MinhashConfig):
        for key in ("similarity", "attributes"):
            del settings[key]
        settings |= dataclasses.asdict(unit.banding)
    return {name: settings}


def _scores(sources: Sequence[Source], dedupe: DedupeConfig) -> list[list[str]]:
    """For each document file, the files of attributes that the score may be in."""
    names = dedupe.minhash.attributes if dedupe.minhash is not None else []
    problems, found = [], []
    for source in sources:
        paths = []
        for position, name in enumerate(names):
            _, directory, relative = attributes_root(source.path, name, dedupe.document_dir)
            path = directory / relative
            if not path.is_file():
                message = f'is "{name}", which has no file for {source.name}; expected {path}'
                hint = "run the command that makes these attributes first; in `dolma run`, with keep: true"
                problems.append(Problem(f"dedupe.minhash.attributes.{position}", message, hint))
            paths.append(str(path))
        found.append(paths)
    if problems:
        raise ConfigError(problems)
    return found


def _unescaped(separator: str) -> str:
    r"""A shell passes ``\n`` as two characters, which no text has between paragraphs."""
    signs = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
    return re.sub(r"\\([nrt\\])", lambda found: signs[found[1]], separator)


def _owned(source: Source, config: DedupeConfig) -> bool:
    """Whether the file belongs to this partition: by its name below the document directory, on every machine alike."""
    import hashlib

    relative = source.name.partition(f"/{config.document_dir}/")[2] or source.name
    digest = hashlib.sha256(relative.encode()).digest()
    return int.from_bytes(digest[:8], "big") % config.num_partitions == config.partition_index


def _files(sources: Sequence[Source], name: str, config: Config) -> list[dict[str, str]]:
    files, problems = [], []
    seen: dict[str, str] = {}
    for source in sources:
        real = os.path.realpath(source.path)
        if real in seen:
            problems.append(Problem("documents", f'lists one file twice: "{seen[real]}" and "{source.name}"'))
        seen[real] = source.name
        try:
            documents, attributes, relative = attributes_root(source.path, name, config.dedupe.document_dir)
        except ValueError as error:
            hint = f"put the files below a directory `{config.dedupe.document_dir}`, or set dedupe.document_dir"
            problems.append(Problem("documents", f'is "{source.name}", which {error}', hint))
            continue
        packed, wanted = extension(attributes_name(source.path)), config.compression.output
        if wanted is not None and wanted.replace("zstd", "zst") != packed:
            message = f'is "{wanted}"; expected "{packed}", since the attributes of {source.name} have its name'
            problems.append(Problem("compression.output", message))
        files.append(
            {
                "path": source.path,
                "relative": relative,
                "documents_directory": str(documents),
                "attributes_directory": str(attributes),
            }
        )
    if problems:
        raise ConfigError(problems)
    return files


def _warn(summary: Mapping[str, Any], config: Config) -> None:
    if summary["replaced_files"]:
        log.warning("dedupe  replaced %d attribute files of another run", summary["replaced_files"])
    if summary["filter_grown_from"]:
        log.warning(
            "dedupe  bloom_filter.estimated_doc_count is %s, but there are more keys; the filter was rebuilt for %s",
            count_text(summary["filter_grown_from"]),
            count_text(summary["filter_estimated_keys"]),
        )
    unit = config.dedupe.paragraphs
    if unit is not None and summary["documents"] and summary["compared"] <= summary["documents"] and not unit.by_ngram:
        shown = json.dumps(_unescaped(unit.paragraph_separator), ensure_ascii=False)
        if summary["separators"] == 0:
            log.warning("dedupe  the paragraph_separator %s never occurs; whole texts were compared", shown)


def what_is_marked(dedupe: DedupeConfig, summary: Mapping[str, Any]) -> str:
    """What follows the number of marks."""
    if dedupe.repeats is not None or dedupe.substring is not None:
        return "spans marked"
    return f"of {count_text(summary['compared'])} {'paragraphs' if dedupe.paragraphs else 'documents'} marked"


def _text(summary: Mapping[str, Any], config: Config) -> str:
    if summary["already_done"]:
        return "nothing to do: all attributes exist"
    parts = [
        f"{count_text(summary['documents'])} documents",
        f"{count_text(summary['marked'])} {what_is_marked(config.dedupe, summary)}",
    ]
    if summary["filter_keys"]:
        parts.append(f"filter {count_text(summary['filter_keys'])} keys, {bytes_text(summary['filter_size_bytes'])}")
        parts.append(f"false-positive rate {summary['filter_false_positive_rate']:.1g}")
    if config.dedupe.needs_index:
        parts.append(f"index {count_text(summary['index_documents'])} documents")
    return ", ".join(parts)


if __name__ == "__main__":  # `python -m dolma.commands.dedupe` is `dolma dedupe`
    from dolma.__main__ import main

    main(["dedupe", *sys.argv[1:]])

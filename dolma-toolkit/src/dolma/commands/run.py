"""``dolma run``: several commands over documents that are read once; data goes from stage to stage in memory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dolma import _native, ray_executor, slurm
from dolma.commands import dedupe, extract, mix, tag, tokens
from dolma.config import GENERATE_IDS, SKIP_BAD_ROWS, WorkDir, at_least, setting, to_yaml
from dolma.errors import ConfigError, Problem, raises_dolma_errors
from dolma.estimate import Estimate, filter_bytes, size_bytes, sizes_table, text_bytes
from dolma.files.paths import Source, expand, named, select, side_file
from dolma.files.store import current
from dolma.formats.files import sha256_of
from dolma.formats.manifest import MANIFEST, check_files, read_manifest
from dolma.places import InputPattern
from dolma.plan import Document, Plan
from dolma.records import Reporter, error_log, save_config
from dolma.staging import with_remote_paths

__all__ = ["Config", "StageConfig", "run"]

log = logging.getLogger(__name__)

COMMANDS = ("extract", "tag", "dedupe", "mix", "tokens")
_NAMES = f"{', '.join(COMMANDS[:-1])} and {COMMANDS[-1]}"
TEMPORARY = "temporary"
"""Side file of results that only later stages need."""
EXECUTORS = ("local", "ray")
RUN_KEYS = ("processes", "generate_ids", "skip_bad_rows", "work_dir", "dryrun")
"""Settings of the run, not of a stage."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One command; its settings are those that it has by itself."""

    extract: extract.Config | None = setting(None, "settings of `dolma extract`")
    tag: tag.Config | None = setting(None, "settings of `dolma tag`")
    dedupe: dedupe.Config | None = setting(None, "settings of `dolma dedupe`")
    mix: mix.Config | None = setting(None, "settings of `dolma mix`")
    tokens: tokens.Config | None = setting(None, "settings of `dolma tokens`")
    keep: bool = setting(False, "write what the stage makes, even if only later stages read it (the last is written)")

    @property
    def command(self) -> str:
        """The name of the command."""
        return next((name for name in COMMANDS if getattr(self, name) is not None), "")

    @property
    def settings(self) -> Any:
        """The settings of the command."""
        return getattr(self, self.command)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``dolma run``."""

    documents: list[InputPattern] = setting([], "document files, patterns (`*`, `**`) or URLs")
    stages: list[StageConfig] = setting([], "what is done with them, in order; written in a file")
    processes: int = setting(1, "number of threads; the output does not depend on it")
    lazy: bool = setting(False, "stop tagging a document as soon as a rule of the mix drops it")
    generate_ids: bool = setting(False, GENERATE_IDS)
    skip_bad_rows: int = setting(0, SKIP_BAD_ROWS)
    work_dir: WorkDir = setting(WorkDir(), "")
    shard: str = setting("", "I/N, from 0: do this part of the next step, and publish nothing")
    merge: int = setting(0, "publish what this number of shards made; fail if one is not done")
    slurm: int = setting(0, "print a script that runs this number of shards with Slurm, then stop")
    executor: str = setting("local", "local: this machine; ray: shards on a Ray cluster, then a merge")
    shards: int = setting(0, "number of shards on Ray (default: as many as run at once)")
    ray_address: str = setting("auto", "address of the Ray cluster, HOST:PORT")
    ray_retries: int = setting(8, "how often to start a shard again whose machine or process is lost")
    dryrun: bool = setting(False, "print the settings and the plan, then stop")
    plan: list[str] = setting([], "sizes of text, e.g. 10TB 1PB: print what they would cost, then stop")
    core_hour_price: float = setting(0.05, "price of a core-hour, for `plan`")

    @property
    def share(self) -> tuple[int, int] | None:
        """The part of the work to do, and how many there are."""
        index, _, count = self.shard.partition("/")
        return (int(index), int(count)) if self.shard else None

    def check(self) -> Iterator[Problem]:
        """What is wrong between the settings."""
        for index, size in enumerate(self.plan):
            if not size_bytes(size):
                yield Problem(f"plan.{index}", f'is "{size}"; expected a size of text, e.g. 500GB, 10TB or 1PB')
        yield from at_least(1, processes=self.processes)
        yield from at_least(0, skip_bad_rows=self.skip_bad_rows)
        counts = {"merge": self.merge, "slurm": self.slurm, "shards": self.shards, "ray_retries": self.ray_retries}
        yield from at_least(0, **counts)
        if self.executor not in EXECUTORS:
            yield Problem("executor", f'is "{self.executor}"; expected local or ray')
        part, _, parts = self.shard.partition("/")
        divided = [name for name in ("shard", "merge", "slurm") if getattr(self, name)]
        divided += ["executor"] * (self.executor == "ray")
        if len(divided) > 1:
            yield Problem(divided[0], f"is set together with {divided[1]}; expected one of them")
        if self.shard and not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
            yield Problem("shard", f'is "{self.shard}"; expected I/N with I from 0 to N - 1, like 0/8')
        if not self.stages:
            yield Problem("stages", f"is empty; expected at least one of {_NAMES}")
        for index, stage in enumerate(self.stages):
            later = self.stages[index + 1 :]
            if stage.extract and index:
                yield Problem(
                    f"stages.{index}.extract", "follows another stage; expected it first, since it reads archives"
                )
            yield from _check_stage(stage, f"stages.{index}", is_last=not later)
            if (stage.tag or stage.dedupe) and later and not stage.keep and not any(one.mix for one in later):
                message = "makes attributes that no later stage reads; expected a mix after it"
                yield Problem(f"stages.{index}.{stage.command}", message, "set keep: true to write them")


def _check_stage(stage: StageConfig, key: str, is_last: bool) -> Iterator[Problem]:
    given = [name for name in COMMANDS if getattr(stage, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        yield Problem(key, f"is {found} of {_NAMES}; expected one of them")
        return
    key = f"{key}.{stage.command}"
    config, default = stage.settings, type(stage.settings)
    for field_ in dataclasses.fields(default):
        if field_.name in RUN_KEYS and getattr(config, field_.name) != field_.default:
            hint = "move it to the top of the file, next to `stages`"
            yield Problem(f"{key}.{field_.name}", "is a setting of the run; expected it there", hint)
    if stage.command in ("extract", "tag", "dedupe") and config.documents:
        hint = "move it to the top of the file; streams of a mix may select from the documents"
        yield Problem(f"{key}.documents", "is a setting of the run; expected it there", hint)
    if stage.command == "tokens" and not is_last:
        yield Problem(key, "is followed by another stage; expected it as the last, since shards are not documents")
    for problem in config.check():
        yield Problem(f"{key}.{problem.key}", problem.message, problem.hint)


@dataclass
class _Pass:
    """Stages that share one read of the documents, by their positions."""

    stages: list[int] = field(default_factory=list)
    barrier: str = ""
    """Why the documents have to be read again before these stages."""


def _passes(config: Config) -> list[_Pass]:
    passes = [_Pass()]
    for index, stage in enumerate(config.stages):
        before = [config.stages[one] for one in passes[-1].stages]
        has_mix = any(one.mix for one in before)
        barrier = ""
        if any(one.extract for one in before):
            barrier = "the documents that were extracted are read"
        elif stage.tokens is None and has_mix:
            barrier = "the documents that the mix wrote are read"
        elif stage.tokens is not None and before and not has_mix:
            barrier = "tokens reads the documents as they are"
        elif stage.dedupe is not None:
            known = {place for one in before if one.dedupe is not None for place in _memory(one.dedupe)}
            if known & _memory(stage.dedupe):
                barrier = f"the {'index' if stage.dedupe.index else 'filter'} has to have the keys of all documents"
            elif before and stage.dedupe.dedupe.minhash is not None and stage.dedupe.dedupe.minhash.attributes:
                barrier = "the scores have to be there before documents are compared"
        elif stage.mix is not None and before and any(_needs_survey(stream) for stream in stage.mix.streams):
            barrier = "a budget or percentiles need all documents before the first is written"
        if barrier:
            passes.append(_Pass(barrier=barrier))
        passes[-1].stages.append(index)
    return passes


def _memory(config: dedupe.Config) -> set[str]:
    """The filter or the index."""
    places = {config.bloom_filter.file if config.bloom_filter else None, config.index}
    return {os.path.realpath(place) for place in places if place is not None}


def _needs_survey(stream: mix.StreamConfig) -> bool:
    return stream.budget is not None or (stream.split is not None and bool(stream.split.percentiles))


@dataclass
class _Work:
    """A pass with every path worked out."""

    config: Config
    plan: Plan
    tags: dict[int, tag.Plan] = field(default_factory=dict)
    settings: dict[int, dict[str, Any]] = field(default_factory=dict)
    directories: dict[int, list[Path]] = field(default_factory=dict)
    """Of each stage: where its results go, if they are written."""
    keep: dict[int, bool] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    """Attribute files that its stages make, or those before."""
    sources: list[Source] = field(default_factory=list)
    """What it reads."""
    documents: list[Source] = field(default_factory=list)
    """What the next pass reads."""


def _work(config: Config, one: _Pass, documents: list[Source], made: set[str], is_last: bool) -> _Work:
    """Works out a pass over ``documents``; ``made`` are the attribute files of the passes before.

    Raises:
        ConfigError: stages do not fit together, or their settings do not fit the documents.
    """
    stages = {index: config.stages[index] for index in one.stages}
    has_mix = any(stage.mix for stage in stages.values())
    lazy = config.lazy and has_mix
    plan = Plan([], config.processes, config.generate_ids, config.skip_bad_rows, lazy)
    work = _Work(config, plan, sources=documents, documents=documents, made=set(made))
    problems: list[Problem] = []
    for index, stage in stages.items():
        # the next pass reads what this one makes
        is_read_later = not has_mix or (stage.mix is not None and not is_last)
        work.keep[index] = stage.keep or is_read_later or (is_last and index == one.stages[-1])
        try:
            _add(work, index, stage)
        except ConfigError as error:
            prefix = f"stages.{index}.{stage.command}"
            problems += [Problem(f"{prefix}.{found.key}", found.message, found.hint) for found in error.problems]
    if problems:
        raise ConfigError(problems)
    packings = {stream.compression.input for stage in stages.values() if stage.mix for stream in stage.mix.streams}
    packings |= {stage.settings.compression.input for stage in stages.values() if stage.tag or stage.dedupe}
    if len(packings) > 1:
        expected = "expected the same for all stages, which read the documents together"
        raise ConfigError([Problem("compression.input", f"differs between stages; {expected}")])
    [packing] = packings or {None}
    work.plan.documents = [Document(source.path, source.name, packing) for source in documents]
    _check_read(work, one, has_mix)
    for index, stage in stages.items():
        settings = work.tags[index].settings() if stage.tag else work.settings[index]
        if stage.dedupe is not None:
            settings = {"near" if stage.dedupe.dedupe.needs_index else "filter": settings}
        work.plan.add(stage.command, settings, work.keep[index])
    if has_mix:
        [index] = [index for index, stage in stages.items() if stage.mix]
        work.documents = _mixed(work.settings[index])
    for index, stage in stages.items():
        if stage.extract:
            work.documents = extract.documents_of(work.settings[index])
    return work


def _add(work: _Work, index: int, stage: StageConfig) -> None:
    if stage.extract is not None:
        work.settings[index] = extract.make_settings(stage.extract, work.documents)
        work.directories[index] = [Path(stage.extract.destination[0])]
    elif stage.tag is not None:
        plan = tag.make_plan(stage.tag, work.documents)
        for artifact in plan.artifacts if work.plan.lazy else []:
            artifact.config["lazy"] = True
        work.tags[index] = plan
        work.directories[index] = [Path(artifact.directory) for artifact in plan.artifacts]
        outputs = [
            (plan.artifacts[out["artifact"]].directory, out["path"]) for file in plan.files for out in file.outputs
        ]
        work.made |= {f"{directory}/{path}" for directory, path in outputs}
    elif stage.dedupe is not None:
        settings = dedupe.make_settings(stage.dedupe, work.documents)
        work.settings[index] = settings
        work.directories[index] = sorted({Path(file["attributes_directory"]) for file in settings["files"]})
        work.made |= {f"{file['attributes_directory']}/{file['relative']}" for file in settings["files"]}
    elif stage.mix is not None:
        settings = mix.make_settings(stage.mix, work.documents, work.made)
        work.settings[index] = settings
        kept = [stream["part_directories"] or [stream["output_directory"]] for stream in settings["streams"]]
        work.directories[index] = sorted({Path(directory) for directories in kept for directory in directories})
    elif stage.tokens is not None:
        mixed = [settings for other, settings in work.settings.items() if work.config.stages[other].mix]
        sources = _mixed(mixed[0]) if mixed else work.documents
        if stage.tokens.documents:
            sources = select(sources, stage.tokens.documents, "documents")
        work.settings[index] = tokens.make_settings(stage.tokens, sources)
        work.directories[index] = [Path(stage.tokens.destination)]
        for other in work.settings:
            mixing = work.config.stages[other].mix
            if mixing is not None:
                # their place among the shards is known only when they are written
                work.keep[other] |= mixing.shuffle_documents is not None or stage.tokens.sample_ring_prop


def _mixed(settings: Mapping[str, Any]) -> list[Source]:
    """The documents that a mix writes, in order."""
    found = []
    for stream in settings["streams"]:
        for directory in stream["part_directories"] or [stream["output_directory"]]:
            paths = [os.path.join(directory, shard["name"]) for shard in stream["shards"]]
            found += [Source(path, named(path), directory) for path in paths]
    return found


def _check_read(work: _Work, one: _Pass, has_mix: bool) -> None:
    """Attributes that nobody reads and nobody keeps are a mistake."""
    if not has_mix:
        return
    read: set[str] = set()
    for index, settings in work.settings.items():
        if work.config.stages[index].mix:
            inputs = [
                given for stream in settings["streams"] for shard in stream["shards"] for given in shard["inputs"]
            ]
            read |= {path for given in inputs for path in given["attributes"]}
    problems = []
    for index in one.stages:
        stage = work.config.stages[index]
        if (stage.tag or stage.dedupe) and not work.keep[index]:
            for directory in work.directories[index]:
                if not any(path.startswith(f"{directory}/") for path in read):
                    message = f'makes the attributes "{directory.name}", which no stage reads; expected them in a mix'
                    hint = "list them under the mix's attributes, or set keep: true"
                    problems.append(Problem(f"stages.{index}.{stage.command}", message, hint))
    if problems:
        raise ConfigError(problems)


def _written(config: Config, document: str) -> Iterator[str]:
    """The directories of attributes next to a document file."""
    for stage in config.stages:
        if stage.tag is not None and stage.keep:
            yield from tag.written(stage.tag, document)
        if stage.dedupe is not None and stage.keep:
            yield from dedupe.written(stage.dedupe, document)


@raises_dolma_errors
def run(config: Config) -> None:
    """Runs the stages; see ``docs/guide/run.md``."""
    if config.slurm:
        steps = [_steps(config, one) for one in _passes(config)]
        settings = to_yaml(dataclasses.replace(config, slurm=0))
        sys.stdout.write(slurm.script(settings, steps, config.slurm, config.processes))
    elif config.executor == "ray" and not (config.dryrun or config.plan):
        cluster = ray_executor.Cluster(config.ray_address, config.processes, config.ray_retries)
        here = dataclasses.replace(config, executor="local")
        count = config.shards or cluster.slots()
        shards = [f"{index}/{count}" for index in range(count)]
        cluster.run({shard: dataclasses.replace(here, shard=shard) for shard in shards}, run_here)
        run_here(dataclasses.replace(here, merge=count))
    else:
        step = run_here(config)
        if step:
            log.info('run  shard %s waits to begin "%s"; run it again when all shards have ended', config.shard, step)
        elif config.share:
            log.info("run  shard %s is done; when all are, publish with --merge %d", config.shard, config.share[1])


@with_remote_paths(_written, streams=True)
@raises_dolma_errors
def run_here(config: Config) -> str:
    """Runs the stages, or what a shard can do of them. Gives the step that needs what other shards make, if any."""
    if config.dryrun or config.plan:
        _show_plan(config, _passes(config), expand(config.documents))
        return ""
    passes = _passes(config)
    documents = expand(config.documents)
    final = _final_directories(config.stages[-1])
    identity = _identity(config, documents)
    if final and all(_is_done(directory, identity) for directory in final):
        log.info("run  nothing to do: all results exist")
        return ""
    funnel: list[str] = []
    temporary: list[Path] = []
    made: set[str] = set()
    for number, one in enumerate(passes):
        is_last = number + 1 == len(passes)
        work = _work(config, one, documents, made, is_last)
        work.plan.merge = config.merge or None
        if config.share is not None:
            follows, step = _run_share(work, one, config.share, is_last)
            if follows == "stop":
                return step
        if config.share is None or follows == "publish":
            funnel += _run_pass(work, one)
        documents, made = work.documents, work.made
        temporary += [directory for index in one.stages for directory in work.directories[index]]
    for directory in final:
        _note_done(directory, identity)
    _remove_temporary(temporary)
    log.info("run  %s", f"{len(passes)} passes" if len(passes) > 1 else "one pass")
    for line in funnel:
        log.info(line)
    return ""


def _run_pass(work: _Work, one: _Pass) -> list[str]:
    """Does the stages of a pass; gives their lines of the funnel."""
    config = work.config
    stages = {index: config.stages[index] for index in one.stages}
    commands = "+".join(stage.command for stage in stages.values())
    written = {index: work.directories[index] for index in stages if work.keep[index]}
    reporter = Reporter(commands, [directory for directories in written.values() for directory in directories])
    start = time.monotonic()
    last = work.directories[one.stages[-1]][0]
    with error_log(last), _processes(work):
        for index, stage in stages.items():
            if stage.mix:
                _check_names(work, index)
        for index, directories in written.items():
            _mark_temporary(config, index, directories)
            settings = dataclasses.replace(stages[index].settings, processes=config.processes)
            save_config(settings, directories)
        summary = work.plan.run(reporter)
    return _report(work, stages, summary, time.monotonic() - start)


def _run_share(work: _Work, one: _Pass, share: tuple[int, int], is_last: bool) -> tuple[str, str]:
    """Does one part of a pass. Says what follows (`stop`, `publish` or, if that is done, `go on`), and the next step if
    it has to wait for other shards.

    Share 0 publishes what the next pass reads; the last pass is published by a run without shares.
    """
    config = work.config
    stages = {index: config.stages[index] for index in one.stages}
    written = [directory for index in stages if work.keep[index] for directory in work.directories[index]]
    is_published = all((directory / MANIFEST).is_file() for directory in written)
    work.plan.share = share
    with error_log(work.directories[one.stages[-1]][0]), _processes(work):
        for index, stage in stages.items():
            if stage.mix:
                _check_names(work, index)
            if work.keep[index]:
                _mark_temporary(config, index, work.directories[index])
        summary = work.plan.run(Reporter("+".join(stage.command for stage in stages.values()), []))
    work.plan.share = None
    if summary["state"] == "finished" and not is_last and is_published:
        return "go on", ""
    if summary["state"] == "finished" and not is_last and share[0] == 0:
        return "publish", ""
    if summary["state"] == "waiting":
        steps = [*_steps(config, one), "publish"]
        return "stop", steps[steps.index(summary["waits_for"]) + 1]
    return "stop", "" if is_last else "publish"


def _steps(config: Config, one: _Pass) -> list[str]:
    """What the shards of a pass do between barriers."""
    stages = [config.stages[index] for index in one.stages]
    steps = []
    dedupes = [stage.dedupe for stage in stages if stage.dedupe]
    has_filter = any(one.bloom_filter is not None and not one.bloom_filter.read_only for one in dedupes)
    has_index = any(one.dedupe.needs_index for one in dedupes)
    if has_filter or has_index:
        steps.append("keys")
    steps += ["groups"] * has_index + ["filter", "answers"] * has_filter
    mixes = [stage.mix for stage in stages if stage.mix]
    if any(_needs_survey(stream) for mixing in mixes for stream in mixing.streams):
        steps.append("survey")
    steps.append("rows")
    if any(mixing.shuffle_documents is not None for mixing in mixes):
        steps.append("shuffle")
    return steps


def _processes(work: _Work) -> AbstractContextManager[None]:
    """Those of extractors and of taggers written in Python."""
    for index, extracting in work.settings.items():
        extraction = work.config.stages[index].extract
        if extraction is not None:
            extraction = dataclasses.replace(extraction, processes=work.config.processes)
            return extract.workers(extraction, extracting, work.plan)
    settings = {index: work.config.stages[index].tag or tag.Config() for index in work.tags}
    of_stage = {index: dataclasses.replace(settings[index], processes=work.config.processes) for index in settings}
    return tag.user_taggers([(of_stage[index], plan) for index, plan in work.tags.items()], work.plan)


def _check_names(work: _Work, index: int) -> None:
    """Rules may name attributes that the stages before make."""
    planned: dict[str, dict[str, list[str]]] = {}
    for plan in work.tags.values():
        for artifact in plan.artifacts:
            planned[artifact.directory] = {"taggers": artifact.config["taggers"], "keys": []}
    for other in work.settings:
        stage = work.config.stages[other]
        if stage.dedupe:
            for directory in work.directories[other]:
                planned[str(directory)] = {"taggers": [], "keys": dedupe.attribute_keys(stage.dedupe.dedupe)}
    for warning in _native.mix_check(json.dumps(work.settings[index]), json.dumps(planned), current()):
        log.warning("mix  %s", warning)


def _report(work: _Work, stages: Mapping[int, StageConfig], summary: dict[str, Any], seconds: float) -> list[str]:
    """Says what each stage did; gives the lines of the funnel."""
    tagged, marked = iter(summary["tag"]), iter(summary["dedupe"])
    lines = []
    has_mix = summary["mix"] is not None
    for index, stage in stages.items():
        directories = work.directories[index]
        reporter = Reporter(stage.command, directories if work.keep[index] else [])
        if stage.extract:
            counts = summary["extract"]
            extract.report(directories[0], work.sources, counts, seconds, reporter)
            lines.append(
                f"extract  {counts['documents']:>12,} documents of {counts['files'] + counts['files_kept']:,} files"
            )
        elif work.config.merge and (stage.tag or stage.dedupe):
            lines.append(f"{stage.command:<8} {'–':>12} counted by each shard")  # a merge reads no documents
        elif stage.tag:
            counts = next(tagged)
            counts["skipped"] = [] if has_mix else counts["skipped"]
            tag.report(work.tags[index], counts, seconds, reporter)
            lines.append(f"tag      {counts['documents']:>12,} documents")
        elif stage.dedupe:
            counts = next(marked)
            counts["skipped"] = [] if has_mix else counts["skipped"]
            dedupe.report(stage.dedupe, directories if work.keep[index] else [], counts, seconds, reporter)
            lines.append(f"dedupe   {counts['marked']:>12,} {dedupe.what_is_marked(stage.dedupe.dedupe, counts)}")
        elif stage.mix:
            place = directories[0] if work.keep[index] else Path(work.directories[max(stages)][0])
            streams = summary["mix"]["streams"]
            mix.report(place, summary["mix"], seconds, reporter)
            kept, read = (sum(stream[key] for stream in streams) for key in ("documents_out", "documents_in"))
            lines.append(f"mix      {kept:>12,} of {read:,} documents kept")
        elif stage.tokens:
            counts = summary["tokens"]
            tokens.report(directories[0], counts, seconds, reporter)
            lines.append(f"tokens   {counts['tokens']:>12,} tokens of {counts['documents']:,} documents")
    return lines


# ---- results of earlier runs


def _identity(config: Config, documents: Sequence[Source]) -> str:
    """What the results depend on: the settings and the document files."""
    stages = [line for line in to_yaml(config.stages).splitlines() if "processes:" not in line]
    found = [(source.name, *_stamp(source.path)) for source in documents]
    return hashlib.sha256(json.dumps([stages, config.generate_ids, config.skip_bad_rows, found]).encode()).hexdigest()


def _stamp(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _final_directories(stage: StageConfig) -> list[Path]:
    """Where the last stage writes, if its settings alone say it."""
    if stage.tokens is not None:
        return [Path(stage.tokens.destination)]
    if stage.extract is not None:
        return [Path(stage.extract.destination[0])]
    if stage.mix is None:
        return []
    below = "" if stage.mix.shuffle else "documents"
    parts = [
        [f"part-{part:02d}" for part in range(stream.split.parts)] if stream.split is not None else [""]
        for stream in stage.mix.streams
    ]
    streams = zip(stage.mix.streams, parts, strict=True)
    found = {os.path.join(stream.output.path, part, below).rstrip("/") for stream, names in streams for part in names}
    return [Path(directory) for directory in sorted(found)]


def _is_done(directory: Path, identity: str) -> bool:
    """Whether the directory has the results of a finished run like this one, untouched."""
    note = side_file(directory, "run.ndjson")
    if not note.is_file() or not (directory / MANIFEST).is_file():
        return False
    found = json.loads(note.read_text("utf-8"))
    is_same = found == {"run": identity, "manifest_sha256": sha256_of(directory / MANIFEST)}
    return is_same and not list(check_files(read_manifest(directory), checksums=False))


def _note_done(directory: Path, identity: str) -> None:
    note = {"run": identity, "manifest_sha256": sha256_of(directory / MANIFEST)}
    path = side_file(directory, "run.ndjson")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(note) + "\n", "utf-8")


def _mark_temporary(config: Config, index: int, directories: Sequence[Path]) -> None:
    """Notes in directories that are new that they are removed in the end. Others belong to somebody."""
    if config.stages[index].keep or index + 1 == len(config.stages):
        return
    for directory in directories:
        if not directory.exists():
            directory.mkdir(parents=True, exist_ok=True)
            side_file(directory, TEMPORARY).parent.mkdir(exist_ok=True)
            side_file(directory, TEMPORARY).touch()


def _remove_temporary(directories: Sequence[Path]) -> None:
    for directory in directories:
        if side_file(directory, TEMPORARY).is_file():
            shutil.rmtree(directory)
            with suppress(OSError):  # there are others
                directory.parent.rmdir()


# ---- the plan


def _show_plan(config: Config, passes: Sequence[_Pass], documents: list[Source]) -> None:
    lines: list[str] = []
    made: set[str] = set()
    estimates: list[Estimate] = []
    filters: list[dict[str, Any]] = []
    for number, one in enumerate(passes):
        if one.barrier:
            lines.append(f"# barrier: {one.barrier}")
        lines.append(f"# pass {number + 1} of {len(passes)}")
        is_last = number + 1 == len(passes)
        work = _work(config, one, documents, made, is_last) if _are_there(documents) else None
        parts = [part for index in one.stages for part in _parts(config.stages[index])]
        for index in one.stages:
            lines.append(f"#   {config.stages[index].command:<7} {_what(config, one, index, work)}")
        if work is None:
            lines.append("#   reads what the pass before writes")
            estimates.append(dataclasses.replace(estimates[-1], work=parts))
            continue
        dedupes = [settings for settings in work.settings.values() if "bloom_filter" in settings]
        filters += dedupes
        stored_bytes = sum(os.path.getsize(source.path) for source in documents)
        filters_bytes = sum(filter_bytes(settings["bloom_filter"]) for settings in dedupes)
        estimate = Estimate(parts, len(documents), stored_bytes, text_bytes(documents), filters_bytes, config.processes)
        estimates.append(estimate)
        lines += [f"#   {line}" for line in estimate.lines()]
        documents, made = work.documents, work.made
    if config.plan:
        sizes = [size_bytes(size) or 0 for size in config.plan]
        lines = sizes_table(estimates, filters, sizes, config.core_hour_price)
    else:
        lines = [to_yaml(config).rstrip(), *lines]
    sys.stdout.write("\n".join(lines) + "\n")


def _parts(stage: StageConfig) -> list[str]:
    """What a stage does, by names that have rates."""
    if stage.tag is not None:
        return stage.tag.taggers
    if stage.dedupe is None:
        return [stage.command]
    unit, comparison = stage.dedupe.dedupe.unit
    return ["ngrams" if getattr(comparison, "by_ngram", None) is not None else unit]


def _are_there(documents: Sequence[Source]) -> bool:
    return all(os.path.exists(source.path) for source in documents)


def _what(config: Config, one: _Pass, index: int, work: _Work | None) -> str:
    stage = config.stages[index]
    if work is None:
        return "of the documents of the pass before"
    places = ", ".join(str(directory) for directory in work.directories[index][:3])
    is_asked_for = stage.keep or index + 1 == len(config.stages)
    fate = "written" if is_asked_for else "removed in the end" if work.keep[index] else "in memory only"
    return f"{places} ({fate})"


if __name__ == "__main__":  # `python -m dolma.commands.run` is `dolma run`
    from dolma.__main__ import main

    main(["run", *sys.argv[1:]])

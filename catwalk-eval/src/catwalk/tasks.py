"""The names of tasks: `NAME[:VARIANT][@SHOTS]`, sets of them, users' YAML files, and request sets by label.

Each benchmark is a file in `benchmarks/`. To add one, write such a file (docs/guide/write-a-task.md).
"""

import difflib
import re
from pathlib import Path

import yaml

from catwalk.declarations import Declaration, build_task, members, read_declaration
from catwalk.formats.contract import ConfigError
from catwalk.types import Task

__all__ = ["BENCHMARKS", "HARNESS", "OLMES", "TASKS", "TASK_SETS", "find_tasks"]

HARNESS = "lmeval:"
"""Before the name of a task of lm-evaluation-harness, which lm_eval_tasks.py reads."""
BENCHMARKS = Path(__file__).parent / "benchmarks"
_SPEC = re.compile(r"(?P<name>.+?)(?::(?P<variant>[a-z0-9_]+))?(?:@(?P<shots>\d+))?", re.ASCII)


def _load() -> tuple[dict[str, tuple[Declaration, str | None]], dict[str, tuple[str, ...]]]:
    """Every declared task with its member, and the sets: those of sets.yaml, of members, and of the key `sets`."""
    declared: dict[str, tuple[Declaration, str | None]] = {}
    sets: dict[str, list[str]] = {}
    for path in sorted(BENCHMARKS.glob("*.yaml")):
        if path.name in ("sets.yaml", "olmes.yaml"):
            continue
        declaration = read_declaration(path)
        for member, group in members(declaration).items():
            name = declaration["name"] if member is None else f"{declaration['name']}_{member}"
            declared[name] = declaration, member
            if member is not None:
                sets.setdefault(declaration["name"], []).append(name)
            if group is not None:
                sets.setdefault(f"{declaration['name']}_{group}", []).append(name)
            for own in declaration.get("sets", ()):
                sets.setdefault(own, []).append(name)
    listed = yaml.safe_load((BENCHMARKS / "sets.yaml").read_text(encoding="utf-8"))
    return declared, {name: tuple(names) for name, names in sorted({**sets, **listed}.items())}


def _olmes() -> dict[str, tuple[str, str]]:
    """OLMES' tasks: the cloze form and the multiple-choice form of each, whose maximum OLMES reports."""
    forms = yaml.safe_load((BENCHMARKS / "olmes.yaml").read_text(encoding="utf-8"))
    return {name: (pair["cloze"], pair["letters"]) for name, pair in forms.items()}


_DECLARED, TASK_SETS = _load()
OLMES = _olmes()
TASK_SETS["olmes"] = tuple(spec for pair in OLMES.values() for spec in pair)
TASKS: dict[str, Task] = {name: build_task(*_DECLARED[name]) for name in sorted(_DECLARED)}


def find_tasks(names: tuple[str, ...]) -> list[Task]:
    """Tasks by specification, each once, sorted by name. `SET:VARIANT@SHOTS` applies to every task of the set.

    Raises:
        ConfigError: every unknown name, each with the nearest known one.
    """
    found: dict[str, Task] = {}
    problems: list[str] = []
    for name in names:
        try:
            found |= {task.name: task for task in _find(name)}
        except ConfigError as error:
            problems += [problem.message for problem in error.problems]
    if problems:
        raise ConfigError(*problems, hint="catwalk list shows every task")
    return [found[name] for name in sorted(found)]


def _find(spec: str) -> list[Task]:
    if spec.startswith("requests:"):
        from catwalk.request_sets import find_request_set

        return [find_request_set(spec.removeprefix("requests:"))]
    match = _SPEC.fullmatch(spec)
    name, variant, shots = match.group("name", "variant", "shots") if match else (spec, None, None)
    count = int(shots) if shots else None
    if name.endswith((".yaml", ".yml")):
        declaration = read_declaration(Path(name).expanduser())
        return [build_task(declaration, member, variant, count) for member in members(declaration)]
    if name in TASK_SETS:
        return [task for one in TASK_SETS[name] for task in _find(one + spec[len(name) :])]
    if name in _DECLARED:
        return [TASKS[name] if spec == name else build_task(*_DECLARED[name], variant, count)]
    near = difflib.get_close_matches(name, [*TASKS, *TASK_SETS], n=1, cutoff=0.0)[0]
    raise ConfigError(f'tasks: unknown task "{spec}" (nearest: "{near}")')

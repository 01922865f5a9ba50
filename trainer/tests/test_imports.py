"""Modules of the package do not import each other in a circle, also not from within functions."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import olmo_trainer

ROOT = Path(olmo_trainer.__file__).parent


def imported(path: Path, modules: set[str]) -> set[str]:
    """The package's modules that a file imports, by dotted name."""
    own = path.relative_to(ROOT).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join([*own[: len(own) - node.level], *([node.module] if node.module else [])])
            names = {base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)}
            found |= names & modules
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    paths = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in ROOT.rglob("*.py")}
    graph = {name: imported(path, set(paths)) - {name} for name, path in paths.items()}
    assert sum(map(len, graph.values())) > 100
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError
    folders: dict[str, set[str]] = {}
    for name, others in graph.items():
        own = name.partition(".")[0]
        folders.setdefault(own, set()).update({other.partition(".")[0] for other in others} - {own})
    tuple(TopologicalSorter(folders).static_order())

"""No module imports, directly or through others, a module that imports it."""

import ast
import re
from collections import defaultdict
from pathlib import PurePosixPath

import pytest
from repository import PACKAGES, ROOT, modules, tracked


def python_imports(folder: str, root: str) -> dict[str, set[str]]:
    """Module → modules of the same package that it imports, inside functions too. Compiled modules import nothing."""
    compiled = {module_of(name, folder) for name in tracked() if name.startswith(folder) and name.endswith(".pyi")}
    trees = {module_of(name, folder): (name, tree) for name, tree in modules(f"{folder}/src")}
    graph: dict[str, set[str]] = defaultdict(set)
    for module, (name, tree) in trees.items():
        package = module if name.endswith("__init__.py") else module.rpartition(".")[0]
        for node in typed_out(tree):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
                start = f"{base}.{node.module}".rstrip(".") if node.level else node.module or ""
                start = start.removesuffix(".None")
                found = [f"{start}.{alias.name}" for alias in node.names]
            for imported in found:
                target = imported if imported in trees else imported.rpartition(".")[0]
                if target in trees and imported not in compiled and target != module and target.startswith(root):
                    graph[module].add(target)
    return graph


def module_of(name: str, folder: str) -> str:
    """`trainer/src/olmo_trainer/train.py` → `olmo_trainer.train`."""
    parts = PurePosixPath(name).relative_to(f"{folder}/src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def typed_out(tree: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    """Every import except those under `if TYPE_CHECKING`."""
    found: list[ast.Import | ast.ImportFrom] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        found += typed_out(node)
    return found


def rust_imports() -> dict[str, set[str]]:
    """Module of `rust/core` → modules that it names by `crate::`; modules are the folders and files of `src`."""
    root = "dolma-toolkit/rust/core/src"
    graph: dict[str, set[str]] = defaultdict(set)
    for name in tracked():
        if not (name.startswith(root) and name.endswith(".rs")):
            continue
        module = PurePosixPath(name).relative_to(root).with_suffix("").parts[0]
        text = re.split(r"#\[cfg\(test\)\]", (ROOT / name).read_text(encoding="utf-8"))[0]
        names = re.findall(r"crate::(\w+)", text)
        for group in re.findall(r"use crate::\{(.*?)\};", text, re.S):
            names += re.findall(r"(?:^|,)\s*(\w+)", re.sub(r"\{[^{}]*\}", "", group))
        graph[module] |= {found for found in names if found != module and found != "lib"}
    known = set(graph)
    return {module: found & known for module, found in graph.items() if module not in ("lib", "main")}


def cycles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that reach one another (Tarjan's strongly connected components of more than one)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in sorted(graph.get(module, ())):
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            component = set(stack[stack.index(module) :])
            del stack[stack.index(module) :]
            if len(component) > 1:
                found.append(component)

    for module in sorted(graph):
        if module not in index:
            visit(module)
    return found


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.folder)
def test_python_modules_do_not_import_in_circles(package) -> None:
    assert cycles(python_imports(package.folder, package.import_name)) == []


def test_rust_modules_do_not_import_in_circles() -> None:
    assert cycles(rust_imports()) == []


def test_a_cycle_is_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]

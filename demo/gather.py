"""Gather real text that every machine has: the Python installation and its installed packages.

There are two sources of documents (docs/formats/document.md); the package is the subdomain:

- `docs`: the docstrings of a module, the long description of a package, its licences and text files;
- `code`: whole `.py` files.

A module contributes either its docstrings or its code, chosen by the hash of its path, so no text is in both sources.
Each package contributes at most `BUDGET_BYTES` to a source, with files in the order of their hashes. So the corpus
depends only on what is installed.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from artifact import Artifact, file_hash, read_documents

BUDGET_BYTES = {"docs": 180_000, "code": 320_000}
MAX_DOMAINS = 24
"""Number of packages in the corpus: the standard library and the largest installed ones."""

MAX_FILE_BYTES = 16_000
TEXT_SUFFIXES = (".md", ".rst", ".txt")
SKIPPED_PARTS = {
    "test",
    "tests",
    "testing",
    "__pycache__",
    "site-packages",
    "idlelib",
    "lib2to3",
    "_vendor",
    "node_modules",
}
OWN_PACKAGES = {"dolma", "olmo_trainer", "catwalk", "paloma", "open_instruct"}


@functools.cache
def distributions_of_modules() -> dict[str, list[str]]:
    """Top-level module -> the distributions that install it, sorted."""
    return {module: sorted(set(names)) for module, names in importlib.metadata.packages_distributions().items()}


def packages() -> list[tuple[str, str, Path]]:
    """(package, version, directory) of the standard library and the installed packages with the most text."""
    purelib = Path(sysconfig.get_path("purelib"))
    sizes = {}
    for module, distributions in distributions_of_modules().items():
        directory = purelib / module
        if directory.is_dir() and module not in OWN_PACKAGES and module == home_module(distributions[0]):
            sizes[module] = sum(path.stat().st_size for _, path in package_files(directory))
    largest = sorted(sizes, key=lambda module: (-sizes[module], module))[: MAX_DOMAINS - 1]
    installed = [
        (module, importlib.metadata.version(distributions_of_modules()[module][0]), purelib / module)
        for module in largest
    ]
    return sorted([("python", sys.version.split()[0], Path(sysconfig.get_path("stdlib"))), *installed])


@functools.cache
def home_module(distribution: str) -> str:
    """The module that represents a distribution: the one of the same name, else the first."""
    modules = sorted(module for module, names in distributions_of_modules().items() if distribution in names)
    return next((module for module in modules if module.lower() == distribution.lower().replace("-", "_")), modules[0])


@functools.cache
def package_files(directory: Path) -> list[tuple[str, Path]]:
    """(name relative to the directory, path) of the files worth reading, in the order of the hashes of their names."""
    files = []
    for path in directory.rglob("*"):
        relative = path.relative_to(directory)
        if path.suffix not in (".py", *TEXT_SUFFIXES) or SKIPPED_PARTS & set(relative.parts[:-1]):
            continue
        if path.is_file() and 200 <= path.stat().st_size <= MAX_FILE_BYTES:
            files.append((relative.as_posix(), path))
    return sorted(files, key=lambda item: hashlib.sha256(item[0].encode()).hexdigest())


def docstrings(source: str) -> str:
    """The docstrings of a module, each under the dotted name of what it documents; "" if there are none."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ""
    parts = []

    def visit(node: ast.AST, name: str) -> None:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and len(text) > 40:
                parts.append(f"{name}\n\n{text}" if name else text)
            for child in node.body:
                visit(child, f"{name}.{child.name}".lstrip(".") if hasattr(child, "name") else name)

    visit(tree, "")
    return "\n\n\n".join(parts)


def description_and_licences(package: str, directory: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of the package's long description and licence files, from its metadata."""
    if package == "python":
        return
    for distribution in distributions_of_modules().get(package, []):
        body = importlib.metadata.metadata(distribution).get_payload()
        if isinstance(body, str) and len(body) > 400:
            yield f"{distribution}/README", body
        licences = [file for file in importlib.metadata.files(distribution) or [] if "LICEN" in file.name.upper()]
        for file in sorted(licences, key=lambda file: (len(file.parts), str(file)))[:2]:
            if "dist-info" in str(file):
                path = Path(str(file.locate()))
                if path.is_file() and path.stat().st_size <= MAX_FILE_BYTES:
                    yield f"{distribution}/{file.name}", path.read_text("utf-8", errors="replace")


def package_documents(package: str, version: str, directory: Path) -> dict[str, list[dict]]:
    """The documents of a package by source, within the budgets."""
    found: dict[str, list[dict]] = {"docs": [], "code": []}
    spent = {"docs": 0, "code": 0}

    def add(source: str, name: str, text: str, kind: str, sha256: str) -> None:
        text = text.replace("\r\n", "\n")
        if len(text) < 200 or "\x00" in text or spent[source] + len(text.encode()) > BUDGET_BYTES[source]:
            return
        spent[source] += len(text.encode())
        metadata = {
            "subdomain": package,
            "path": f"{package}/{name}",
            "version": version,
            "kind": kind,
            "sha256": sha256,
        }
        found[source].append({"id": f"{package}/{name}#{kind}", "text": text, "source": source, "metadata": metadata})

    for name, text in description_and_licences(package, directory):
        kind = "licence" if "LICEN" in name.upper() else "description"
        add("docs", name, text, kind, hashlib.sha256(text.encode()).hexdigest())
    for name, path in package_files(directory):
        if all(spent[source] > 0.97 * BUDGET_BYTES[source] for source in spent):
            break
        data = path.read_bytes()
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            continue  # skip files in other encodings
        sha256 = hashlib.sha256(data).hexdigest()
        if path.suffix != ".py":
            add("docs", name, text, "text", sha256)
        elif int(hashlib.sha256(f"{package}/{name}".encode()).hexdigest(), 16) % 3 == 0:
            add("docs", name, inspect.cleandoc(docstrings(text)), "docstrings", sha256)
        else:
            add("code", name, text, "module", sha256)
    return found


def gather(output: Path) -> None:
    """Write `<output>/documents/<source>/<source>-0000.jsonl.gz` and the manifest of `<output>/documents`."""
    artifact = Artifact(output / "documents", "document")
    by_source: dict[str, list[dict]] = {"docs": [], "code": []}
    for package, version, directory in packages():
        for source, documents in package_documents(package, version, directory).items():
            by_source[source] += documents
    for source, documents in by_source.items():
        for document in documents:
            metadata = document["metadata"]
            size = len(document["text"].encode())
            artifact.add_input("source", metadata["path"] + f"#{metadata['kind']}", metadata["sha256"], size)
        artifact.write_lines(f"{source}/{source}-0000.jsonl.gz", documents)
    kept = [document for documents in by_source.values() for document in documents]
    text_bytes = sum(len(document["text"].encode()) for document in kept)
    artifact.finish(
        config={"budget_bytes": BUDGET_BYTES, "max_domains": MAX_DOMAINS, "root": "the Python installation"},
        counts={"documents": len(kept), "text_bytes": text_bytes},
    )
    domains = {(document["source"], document["metadata"]["subdomain"]) for document in kept}
    sys.stderr.write(f"gathered {len(kept):,} documents, {text_bytes / 1e6:.1f} MB, {len(domains)} domains\n")


def adopt(patterns: list[str], output: Path) -> None:
    """Copy the user's document files into the corpus, one file for each.

    Raises ValueError: `path:line: …` for a row that is not a document.
    """
    artifact = Artifact(output / "documents", "document")
    count = size = 0
    for index, path in enumerate(files_of(patterns)):
        rows = list(read_documents(path))
        artifact.write_lines(f"{index:04d}-{path.name.split('.')[0]}.jsonl.gz", rows)
        artifact.add_input("source", path.name, file_hash(path), path.stat().st_size)
        count += len(rows)
        size += sum(len(row["text"].encode()) for row in rows)
    artifact.finish(config={"root": "the user's corpus"}, counts={"documents": count, "text_bytes": size})


def files_of(patterns: list[str]) -> list[Path]:
    """The document files among `patterns` and below directories."""
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*.json*") if p.name.endswith((".jsonl", ".jsonl.gz", ".json.gz")))
            found += [p for p in inside if "attributes" not in p.relative_to(path).parts]
        elif path.is_file():
            found.append(path)
        else:
            raise SystemExit(f"error: CORPUS: {pattern} not found; expected a directory or file of documents")
    if not found:
        raise SystemExit(
            f"error: CORPUS: {' '.join(patterns)} contains no documents; expected .jsonl or .jsonl.gz files"
        )
    return found


if __name__ == "__main__":
    if len(sys.argv) > 2:
        adopt(sys.argv[2:], Path(sys.argv[1]))
    else:
        gather(Path(sys.argv[1]))

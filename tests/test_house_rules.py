"""The house rules of the repository, and the few exceptions, each by name and with its reason."""

import ast
import re
from pathlib import PurePosixPath

import pytest
import yaml
from repository import PACKAGES, ROOT, Package, blocks, modules, tracked

TEXT = (".py", ".pyi", ".rs", ".md", ".yaml", ".yml", ".toml", ".css", ".html", ".jinja", ".sh")
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager"}
ABSOLUTE_PATH = re.compile(r"(?<![\w.~-])/(?:root|work|tmp|home/\w+|Users/\w+)/")

NAMES_ALLOWED: dict[str, str] = {}
SWALLOWED = {
    "dolma-toolkit/src/dolma/files/remote.py": "each protocol has its own errors; all are reported as one problem",
    "dolma-toolkit/src/dolma/tagging/workers.py": "a user's module or tagger may raise anything; it is reported",
    "open-instruct/src/open_instruct/model/save.py": "a tokenizer class may raise anything; a generic one replaces it",
}

PYTHON_FOLDERS = [f"{package.folder}/src" for package in PACKAGES]
by_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.folder)


def by_file(names: list[str]) -> pytest.MarkDecorator:
    """One test per file, so that a failure names the file."""
    return pytest.mark.parametrize("name", names)


def markdown() -> list[str]:
    """Every Markdown file."""
    return [name for name in tracked() if name.endswith(".md")]


# Files with a copy in several packages, since no package imports another.
FOLDERS = [
    "trainer/src/olmo_trainer/formats",
    "catwalk-eval/src/catwalk/formats",
    "open-instruct/src/open_instruct/formats",
    "paloma/src/paloma/formats",
]
VENDORED = {
    **{f"{name}.py": [*FOLDERS, "dolma-toolkit/src/dolma/formats"] for name in ("contract", "manifest", "__main__")},
    "../settings.py": FOLDERS,
    "checkpoint.py": [folder for folder in FOLDERS if "paloma" not in folder],
    "document.py": [folder for folder in FOLDERS if "open-instruct" not in folder],
    "openmp.py": [folder.removesuffix("/formats") for folder in FOLDERS if "paloma" not in folder],
    "sandbox.py": ["catwalk-eval/src/catwalk", "open-instruct/src/open_instruct/evaluation"],
    "page.py": [folder.removesuffix("/formats") for folder in FOLDERS],
    "browser.py": ["catwalk-eval/tests", "open-instruct/tests"],
    "line_chart.py": ["trainer/src/olmo_trainer", "open-instruct/src/open_instruct"],
}


@pytest.mark.parametrize("name", list(VENDORED))
def test_vendored_file_is_the_same_in_every_package(name: str) -> None:
    first, *others = [(ROOT / folder / name).read_bytes() for folder in VENDORED[name]]
    assert all(other == first for other in others)


def test_no_file_or_folder_has_a_vague_name() -> None:
    bad = {n for n in tracked() for part in PurePosixPath(n).parts if part.split(".")[0].lower() in FORBIDDEN_NAMES}
    assert bad - set(NAMES_ALLOWED) == set()


@by_package
def test_package_imports_no_other_package(package: Package) -> None:
    others = {other.import_name for other in PACKAGES} - {package.import_name}
    found = []
    for name, tree in modules(package.folder):
        for node in ast.walk(tree):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found += [f"{name}:{node.lineno}" for one in imported if one.split(".")[0] in others]
    assert found == []


@pytest.mark.parametrize("folder", PYTHON_FOLDERS)
def test_library_code_does_not_print(folder: str) -> None:
    found = [
        f"{name}:{node.lineno}"
        for name, tree in modules(folder)
        if not name.endswith("/__main__.py")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert found == []


def test_rust_library_code_does_not_print() -> None:
    sources = [n for n in tracked() if n.endswith(".rs") and "/src/" in n and "/bin/" not in n]
    printing = re.compile(r"\b(?:e?println|e?print|dbg)!\(")
    assert [name for name in sources if printing.search((ROOT / name).read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("folder", [*PYTHON_FOLDERS, "demo"])
def test_what_is_public_has_a_docstring(folder: str) -> None:
    found = []
    for name, tree in modules(folder):
        if ast.get_docstring(tree) is None and tree.body:
            found.append(f"{name}:1 module")
        for owner in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_")):
            for node in owner.body:
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name[0] == "_":
                    continue
                if ast.get_docstring(node) is None and not _overrides(owner, node):
                    found.append(f"{name}:{node.lineno} {node.name}")
    assert found == []


def _overrides(owner: ast.AST, node: ast.AST) -> bool:
    """Whether a method's class has bases, whose docstring it may inherit."""
    return isinstance(owner, ast.ClassDef) and bool(owner.bases) and not isinstance(node, ast.ClassDef)


@pytest.mark.parametrize("folder", PYTHON_FOLDERS)
def test_module_says_what_it_exports(folder: str) -> None:
    found = []
    for name, tree in modules(folder):
        if not tree.body or name.endswith("/__main__.py"):
            continue
        targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
        targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
        if not any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            found.append(name)
    assert found == []


@pytest.mark.parametrize("folder", [*PYTHON_FOLDERS, "demo"])
def test_no_error_is_swallowed(folder: str) -> None:
    found = []
    for name, tree in modules(folder):
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler) or name in SWALLOWED:
                continue
            kind = node.type.id if isinstance(node.type, ast.Name) else None
            every = node.type is None or kind in ("Exception", "BaseException")
            if every and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
                found.append(f"{name}:{node.lineno}")
    assert found == []


def test_nothing_is_left_to_do() -> None:
    marks = re.compile(r"\b(?:TO" + "DO|FIX" + "ME|X" + r"XX)\b|\b(?:to" + "do|unimple" + r"mented)!\(")
    names = [n for n in tracked() if n.endswith((".py", ".rs", ".pyi", ".yaml", ".toml"))]
    assert [n for n in names if marks.search((ROOT / n).read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("folder", [*PYTHON_FOLDERS, "demo"])
def test_only_an_abstract_method_is_not_implemented(folder: str) -> None:
    found = []
    for name, tree in modules(folder):
        name_of_error = "NotImplemented" + "Error"
        raising = {n.lineno for n in ast.walk(tree) if isinstance(n, ast.Raise) and name_of_error in ast.unparse(n)}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and any(
                "abstractmethod" in ast.unparse(d) for d in node.decorator_list
            ):
                raising -= {inner.lineno for inner in ast.walk(node) if isinstance(inner, ast.Raise)}
        found += [f"{name}:{line}" for line in sorted(raising)]
    assert found == []


def test_no_path_of_one_machine() -> None:
    names = [n for n in tracked() if n.endswith((*TEXT, ".json", ".txt")) or "." not in n.split("/")[-1]]
    found = [n for n in names if ABSOLUTE_PATH.search((ROOT / n).read_text(encoding="utf-8"))]
    assert found == []


def test_nothing_needs_a_folder_outside_the_repository() -> None:
    outside = re.compile(r"(?:\.\./|/ [\"'])" + "shared" + r"\b|\b" + "shared" + r"/data\b")
    names = [n for n in tracked() if n.endswith(TEXT) or "." not in n.split("/")[-1]]
    found = [n for n in names if outside.search((ROOT / n).read_text(encoding="utf-8"))]
    assert found == [], "use the variable SHARED_DATA (docs/guide/testing.md)"


def _anchors(name: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    found: set[str] = set()
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"#+ +(.*)", line):
            text = re.sub(r"\[([^]]*)]\([^)]*\)", r"\1", heading[1]).lower()
            found.add(re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-"))
    return found


@by_file(markdown())
def test_links_of_markdown_are_live(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for block in blocks(name):
        text = text.replace(block.text, "") if block.text else text
    dead = []
    for target in re.findall(r"(?<!`)\[[^]\n]*]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        if not place.exists():
            dead.append(target)
        elif anchor and place.suffix == ".md" and anchor not in _anchors(place.relative_to(ROOT).as_posix()):
            dead.append(target)
    assert dead == []


_PLAIN = {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "py.typed"}  # in every package; not worth a line


def _tree(name: str) -> dict[str, str]:
    """Paths of the block below the heading "The tree", relative to the file's folder, with their descriptions.

    A deeper indent is a level below; a folder ends with `/`; names of one folder may share a line, separated by commas;
    what follows two spaces is the description, and files of the same folder that it names count as listed.
    """
    text = (ROOT / name).read_text(encoding="utf-8")
    heading = re.search(r"^#+ .*\btree\b.*$", text, re.MULTILINE | re.IGNORECASE)
    assert heading, f"{name}: no heading with the word tree"
    after = text[: heading.end()].count("\n") + 1
    block = next((block for block in blocks(name) if block.line > after), None)
    assert block, f"{name}: no fenced block below its tree heading"
    found: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    for line in block.text.splitlines():
        if not line.strip():
            continue
        entry = re.match(r"( *)(\S+(?:, \S+)*)(?: {2,}(.*))?$", line)
        assert entry, f"{name}: not a line of a tree: {line!r}"
        indent = len(entry[1])
        parents = [(depth, path) for depth, path in parents if depth < indent]
        first, *others = entry[2].split(", ")
        path = (parents[-1][1] if parents else "") + first
        folder = path[: path.rstrip("/").rfind("/") + 1]
        found[path] = entry[3] or ""
        found |= {folder + other: entry[3] or "" for other in others}
        for mentioned in re.findall(r"[\w.-]+\.(?:py|rs|yaml|toml|md|css)\b", entry[3] or ""):
            if ((ROOT / name).parent / folder / mentioned).exists():
                found[folder + mentioned] = ""
        if path.endswith("/"):
            parents.append((indent, path))
    return found


@by_file(["README.md", *(f"{package.folder}/README.md" for package in PACKAGES)])
def test_tree_of_readme_is_the_real_one(name: str) -> None:
    folder = name.removesuffix("README.md")
    real = {n.removeprefix(folder) for n in tracked() if n.startswith(folder)}
    folders = {f"{parent}/" for n in real for parent in PurePosixPath(n).parents} - {"./"}
    listed = _tree(name)
    assert {path for path in listed if path not in real | folders} == set()
    opened = {""} | {str(PurePosixPath(path).parent) + "/" for path in listed} - {"./"}
    missing = set()
    for path in real | folders:
        parent = str(PurePosixPath(path).parent) + "/"
        own = PurePosixPath(path).name
        if (parent if parent != "./" else "") not in opened or own.startswith((".", "__init__")) or own in _PLAIN:
            continue
        if not any(one == path or one.startswith(path) for one in listed if path.endswith("/") or one == path):
            missing.add(path)
    assert missing == set()


class _Strict(yaml.SafeLoader):
    """Refuses a repeated key in a mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"{node.start_mark}: {twice} twice"
        return super().construct_mapping(node, deep)


@by_file([name for name in tracked() if name.endswith((".yaml", ".yml"))])
def test_yaml_is_read(name: str) -> None:
    documents = list(yaml.load_all((ROOT / name).read_text(encoding="utf-8"), _Strict))  # a subclass of SafeLoader
    assert documents
    assert all(document is not None for document in documents)


@by_package
def test_changelog_begins_with_the_version_and_its_formats(package: Package) -> None:
    text = (package.path / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## \[?(\d+\.\d+\.\d+)\]?.*\n+(.*)$", text, re.MULTILINE)
    assert releases
    assert releases[0][0] == package.version
    name = r"[a-z]+ \d+(?:-\d+)?"
    for _, line in releases:
        assert re.fullmatch(rf"Formats: writes {name}(?:, {name})*; reads {name}(?:, {name})*", line), line


@by_package
def test_package_describes_itself(package: Package) -> None:
    text = (package.path / "pyproject.toml").read_text(encoding="utf-8")
    assert 'license = "Apache-2.0"' in text
    assert 'requires-python = ">=3.11"' in text
    for file in ("README.md", "CHANGELOG.md", "tests"):
        assert (package.path / file).exists()


@pytest.mark.parametrize("exceptions", [NAMES_ALLOWED, SWALLOWED])
def test_exceptions_are_few_needed_and_explained(exceptions: dict[str, str]) -> None:
    assert len(exceptions) <= 5
    assert all((ROOT / name).exists() and reason for name, reason in exceptions.items())

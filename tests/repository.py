"""The repository for tests across packages: tracked files, packages, fenced blocks."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["PACKAGES", "ROOT", "Block", "Package", "blocks", "modules", "tracked"]

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Package:
    """One of the five packages: its folder and its import name."""

    folder: str
    import_name: str

    @property
    def path(self) -> Path:
        """The folder."""
        return ROOT / self.folder

    @property
    def source(self) -> Path:
        """The folder of the Python code."""
        return self.path / "src" / self.import_name

    @property
    def version(self) -> str:
        """The version in pyproject.toml, or in Cargo.toml if pyproject.toml takes it from there."""
        project = tomllib.loads((self.path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        if "version" in project.get("dynamic", []):
            cargo = tomllib.loads((self.path / "Cargo.toml").read_text(encoding="utf-8"))
            return str(cargo["workspace"]["package"]["version"])
        return str(project["version"])


PACKAGES = (
    Package("dolma-toolkit", "dolma"),
    Package("trainer", "olmo_trainer"),
    Package("catwalk-eval", "catwalk"),
    Package("paloma", "paloma"),
    Package("open-instruct", "open_instruct"),
)


@cache
def tracked() -> tuple[str, ...]:
    """Every existing file that git tracks, relative to the root; without git (an exported tree) every file."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        files = (p.relative_to(ROOT) for p in ROOT.rglob("*") if p.is_file())
        return tuple(
            sorted(p.as_posix() for p in files if not any(part.startswith((".", "__")) for part in p.parts[:-1]))
        )
    return tuple(sorted(name for name in done.stdout.decode().split("\0") if name and (ROOT / name).exists()))


@cache
def modules(folder: str) -> tuple[tuple[str, ast.Module], ...]:
    """The Python files below a folder, parsed."""
    names = [name for name in tracked() if name.startswith(f"{folder}/") and name.endswith(".py")]
    return tuple((name, ast.parse((ROOT / name).read_text(encoding="utf-8"), name)) for name in names)


@dataclass(frozen=True)
class Block:
    """A fenced block of a Markdown file: `info` is the text after the fence, `line` the fence's line number."""

    file: str
    line: int
    info: str
    text: str


def blocks(name: str) -> Iterator[Block]:
    """The fenced blocks of a file, in order."""
    fence, info, start = "", "", 0
    lines: list[str] = []
    for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").split("\n"), start=1):
        mark = re.match(r"\s*(```+|~~~+)(.*)", line)
        if not fence and mark:
            fence, info, start, lines = mark[1], mark[2].strip(), number, []
        elif fence and mark and mark[1].startswith(fence) and not mark[2].strip():
            yield Block(name, start, info, "\n".join(lines))
            fence = ""
        elif fence:
            lines.append(line)

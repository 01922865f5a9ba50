"""The chain of manifests from an artifact back to its source files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dolma.errors import FormatError
from dolma.formats import manifest
from dolma.formats.files import sha256_of

__all__ = ["lineage"]

SHOWN_SOURCES = 3


def lineage(path: Path, *, every_source: bool = False) -> Iterator[str]:
    """Lines of the tree, indented by two spaces a level.

    Raises:
        FormatError: an input is there and has another hash than the manifest says.
    """
    found = manifest.read(path)
    yield _line("artifact", path, found)
    yield from _inputs(found, 1, {found.identity}, every_source)


def _line(role: str, path: Path | str, found: manifest.Manifest) -> str:
    counts = " ".join(f"{name}={count}" for name, count in sorted(found.counts.items()))
    writer = found.fields.value["writer"]
    parts = [f"{role}: {found.format} {path}", counts, f"{writer['name']} {writer['version']}", found.identity[:12]]
    return "  ".join(part for part in parts if part)


def _inputs(found: manifest.Manifest, depth: int, seen: set[str], every_source: bool) -> Iterator[str]:
    indent = "  " * depth
    sources = 0
    for entry in found.inputs:
        role, name = entry["role"], entry["path"]
        path = found.directory / name
        if "manifest_sha256" in entry:
            yield from _artifact(entry, path, depth, seen, every_source)
            continue
        _check(path, entry["sha256"])
        if role == "source":
            sources += 1
            if sources > SHOWN_SOURCES and not every_source:
                continue
        yield f"{indent}{role}: {name}  {entry['size_bytes']} bytes  {entry['sha256'][:12]}"
    if sources > SHOWN_SOURCES and not every_source:
        yield f"{indent}source: and {sources - SHOWN_SOURCES} more (--all names them)"


def _artifact(entry: dict[str, Any], path: Path, depth: int, seen: set[str], every_source: bool) -> Iterator[str]:
    indent, role, wanted = "  " * depth, entry["role"], entry["manifest_sha256"]
    if not (path / manifest.FILE_NAME).is_file():
        yield f"{indent}{role}: {entry['path']}  not here  {wanted[:12]}"
        return
    _check(path / manifest.FILE_NAME, wanted)
    found = manifest.read(path)
    if wanted in seen:
        yield f"{indent}{role}: {found.format} {entry['path']}  {wanted[:12]} (above)"
        return
    seen.add(wanted)
    yield indent + _line(role, entry["path"], found)
    yield from _inputs(found, depth + 1, seen, every_source)


def _check(path: Path, wanted: str) -> None:
    if path.is_file() and (found := sha256_of(path)) != wanted:
        message = f"the sha256 is {found[:12]}…; expected {wanted[:12]}…, as the artifact made from it says"
        raise FormatError(str(path), None, None, "checksum_mismatch", message)

"""The chain of manifests from an artifact back to its source files: docs/formats/manifest.md, section Lineage."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import FormatError
from .json_lines import sha256_file
from .manifest import NAME, read_manifest

__all__ = ["lineage_lines"]

_SHOWN_SOURCES = 3
_DIGITS = 12


def lineage_lines(path: Path, *, show_all: bool = False) -> Iterator[str]:
    """Yield the lines of `lineage PATH`.

    Raises:
        FormatError: those of `read_manifest`; `checksum_mismatch` where an input has another hash than its reader saw.
    """
    seen: set[str] = set()
    yield from _walk(path, sha256_file(path / NAME) if (path / NAME).is_file() else "", "", 0, seen, show_all)


def _walk(path: Path, digest: str, role: str, depth: int, seen: set[str], show_all: bool) -> Iterator[str]:
    manifest = read_manifest(path)
    counts = ", ".join(f"{value} {name}" for name, value in sorted(manifest["counts"].items()))
    writer = f"{manifest['writer']['name']} {manifest['writer']['version']}"
    title = f"{'  ' * depth}{role + ': ' if role else ''}{manifest['format']}"
    line = "  ".join(part for part in (title, counts, writer, digest[:_DIGITS]) if part)
    if digest in seen:
        yield f"{line} (above)"
        return
    seen.add(digest)
    yield line
    sources = 0
    hidden = 0
    for entry in manifest["inputs"]:
        if "manifest_sha256" in entry:
            yield from _artifact(path, entry, depth + 1, seen, show_all)
            continue
        if entry["role"] == "source":
            sources += 1
            if sources > _SHOWN_SOURCES and not show_all:
                hidden += 1
                continue
        indent, digits = "  " * (depth + 1), entry["sha256"][:_DIGITS]
        yield f"{indent}{entry['role']}: {entry['path']}  {entry['size_bytes']} bytes  {digits}"
    if hidden:
        yield f"{'  ' * (depth + 1)}source: and {hidden} more"


def _artifact(path: Path, entry: dict[str, Any], depth: int, seen: set[str], show_all: bool) -> Iterator[str]:
    target = path / entry["path"]
    if not (target / NAME).is_file():
        digest = entry["manifest_sha256"][:_DIGITS]
        yield f"{'  ' * depth}{entry['role']}: {entry['path']}  {digest}  not here"
        return
    digest = sha256_file(target / NAME)
    if digest != entry["manifest_sha256"]:
        sentence = f"has the sha256 {digest[:_DIGITS]}…; expected {entry['manifest_sha256'][:_DIGITS]}…, as {path} says"
        raise FormatError("checksum_mismatch", target / NAME, sentence)
    yield from _walk(target, digest, entry["role"], depth, seen, show_all)

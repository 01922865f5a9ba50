"""The chain of manifests from an artifact back to its source files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paloma.formats.errors import FormatError
from paloma.formats.json_lines import sha256_file
from paloma.formats.manifest import MANIFEST, read_manifest

__all__ = ["lineage"]

_SOURCES_SHOWN = 3
_DIGITS = 12


def lineage(path: Path, *, every_source: bool = False) -> Iterator[str]:
    """Lines of the tree below an artifact.

    Raises:
        FormatError: `missing_file` without a manifest, `checksum_mismatch` where an input is there with another hash.
    """
    yield from _artifact(path, "", 0, set(), every_source)


def _artifact(path: Path, role: str, depth: int, seen: set[str], every_source: bool) -> Iterator[str]:
    manifest = read_manifest(path)
    digest = sha256_file(path / MANIFEST)
    writer = manifest["writer"]
    counts = ", ".join(f"{name} {number:,}" for name, number in sorted(manifest["counts"].items()))
    label = f"{role}: " if role else ""
    line = f"{'  ' * depth}{label}{manifest['format']} {digest[:_DIGITS]} by {writer['name']} {writer['version']}"
    if digest in seen:
        yield f"{line} (above)"
        return
    seen.add(digest)
    yield f"{line} ({counts})" if counts else line
    yield from _inputs(path, manifest["inputs"], depth + 1, seen, every_source)


def _inputs(path: Path, inputs: list[dict[str, Any]], depth: int, seen: set[str], every_source: bool) -> Iterator[str]:
    indent = "  " * depth
    sources = [entry for entry in inputs if entry["role"] == "source"]
    hidden = [] if every_source else sources[_SOURCES_SHOWN:]
    for entry in inputs:
        if entry in hidden:
            continue
        place, wanted = path / entry["path"], entry.get("manifest_sha256") or entry["sha256"]
        if "manifest_sha256" not in entry:
            yield f"{indent}{entry['role']}: {entry['path']} {wanted[:_DIGITS]} ({entry['size_bytes']:,} bytes)"
        elif not (place / MANIFEST).is_file():
            yield f"{indent}{entry['role']}: {entry['path']} {wanted[:_DIGITS]} not here"
        elif (found := sha256_file(place / MANIFEST)) != wanted:
            message = f"has the identity {found[:_DIGITS]}…; {path / MANIFEST} was made from {wanted[:_DIGITS]}…"
            raise FormatError("checksum_mismatch", place / MANIFEST, message, hint="the input was made anew since")
        else:
            yield from _artifact(place, entry["role"], depth, seen, every_source)
    if hidden:
        yield f"{indent}source: {len(hidden):,} more files"

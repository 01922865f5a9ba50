"""Walk from an artifact back to its source files over the hashes of manifests (docs/formats/manifest.md, Lineage)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .fields import mismatch
from .json_lines import sha256_file
from .manifest import MANIFEST, Manifest, read_manifest

__all__ = ["lineage"]

_SOURCES_SHOWN = 3


def _described(manifest: Manifest) -> str:
    counts = ", ".join(f"{value} {name}" for name, value in sorted(manifest.counts.items()))
    writer = f"{manifest.writer['name']} {manifest.writer['version']}"
    return f"{manifest.format} v{manifest.version} ({counts}) by {writer} {manifest.identity[:12]}"


def lineage(path: Path, *, every_source: bool = False) -> Iterator[str]:
    """Yield the lines of the chain, indented by depth.

    Raises: FormatError: `checksum_mismatch` for an input that is there with another hash.
    """
    manifest = read_manifest(path)
    yield _described(manifest)
    yield from _inputs(manifest, 1, {manifest.identity}, every_source)


def _inputs(manifest: Manifest, depth: int, seen: set[str], every_source: bool) -> Iterator[str]:
    indent, sources = "  " * depth, 0
    number_of_sources = sum("manifest_sha256" not in row and row["role"] == "source" for row in manifest.inputs)
    for row in manifest.inputs:
        place = manifest.directory / row["path"]
        if "manifest_sha256" not in row:
            sources += row["role"] == "source"
            if row["role"] == "source" and sources > _SOURCES_SHOWN and not every_source:
                if sources == number_of_sources:
                    yield f"{indent}source: … and {number_of_sources - _SOURCES_SHOWN} more"
                continue
            _check_file(row, place)
            yield f"{indent}{row['role']}: {row['path']} ({row['size_bytes']} bytes) {row['sha256'][:12]}"
            continue
        found = _manifest_at(place)
        if found is None:
            yield f"{indent}{row['role']}: {row['path']} {row['manifest_sha256'][:12]} not here"
            continue
        if found.identity != row["manifest_sha256"]:
            got, expected = f"sha256 {found.identity[:12]}…", f"{row['manifest_sha256'][:12]}…, as {manifest.path} says"
            raise mismatch(found.path, "checksum_mismatch", got, expected)
        again = found.identity in seen
        yield f"{indent}{row['role']}: {_described(found)}" + (" (above)" if again else "")
        if not again:
            seen.add(found.identity)
            yield from _inputs(found, depth + 1, seen, every_source)


def _manifest_at(place: Path) -> Manifest | None:
    path = place / MANIFEST if place.name != MANIFEST else place
    return read_manifest(path) if path.is_file() else None


def _check_file(row: dict[str, Any], place: Path) -> None:
    if place.is_file() and sha256_file(place) != row["sha256"]:
        expected = f"sha256 {row['sha256'][:12]}…"
        raise mismatch(place, "checksum_mismatch", "another file than was used", expected)

"""The chain of manifests from an artifact back to its source files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from catwalk.formats.errors import FormatError
from catwalk.formats.manifest import MANIFEST, manifest_sha256, read_manifest

__all__ = ["lineage"]

_SOURCES_SHOWN = 3  # docs/formats/manifest.md, "Lineage"


def lineage(directory: Path, *, show_all: bool = False) -> Iterator[str]:
    """Lines to print: the artifact, and indented below it each input, recursively, each artifact once.

    Raises:
        FormatError: `checksum_mismatch` when an input stands at its path with another hash.
    """
    yield from _artifact(directory, role="", depth=0, seen=set(), show_all=show_all)


def _artifact(directory: Path, *, role: str, depth: int, seen: set[str], show_all: bool) -> Iterator[str]:
    manifest, identity = read_manifest(directory), manifest_sha256(directory)
    counts = ", ".join(f"{value} {key}" for key, value in sorted(manifest["counts"].items()))
    writer = f"{manifest['writer']['name']} {manifest['writer']['version']}"
    what = " · ".join(part for part in (manifest["format"], counts, writer, identity[:12]) if part)
    label = f"{role}: " if role else ""
    if identity in seen:
        yield f"{'  ' * depth}{label}{what} (above)"
        return
    seen.add(identity)
    yield f"{'  ' * depth}{label}{what}"
    hidden = 0
    for number, entry in enumerate(_sources_last(manifest["inputs"])):
        if entry["role"] == "source" and not show_all and number >= _first_source(manifest["inputs"]) + _SOURCES_SHOWN:
            hidden += 1
            continue
        yield from _input(directory, entry, depth + 1, seen, show_all)
    if hidden:
        yield f"{'  ' * (depth + 1)}source: … and {hidden} more"


def _sources_last(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(inputs, key=lambda entry: bool(entry["role"] == "source"))


def _first_source(inputs: list[dict[str, Any]]) -> int:
    return sum(entry["role"] != "source" for entry in inputs)


def _input(directory: Path, entry: dict[str, Any], depth: int, seen: set[str], show_all: bool) -> Iterator[str]:
    indent = "  " * depth
    if "manifest_sha256" not in entry:
        yield f"{indent}{entry['role']}: {entry['path']} · {entry['size_bytes']} bytes · {entry['sha256'][:12]}"
        return
    path = directory / entry["path"]
    if not (path / MANIFEST).is_file():
        yield f"{indent}{entry['role']}: {entry['path']} · {entry['manifest_sha256'][:12]} · not here"
        return
    found = manifest_sha256(path)
    if found != entry["manifest_sha256"]:
        wanted = entry["manifest_sha256"][:12]
        message = f"the manifest's sha256 is {found[:12]}…; {directory / MANIFEST} was made from {wanted}…"
        raise FormatError("checksum_mismatch", path / MANIFEST, message, hint="make the later artifact again")
    yield from _artifact(path, role=entry["role"], depth=depth, seen=seen, show_all=show_all)

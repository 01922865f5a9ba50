"""The chain of manifests from an artifact back to its source files: docs/formats/manifest.md, *Lineage*.

Every Python package that reads the formats carries this file, byte for byte.
"""

from collections.abc import Iterator
from pathlib import Path

from .errors import FormatError
from .json_lines import sha256_file
from .manifest import MANIFEST, Manifest, read_manifest

__all__ = ["lineage"]

_SOURCES_SHOWN = 3


def lineage(path: Path, *, every_source: bool = False) -> Iterator[str]:
    """Yield the lines of the tree, two spaces a level, each artifact once.

    Raises:
        FormatError: `missing_file` without a manifest; `checksum_mismatch` for an input that has changed since.
    """
    manifest = read_manifest(path)
    yield _described(manifest)
    yield from _inputs(manifest, 1, {manifest.identity}, every_source)


def _described(manifest: Manifest, path: str = "") -> str:
    counts = " ".join(f"{name}={count}" for name, count in sorted(manifest.counts.items()))
    writer = f"{manifest.writer['name']} {manifest.writer['version']}"
    return "  ".join(filter(None, (f"{manifest.format} {path}".rstrip(), counts, writer, manifest.identity[:12])))


def _inputs(manifest: Manifest, depth: int, seen: set[str], every_source: bool) -> Iterator[str]:
    indent, sources = "  " * depth, 0
    for row in manifest.inputs:
        role, path = row["role"], manifest.directory / row["path"]
        if "manifest_sha256" in row:
            wanted = row["manifest_sha256"]
            if not (path / MANIFEST).is_file():
                yield f"{indent}{role}: {row['path']}  not here  {wanted[:12]}"
                continue
            _check(path / MANIFEST, wanted, manifest)
            found = read_manifest(path)
            again = found.identity in seen
            yield f"{indent}{role}: {_described(found, row['path'])}{' (above)' if again else ''}"
            if not again:
                seen.add(found.identity)
                yield from _inputs(found, depth + 1, seen, every_source)
            continue
        if path.is_file():
            _check(path, row["sha256"], manifest)
        sources += role == "source"
        if role != "source" or sources <= _SOURCES_SHOWN or every_source:
            yield f"{indent}{role}: {row['path']}  {row['size_bytes']} bytes  {row['sha256'][:12]}"
    if sources > _SOURCES_SHOWN and not every_source:
        yield f"{indent}source: {sources - _SOURCES_SHOWN} more (--all lists them)"


def _check(path: Path, wanted: str, manifest: Manifest) -> None:
    if (found := sha256_file(path)) != wanted:
        message = f"has the sha256 {found[:12]}…; expected {wanted[:12]}…, which {manifest.path} was made from"
        raise FormatError("checksum_mismatch", path, message, hint="create the later artifact again")

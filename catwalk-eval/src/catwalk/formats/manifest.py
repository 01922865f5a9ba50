"""manifest.json: what an artifact contains and what it was made from. Implements docs/formats/manifest.md, version 1.

Every Python package carries this file, byte for byte.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .contract import Fields, FormatError, canonical_json, read_object, row_files, sha256_file, write_file

__all__ = [
    "FORMATS",
    "MANIFEST",
    "Manifest",
    "artifact_files",
    "check_counts",
    "check_files",
    "describe_input",
    "find_manifest",
    "lineage",
    "read_manifest",
    "write_manifest",
]

MANIFEST = "manifest.json"
FORMATS = (
    *("document", "attributes", "tokens", "packed", "megatron", "checkpoint", "results", "chat", "preference"),
    *("tokenizer", "filter", "table", "report"),  # files and lineage only
)
_VERSION = 1  # of every format so far


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A checked manifest, field by field."""

    directory: Path
    identity: str
    """sha256 of the file, which names the artifact"""
    format: str
    version: int
    writer: dict[str, str]
    config: dict[str, Any]
    counts: dict[str, int]
    details: dict[str, Any]
    files: list[dict[str, Any]]
    inputs: list[dict[str, Any]]

    @property
    def path(self) -> Path:
        """The file."""
        return self.directory / MANIFEST

    def fields(self, name: str) -> Fields:
        """`counts`, `details` or `config`, to read typed fields from."""
        return Fields(getattr(self, name), self.path, prefix=name)

    def head(self) -> dict[str, Any]:
        """What `dump manifest` prints."""
        return {name: getattr(self, name) for name in ("format", "version", "counts", "details", "files", "inputs")}


_FIELDS = tuple(name for name in Manifest.__dataclass_fields__ if name not in ("directory", "identity"))


# ---- reading


def read_manifest(path: Path, wanted: str | None = None) -> Manifest:
    """Read `manifest.json`, given the file or its directory, and check its fields; not the files that it lists.

    Raises:
        FormatError: `missing_file`; `unknown_format` if it is not `wanted`; `unsupported_version`; and of its fields.
    """
    path = path / MANIFEST if path.is_dir() else path
    manifest = Fields(read_object(path), path)
    for name in manifest.value:
        if name not in _FIELDS:
            raise manifest.error("invalid_value", name, f"is not a field of a manifest; expected {', '.join(_FIELDS)}")
    format = manifest.string("format")
    if format not in FORMATS or (wanted is not None and format != wanted):
        raise manifest.error("unknown_format", "format", f'is "{format}"; expected {wanted or "a known format"}')
    version = manifest.integer("version", minimum=1)
    if version > _VERSION:
        hint = "upgrade this package"
        raise manifest.error("unsupported_version", "version", f"is {version}; expected 1 to {_VERSION}", hint)
    writer = manifest.object("writer")
    writer.string("name")
    writer.string("version")
    manifest.object("config")
    counts = manifest.object("counts")
    for name in counts.value:
        counts.integer(name)
    manifest.object("details")
    _check_file_rows(manifest)
    _check_inputs(manifest)
    return Manifest(directory=path.parent, identity=sha256_file(path), **manifest.value)


def find_manifest(path: Path, wanted: str) -> Manifest | None:
    """The manifest of an artifact; None for a single file and for a directory that another tool wrote."""
    return read_manifest(path, wanted) if (path / MANIFEST).is_file() else None


def _check_file_rows(manifest: Fields) -> None:
    previous = ""
    for row in manifest.objects("files"):
        name = row.string("path")
        if not name or PurePosixPath(name).is_absolute() or "\\" in name or ".." in name.split("/"):
            raise row.error("unsafe_path", "path", f'is "{name}"; expected a path below the artifact')
        if name <= previous:
            raise row.error("invalid_value", "path", f'is "{name}" after "{previous}"; expected sorted paths')
        previous = name
        row.integer("size_bytes")
        row.hash("sha256")


def _check_inputs(manifest: Fields) -> None:
    previous = ("", "")
    for row in manifest.objects("inputs"):
        key = (row.string("role", not_empty=True), row.string("path", not_empty=True))
        if key < previous:
            raise row.error("invalid_value", "path", f'is "{key[1]}"; expected inputs sorted by role and path')
        previous = key
        if "sha256" in row.value:
            row.hash("sha256")
            row.integer("size_bytes")
        else:
            row.hash("manifest_sha256")


def check_files(manifest: Manifest, *, checksums: bool) -> Iterator[FormatError]:
    """Yield what is wrong with the listed files: `missing_file`, `wrong_size`, `checksum_mismatch`."""
    hint = "copy or create the artifact again"
    for row in manifest.files:
        path = manifest.directory / row["path"]
        if not path.is_file():
            yield FormatError("missing_file", path, f"not found, but {MANIFEST} lists it; expected a file", hint=hint)
        elif (size_bytes := path.stat().st_size) != row["size_bytes"]:
            message = f"has {size_bytes} bytes; expected {row['size_bytes']}"
            yield FormatError("wrong_size", path, message, hint=hint)
        elif checksums and (found := sha256_file(path)) != row["sha256"]:
            message = f"has the sha256 {found[:12]}…; expected {row['sha256'][:12]}…"
            yield FormatError("checksum_mismatch", path, message, hint=hint)


def check_counts(manifest: Manifest, counted: Mapping[str, int]) -> Iterator[FormatError]:
    """Yield an error for each count that differs from the content's."""
    counts = manifest.fields("counts")
    for name, number in counted.items():
        if (stated := counts.integer(name)) != number:
            yield counts.error("invalid_value", name, f"is {stated}; expected {number}, as the files have")


def artifact_files(path: Path, wanted: str) -> list[Path]:
    """The files of rows of an artifact, in the contract's order: those of its manifest, or all below it.

    Raises:
        FormatError: of the manifest, its files (sizes only) and `row_files`.
    """
    manifest = find_manifest(path, wanted)
    if manifest is None:
        return row_files(path)
    for error in check_files(manifest, checksums=False):
        raise error
    return row_files(path, [row["path"] for row in manifest.files])


# ---- writing


def describe_input(role: str, path: Path, artifact: Path) -> list[dict[str, Any]]:
    """The rows of `inputs` for one input of the artifact at a directory: by its manifest, or file by file."""
    relative = Path(os.path.relpath(path.resolve(), artifact.resolve())).as_posix()
    if (path / MANIFEST).is_file():
        return [{"role": role, "path": relative, "manifest_sha256": sha256_file(path / MANIFEST)}]
    if path.is_file():
        return [{"role": role, "path": relative, "sha256": sha256_file(path), "size_bytes": path.stat().st_size}]
    files = [file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")]
    return [row for file in files for row in describe_input(role, file, artifact)]


def write_manifest(
    directory: Path,
    *,
    format: str,
    writer: Mapping[str, str],
    files: Iterable[Path],
    config: Mapping[str, Any],
    counts: Mapping[str, int],
    details: Mapping[str, Any],
    inputs: Iterable[Mapping[str, Any]],
) -> str:
    """Write `manifest.json` after the artifact's files; returns its sha256. `writer` is `{"name", "version"}`."""
    rows = [
        {"path": file.relative_to(directory).as_posix(), "size_bytes": file.stat().st_size, "sha256": sha256_file(file)}
        for file in files
    ]
    value = {
        "format": format,
        "version": _VERSION,
        "writer": writer,
        "config": config,
        "counts": counts,
        "details": details,
        "files": sorted(rows, key=lambda row: str(row["path"])),
        "inputs": sorted(inputs, key=lambda row: (row["role"], row["path"])),
    }
    data = canonical_json(value).encode()
    write_file(directory / MANIFEST, data)
    return hashlib.sha256(data).hexdigest()


# ---- lineage


_SOURCES_SHOWN = 3


def lineage(path: Path, *, every_source: bool = False) -> Iterator[str]:
    """Yield the lines of the tree, two spaces per level, each artifact once.

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

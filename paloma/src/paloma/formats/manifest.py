"""docs/formats/manifest.md, version 1: what an artifact holds and what it was made from."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from paloma.formats.errors import FormatError
from paloma.formats.fields import Fields
from paloma.formats.json_lines import atomic_file, canonical_json, read_object, sha256_file

__all__ = [
    "MANIFEST",
    "check_counts",
    "check_files",
    "describe_input",
    "dump",
    "read_manifest",
    "write_manifest",
]

MANIFEST = "manifest.json"
_VERSION = 1
_FORMATS = ("document", "attributes", "tokens", "packed", "megatron", "checkpoint", "results", "chat", "preference")
_FORMATS_WITHOUT_PAGE = ("tokenizer", "filter", "table", "report")
_FIELDS = ("format", "version", "writer", "config", "counts", "details", "files", "inputs")


def read_manifest(directory: Path, wanted: str | None = None) -> dict[str, Any]:
    """The manifest of a directory, its fields checked; `check_files` looks at the files.

    Raises:
        FormatError: at `manifest.json`; `unknown_format` where it is not `wanted` (none: any known one).
    """
    path = directory / MANIFEST
    manifest = Fields(read_object(path), path)
    manifest.one_of("format", [wanted] if wanted else [*_FORMATS, *_FORMATS_WITHOUT_PAGE], "unknown_format")
    version = manifest.integer("version", minimum=1)
    if version > _VERSION:
        message = f'"version" is {version}; expected 1 to {_VERSION}, which this release reads'
        raise FormatError("unsupported_version", path, message, field="version", hint="upgrade paloma-eval")
    writer = manifest.object("writer")
    writer.text("name")
    writer.text("version")
    manifest.object("config")
    counts = manifest.object("counts")
    for name in counts.value:
        counts.integer(name)
    manifest.object("details")
    _check_entries(manifest)
    for name in manifest.value:
        if name not in _FIELDS:
            raise manifest.error("invalid_value", name, "no field of a manifest", "only " + ", ".join(_FIELDS))
    return manifest.value


def _check_entries(manifest: Fields) -> None:
    previous: str | None = None
    for entry in manifest.objects("files"):
        name = entry.text("path", not_empty=True)
        if PurePosixPath(name).is_absolute() or ".." in name.split("/") or "\\" in name:
            raise entry.error("unsafe_path", "path", f'"{name}"', "a path within the artifact")
        if previous is not None and name <= previous:
            raise entry.error("invalid_value", "path", f'"{name}" after "{previous}"', "sorted paths, each once")
        previous = name
        entry.integer("size_bytes")
        entry.hash("sha256")
    last = ("", "")
    for entry in manifest.objects("inputs"):
        key = (entry.text("role", not_empty=True), entry.text("path", not_empty=True))
        if key < last:
            raise entry.error("invalid_value", "path", f'"{key[1]}"', "inputs sorted by role and path")
        last = key
        if "sha256" in entry.value:
            entry.hash("sha256")
            entry.integer("size_bytes")
        else:
            entry.hash("manifest_sha256")


def check_files(directory: Path, manifest: dict[str, Any], *, hashes: bool) -> Iterator[FormatError]:
    """What is wrong with the listed files: absent, of another size, with `hashes` also of another sha256."""
    for entry in manifest["files"]:
        path = directory / entry["path"]
        if not path.is_file():
            yield FormatError("missing_file", path, f"not found; {MANIFEST} lists it")
        elif (size_bytes := path.stat().st_size) != entry["size_bytes"]:
            yield FormatError("wrong_size", path, f"is {size_bytes} bytes long; expected {entry['size_bytes']}")
        elif hashes and (digest := sha256_file(path)) != entry["sha256"]:
            yield FormatError(
                "checksum_mismatch", path, f"has the sha256 {digest[:12]}…; expected {entry['sha256'][:12]}…"
            )


def check_counts(directory: Path, manifest: dict[str, Any], counted: dict[str, int]) -> Iterator[FormatError]:
    """Where the manifest counts otherwise than its content."""
    fields = Fields(manifest, directory / MANIFEST).object("counts")
    for name, number in counted.items():
        if fields.integer(name) != number:
            yield fields.error("invalid_value", name, str(fields.value[name]), f"{number}, as the files have it")


def describe_input(role: str, path: Path, directory: Path) -> list[dict[str, Any]]:
    """Entries of `inputs` for one input of the artifact in `directory`: by its manifest, else file by file."""
    relative = Path(os.path.relpath(path.resolve(), directory.resolve())).as_posix()
    if path.is_dir() and (path / MANIFEST).is_file():
        return [{"role": role, "path": relative, "manifest_sha256": sha256_file(path / MANIFEST)}]
    if path.is_file():
        return [{"role": role, "path": relative, "sha256": sha256_file(path), "size_bytes": path.stat().st_size}]
    files = [p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")]
    return [entry for file in files for entry in describe_input(role, file, directory)]


def write_manifest(
    directory: Path,
    *,
    format: str,
    files: Iterable[Path],
    config: dict[str, Any],
    counts: dict[str, int],
    details: dict[str, Any],
    inputs: list[dict[str, Any]],
    version: str,
) -> None:
    """Write `manifest.json`, after all files of the artifact; `version` is this package's."""
    entries = [
        {
            "path": path.relative_to(directory).as_posix(),
            "size_bytes": path.stat().st_size,
            "sha256": sha256_file(path),
        }
        for path in files
    ]
    manifest = {
        "format": format,
        "version": _VERSION,
        "writer": {"name": "paloma-eval", "version": version},
        "config": config,
        "counts": counts,
        "details": details,
        "files": sorted(entries, key=lambda entry: str(entry["path"])),
        "inputs": sorted(inputs, key=lambda entry: (entry["role"], entry["path"])),
    }
    with atomic_file(directory / MANIFEST) as file:
        file.write(canonical_json(manifest).encode())


def dump(path: Path) -> Iterator[dict[str, Any]]:
    """The one line that `dump manifest` prints."""
    manifest = read_manifest(path if path.is_dir() else path.parent)
    yield {name: manifest[name] for name in ("format", "version", "counts", "details", "files", "inputs")}

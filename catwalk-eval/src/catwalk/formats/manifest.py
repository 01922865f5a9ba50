"""docs/formats/manifest.md, version 1: what an artifact holds and what it was made from."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from catwalk.formats.errors import FormatError
from catwalk.formats.fields import Record
from catwalk.formats.json_lines import atomic_file, canonical_json, read_object, sha256_file

__all__ = [
    "FORMATS",
    "MANIFEST",
    "check_files",
    "describe_input",
    "manifest_sha256",
    "read_manifest",
    "write_manifest",
]

MANIFEST = "manifest.json"
FORMATS = (
    *("manifest", "document", "attributes", "tokens", "packed", "megatron"),
    *("checkpoint", "results", "chat", "preference"),
    *("tokenizer", "filter", "table", "report"),
)
_VERSION = 1
_FIELDS = ("format", "version", "writer", "config", "counts", "details", "files", "inputs")


def manifest_sha256(directory: Path) -> str:
    """The artifact's identity: the sha256 of its manifest's bytes."""
    return sha256_file(directory / MANIFEST)


def read_manifest(directory: Path, expected_format: str | None = None) -> dict[str, Any]:
    """The manifest of an artifact directory, every field checked (files are checked by `check_files`).

    Raises:
        FormatError: at `manifest.json`, with the codes of the contract.
    """
    path = directory / MANIFEST
    value = read_object(path)
    record = Record(value=value, path=path)
    for key in _FIELDS:
        record.get(key)
    for key in value:
        if key not in _FIELDS:
            raise record.error("invalid_value", key, "is not a field of a manifest; expected no other fields")
    name = record.text("format")
    allowed = FORMATS if expected_format is None else (expected_format,)
    if name not in allowed:
        raise record.error("unknown_format", "format", f'is "{name}"; expected {" or ".join(allowed)}')
    version = record.integer("version", minimum=1)
    if version > _VERSION:
        raise record.error("unsupported_version", "version", f"is {version}; this reader reads 1 to {_VERSION}")
    writer = record.record("writer")
    writer.text("name")
    writer.text("version")
    record.record("config")
    record.record("details")
    counts = record.record("counts")
    for key in counts.value:
        counts.integer(key)
    _check_file_entries(record)
    _check_inputs(record)
    return value


def _check_file_entries(record: Record) -> None:
    previous = ""
    for entry in record.records("files"):
        name = entry.text("path", empty=False)
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\\" in name:
            raise entry.error("unsafe_path", "path", f'is "{name}"; expected a path within the artifact')
        if name <= previous:
            raise entry.error("invalid_value", "path", f'is "{name}" after "{previous}"; expected sorted paths')
        previous = name
        entry.integer("size_bytes")
        entry.hash("sha256")


def _check_inputs(record: Record) -> None:
    previous = ("", "")
    for entry in record.records("inputs"):
        key = (entry.text("role", empty=False), entry.text("path", empty=False))
        if key < previous:
            raise entry.error("invalid_value", "path", "is out of order; expected inputs sorted by role and path")
        previous = key
        if "sha256" in entry.value:
            entry.hash("sha256")
            entry.integer("size_bytes")
        else:
            entry.hash("manifest_sha256")


def check_files(directory: Path, manifest: dict[str, Any], *, hashes: bool) -> None:
    """Every listed file is there with its size and, when asked for, its sha256."""
    for entry in manifest["files"]:
        path = directory / entry["path"]
        if not path.is_file():
            raise FormatError("missing_file", path, f"the file is absent; {MANIFEST} lists it")
        size_bytes = path.stat().st_size
        if size_bytes != entry["size_bytes"]:
            message = f"the file has {size_bytes} bytes; {MANIFEST} says {entry['size_bytes']}"
            raise FormatError("wrong_size", path, message, hint="copy or make the artifact again")
        if hashes and (digest := sha256_file(path)) != entry["sha256"]:
            message = f"the file's sha256 is {digest[:12]}…; {MANIFEST} says {entry['sha256'][:12]}…"
            raise FormatError("checksum_mismatch", path, message, hint="copy or make the artifact again")


def describe_input(role: str, path: Path, directory: Path) -> list[dict[str, Any]]:
    """Manifest entries for one input: an artifact by its manifest, a plain file or directory file by file."""
    relative = Path(os.path.relpath(path.resolve(), directory.resolve())).as_posix()
    if (path / MANIFEST).is_file():
        return [{"role": role, "path": relative, "manifest_sha256": manifest_sha256(path)}]
    if path.is_file():
        return [{"role": role, "path": relative, "sha256": sha256_file(path), "size_bytes": path.stat().st_size}]
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return [entry for file in files for entry in describe_input(role, file, directory)]


def write_manifest(
    directory: Path,
    *,
    format: str,
    writer: tuple[str, str],
    files: Iterable[Path],
    config: dict[str, Any],
    counts: dict[str, int],
    details: dict[str, Any],
    inputs: list[dict[str, Any]],
) -> str:
    """Write `manifest.json`, last of an artifact; gives its sha256. `writer` is (distribution, version)."""
    entries = [
        {
            "path": file.relative_to(directory).as_posix(),
            "size_bytes": file.stat().st_size,
            "sha256": sha256_file(file),
        }
        for file in files
    ]
    value: dict[str, Any] = {
        "format": format,
        "version": _VERSION,
        "writer": {"name": writer[0], "version": writer[1]},
        "config": config,
        "counts": counts,
        "details": details,
        "files": sorted(entries, key=lambda entry: entry["path"]),
        "inputs": sorted(inputs, key=lambda entry: (entry["role"], entry["path"])),
    }
    content = canonical_json(value).encode()
    with atomic_file(directory / MANIFEST) as stream:
        stream.write(content)
    return hashlib.sha256(content).hexdigest()

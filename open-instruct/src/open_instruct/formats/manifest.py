"""The manifest of an artifact: read, check, write. Implements docs/formats/manifest.md v1."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from . import json_lines
from .errors import FormatError
from .json_lines import canonical_json, read_object, sha256_file, type_name
from .rows import require

__all__ = [
    "FORMATS",
    "NAME",
    "check_files",
    "file_entry",
    "input_entries",
    "read_manifest",
    "row_files",
    "write_manifest",
]

NAME = "manifest.json"
_SPECIFIED = ("document", "attributes", "tokens", "packed", "megatron", "checkpoint", "results", "chat", "preference")
_LINEAGE_ONLY = ("tokenizer", "filter", "table", "report")
# format -> newest version that is read
FORMATS = dict.fromkeys((*_SPECIFIED, *_LINEAGE_ONLY), 1)
_FIELDS: dict[str, type] = {
    "format": str,
    "version": int,
    "writer": dict,
    "config": dict,
    "counts": dict,
    "details": dict,
    "files": list,
    "inputs": list,
}
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _check_hash(entry: dict[str, Any], key: str, path: Path, prefix: str) -> None:
    value = require(entry, key, str, path, prefix=prefix)
    if not _SHA256.fullmatch(value):
        raise FormatError(
            "invalid_value",
            path,
            f'"{prefix}{key}" is "{value}"; expected 64 lower-case hex digits',
            field=prefix + key,
        )


def _check_object(value: object, path: Path, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError("wrong_type", path, f'"{field}" is {type_name(value)}; expected an object', field=field)
    return value


def _check_size(entry: dict[str, Any], path: Path, prefix: str) -> None:
    if require(entry, "size_bytes", int, path, prefix=prefix) < 0:
        field = prefix + "size_bytes"
        raise FormatError("invalid_value", path, f'"{field}" is below 0; expected a size', field=field)


def _check_sorted(keys: Sequence[Any], path: Path, field: str, last: str) -> None:
    for position in range(1, len(keys)):
        if not keys[position - 1] < keys[position] and (field == "files" or keys[position - 1] != keys[position]):
            name = f"{field}.{position}.{last}"
            raise FormatError("invalid_value", path, f'"{name}" is out of order; expected sorted entries', field=name)


def read_manifest(directory: Path, wanted: str | None = None) -> dict[str, Any]:
    """Read `directory/manifest.json` and check its own fields, not the files that it lists.

    Raises:
        FormatError: `missing_file`, `not_json`, `not_object`, `unknown_format` (also when it is not `wanted`),
            `unsupported_version`, `missing_field`, `wrong_type`, `invalid_value`, `unsafe_path`.
    """
    path = directory / NAME
    value = read_object(path)
    name = require(value, "format", str, path)
    if name not in FORMATS or (wanted is not None and name != wanted):
        expected = f'"{wanted}"' if wanted else "a format of docs/formats"
        raise FormatError("unknown_format", path, f'"format" is "{name}"; expected {expected}', field="format")
    version = require(value, "version", int, path)
    if version < 1:
        raise FormatError("invalid_value", path, f'"version" is {version}; expected 1', field="version")
    if version > FORMATS[name]:
        raise FormatError("unsupported_version", path, f'"version" is {version}; expected 1', field="version")
    for field, expected_type in _FIELDS.items():
        require(value, field, expected_type, path)
    for field in sorted(set(value) - set(_FIELDS)):
        raise FormatError("invalid_value", path, f'"{field}" is not a field of a manifest; expected none', field=field)
    for field in ("name", "version"):
        require(value["writer"], field, str, path, prefix="writer.")
    for field in value["counts"]:
        require(value["counts"], field, int, path, prefix="counts.")
    _check_entries(value, path)
    return value


def _check_entries(value: dict[str, Any], path: Path) -> None:
    for position, entry in enumerate(value["files"]):
        prefix = f"files.{position}."
        _check_object(entry, path, prefix.rstrip("."))
        relative = require(entry, "path", str, path, prefix=prefix)
        if not relative or relative.startswith("/") or "\\" in relative or ".." in PurePosixPath(relative).parts:
            sentence = f'"{prefix}path" is "{relative}"; expected a relative path within the artifact'
            raise FormatError("unsafe_path", path, sentence, field=prefix + "path")
        _check_size(entry, path, prefix)
        _check_hash(entry, "sha256", path, prefix)
    _check_sorted([entry["path"] for entry in value["files"]], path, "files", "path")
    for position, entry in enumerate(value["inputs"]):
        prefix = f"inputs.{position}."
        _check_object(entry, path, prefix.rstrip("."))
        require(entry, "role", str, path, prefix=prefix)
        require(entry, "path", str, path, prefix=prefix)
        if "sha256" in entry:
            _check_hash(entry, "sha256", path, prefix)
            _check_size(entry, path, prefix)
        else:
            _check_hash(entry, "manifest_sha256", path, prefix)
    _check_sorted([(entry["role"], entry["path"]) for entry in value["inputs"]], path, "inputs", "path")


def check_files(directory: Path, manifest: dict[str, Any], *, hashes: bool) -> None:
    """Check that every listed file is there with its size and, with `hashes`, its sha256.

    Raises:
        FormatError: `missing_file`, `wrong_size`, `checksum_mismatch`.
    """
    for entry in manifest["files"]:
        path = directory / entry["path"]
        if not path.is_file():
            raise FormatError("missing_file", path, "not found; expected a file that the manifest lists")
        size_bytes = path.stat().st_size
        if size_bytes != entry["size_bytes"]:
            raise FormatError("wrong_size", path, f"has {size_bytes} bytes; expected {entry['size_bytes']}")
        if hashes and sha256_file(path) != entry["sha256"]:
            raise FormatError("checksum_mismatch", path, "has another sha256; expected the manifest's")


def row_files(path: Path, wanted: str) -> list[Path]:
    """List the files of rows at `path` (a file, or a directory with or without a manifest) in the contract's order.

    Raises:
        FormatError: as `read_manifest`, `check_files` and `json_lines.row_files`.
    """
    if not (path / NAME).is_file():
        return json_lines.row_files(path)
    manifest = read_manifest(path, wanted)
    check_files(path, manifest, hashes=False)
    return json_lines.row_files(path, [entry["path"] for entry in manifest["files"]])


def file_entry(path: Path, name: str) -> dict[str, Any]:
    """Describe one file for a manifest under the relative `name`."""
    return {"path": name, "size_bytes": path.stat().st_size, "sha256": sha256_file(path)}


def input_entries(role: str, path: Path, artifact: Path) -> list[dict[str, Any]]:
    """Name an input, relative to the directory `artifact`: by its manifest, or file by file where it has none."""

    def hint(file: Path) -> str:
        return Path(os.path.relpath(file.resolve(), artifact.resolve())).as_posix()

    if path.is_dir() and (path / NAME).is_file():
        return [{"role": role, "path": hint(path), "manifest_sha256": sha256_file(path / NAME)}]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
    else:
        files = [path]
    return [file_entry(file, hint(file)) | {"role": role} for file in files]


def write_manifest(
    directory: Path,
    *,
    format_name: str,
    writer: Mapping[str, str],
    config: Mapping[str, Any],
    counts: Mapping[str, int],
    details: Mapping[str, Any],
    files: Sequence[str],
    inputs: Sequence[Mapping[str, Any]],
) -> str:
    """Hash `files` and write `manifest.json` last, by renaming; return its sha256, the identity of the artifact."""
    value = {
        "format": format_name,
        "version": 1,
        "writer": dict(writer),
        "config": dict(config),
        "counts": dict(counts),
        "details": dict(details),
        "files": [file_entry(directory / name, name) for name in sorted(files)],
        "inputs": sorted((dict(entry) for entry in inputs), key=lambda entry: (entry["role"], entry["path"])),
    }
    temporary = directory / f".{NAME}.partial"
    with temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(canonical_json(value))
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(directory / NAME)
    return sha256_file(directory / NAME)

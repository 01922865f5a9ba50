"""manifest.json: what an artifact directory holds and what it was made from. Implements docs/formats/manifest.md v1."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .fields import field_of, mismatch, shown
from .files import write_atomically
from .json_lines import read_object, sha256_file

__all__ = [
    "FORMAT_NAMES",
    "MANIFEST",
    "VERSION",
    "Manifest",
    "canonical",
    "check_files",
    "read_manifest",
    "write_manifest",
]

MANIFEST = "manifest.json"
VERSION = 1
FORMAT_NAMES = (
    "attributes chat checkpoint document filter manifest megatron packed preference report results table"
    " tokenizer tokens".split()
)
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_FIELDS = ("format", "version", "writer", "config", "counts", "details", "files", "inputs")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A checked manifest. `identity` is the sha256 of the file itself, which names the artifact."""

    path: Path
    identity: str
    format: str
    version: int
    writer: dict[str, str]
    config: dict[str, Any]
    counts: dict[str, int]
    details: dict[str, Any]
    files: list[dict[str, Any]]
    inputs: list[dict[str, Any]]

    @property
    def directory(self) -> Path:
        """The artifact's directory."""
        return self.path.parent


def canonical(value: Any) -> bytes:
    """The one byte form of a JSON value that manifests are written in."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def _hash_field(row: dict[str, Any], name: str, path: Path, prefix: str) -> str:
    value: str = field_of(row, name, "a string", path, prefix=prefix)
    if not _HASH.match(value):
        expected = "64 lower-case hexadecimal digits"
        raise mismatch(path, "invalid_value", shown(value), expected, field=prefix + name)
    return value


def _size_field(row: dict[str, Any], path: Path, prefix: str) -> int:
    value: int = field_of(row, "size_bytes", "an integer", path, prefix=prefix)
    if value < 0:
        raise mismatch(path, "invalid_value", shown(value), "0 or more", field=f"{prefix}size_bytes")
    return value


def _check_file_rows(files: list[Any], path: Path) -> None:
    previous: str | None = None
    for index, row in enumerate(files):
        prefix = f"files.{index}."
        if not isinstance(row, dict):
            raise mismatch(path, "wrong_type", shown(row), "an object", field=prefix[:-1])
        name = field_of(row, "path", "a string", path, prefix=prefix)
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0]:
            expected = "a path below the artifact's directory"
            raise mismatch(path, "unsafe_path", shown(name), expected, field=f"{prefix}path")
        if previous is not None and name <= previous:
            expected = f'a path sorted after "{previous}"'
            raise mismatch(path, "invalid_value", shown(name), expected, field=f"{prefix}path")
        previous = name
        _hash_field(row, "sha256", path, prefix)
        _size_field(row, path, prefix)


def _check_inputs(inputs: list[Any], path: Path) -> None:
    for index, row in enumerate(inputs):
        prefix = f"inputs.{index}."
        if not isinstance(row, dict):
            raise mismatch(path, "wrong_type", shown(row), "an object", field=prefix[:-1])
        for name in ("role", "path"):
            field_of(row, name, "a string", path, prefix=prefix)
        if "manifest_sha256" in row:
            _hash_field(row, "manifest_sha256", path, prefix)
        elif "sha256" in row:
            _hash_field(row, "sha256", path, prefix)
            _size_field(row, path, prefix)
        else:
            field = f"{prefix}manifest_sha256"
            raise mismatch(path, "missing_field", "missing", "the sha256 of what was used", field=field)


def read_manifest(path: Path, *, wanted: str | None = None, newest: int = VERSION) -> Manifest:
    """Read and check `manifest.json`, given the file or its directory; the listed files are not looked at.

    `wanted` is the format that the caller reads and `newest` the newest version of it that it understands.
    Raises: FormatError.
    """
    path = path / MANIFEST if path.is_dir() else path
    row = read_object(path)
    texts = {"format": "a string", "version": "an integer"}
    objects = dict.fromkeys(("writer", "config", "counts", "details"), "an object")
    for name, kind in {**texts, **objects, "files": "an array", "inputs": "an array"}.items():
        field_of(row, name, kind, path)
    if row["format"] not in FORMAT_NAMES:
        raise mismatch(path, "unknown_format", shown(row["format"]), "a known format", field="format")
    if wanted is not None and row["format"] != wanted:
        raise mismatch(path, "unknown_format", shown(row["format"]), f'"{wanted}"', field="format")
    if row["version"] < 1:
        raise mismatch(path, "invalid_value", shown(row["version"]), "1 or more", field="version")
    if row["version"] > newest:
        got = f"version {row['version']} of {row['format']}"
        raise mismatch(path, "unsupported_version", got, f"versions 1 to {newest}", field="version")
    for name in row:
        if name not in _FIELDS:
            expected = f"only {', '.join(_FIELDS)}"
            raise mismatch(path, "invalid_value", "an unknown field", expected, field=name)
    for name in ("name", "version"):
        field_of(row["writer"], name, "a string", path, prefix="writer.")
    for name in row["counts"]:
        field_of(row["counts"], name, "an integer", path, prefix="counts.")
    _check_file_rows(row["files"], path)
    _check_inputs(row["inputs"], path)
    identity = hashlib.sha256(path.read_bytes()).hexdigest()
    return Manifest(path=path, identity=identity, **{name: row[name] for name in _FIELDS})


def check_files(manifest: Manifest, *, checksums: bool) -> None:
    """Check that every listed file is there with the listed size and, if asked, the listed sha256.

    Raises: FormatError: `missing_file`, `wrong_size`, `checksum_mismatch`.
    """
    for row in manifest.files:
        path = manifest.directory / row["path"]
        if not path.is_file():
            raise mismatch(path, "missing_file", "missing", f"the file that {manifest.path} lists")
        size_bytes = path.stat().st_size
        if size_bytes != row["size_bytes"]:
            raise mismatch(path, "wrong_size", f"{size_bytes} bytes long", f"{row['size_bytes']} bytes")
        if checksums and (found := sha256_file(path)) != row["sha256"]:
            raise mismatch(
                path, "checksum_mismatch", f"damaged (sha256 {found[:12]}…)", f"sha256 {row['sha256'][:12]}…"
            )


def write_manifest(
    directory: Path,
    *,
    format: str,
    writer: dict[str, str],
    config: dict[str, Any],
    counts: dict[str, int],
    details: dict[str, Any],
    inputs: list[dict[str, Any]],
) -> str:
    """Hash every file below `directory` and write `manifest.json` last; returns its sha256, the artifact's identity."""
    files = []
    for path in directory.rglob("*"):
        if path.is_file() and path.name != MANIFEST:
            name = path.relative_to(directory).as_posix()
            files.append({"path": name, "size_bytes": path.stat().st_size, "sha256": sha256_file(path)})
    data = canonical(
        {
            "format": format,
            "version": VERSION,
            "writer": writer,
            "config": config,
            "counts": counts,
            "details": details,
            "files": sorted(files, key=lambda row: str(row["path"])),
            "inputs": sorted(inputs, key=lambda row: (row["role"], row["path"])),
        }
    )
    write_atomically(directory / MANIFEST, data)
    return hashlib.sha256(data).hexdigest()

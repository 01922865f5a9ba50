"""``manifest.json``: docs/formats/manifest.md, version 1."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dolma.errors import FormatError
from dolma.formats.fields import Fields
from dolma.formats.files import parse_object, sha256_of

__all__ = [
    "FILE_NAME",
    "FORMATS",
    "Manifest",
    "canonical_bytes",
    "check_counts",
    "check_files",
    "read",
    "read_optional",
]

FILE_NAME = "manifest.json"
FORMATS = (
    "attributes chat checkpoint document filter manifest megatron packed preference"
    " report results table tokenizer tokens"
).split()
NEWEST = 1
_FIELDS = ("config", "counts", "details", "files", "format", "inputs", "version", "writer")


@dataclass(frozen=True)
class Manifest:
    """A checked manifest; ``identity`` is the sha256 of its bytes."""

    directory: Path
    identity: str
    fields: Fields

    @property
    def format(self) -> str:
        """The page that it follows."""
        return str(self.fields.value["format"])

    @property
    def version(self) -> int:
        """Of that page."""
        return int(self.fields.value["version"])

    @property
    def counts(self) -> dict[str, int]:
        """What the artifact holds."""
        return dict(self.fields.value["counts"])

    @property
    def details(self) -> Fields:
        """What the format's page asks for."""
        return self.fields.object("details")

    @property
    def paths(self) -> list[str]:
        """Of the listed files."""
        return [entry["path"] for entry in self.fields.value["files"]]

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """What it was made from."""
        return list(self.fields.value["inputs"])


def canonical_bytes(value: object) -> bytes:
    """The one byte sequence of a manifest."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


def read(directory: Path, wanted: str | None = None) -> Manifest:
    """Reads the manifest of a directory (or the file itself); the listed files are not looked at.

    Raises:
        FormatError: ``missing_file`` where there is none; ``unknown_format`` unless it is ``wanted``; and so on.
    """
    path = directory / FILE_NAME if directory.is_dir() else directory
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FormatError(str(path), None, None, "missing_file", "there is no manifest; expected one") from None
    fields = Fields(parse_object(data, str(path)), str(path))
    name = fields.string("format")
    if name not in FORMATS or (wanted is not None and name != wanted):
        expected = f'"{wanted}"' if wanted else f"one of {', '.join(FORMATS)}"
        raise fields.error("format", "unknown_format", f'is "{name}"; expected {expected}')
    version = fields.integer("version", 1)
    if version > NEWEST:
        raise fields.error("version", "unsupported_version", f"is {version}; expected 1 to {NEWEST}")
    _check(fields)
    return Manifest(path.parent, hashlib.sha256(data).hexdigest(), fields)


def read_optional(path: Path, wanted: str) -> Manifest | None:
    """The manifest of an artifact, or None where it has none (or ``path`` is a single file of it)."""
    return read(path, wanted) if path.is_dir() and (path / FILE_NAME).exists() else None


def _check(fields: Fields) -> None:
    for name in ("writer", "config", "counts", "details", "files", "inputs"):
        fields.get(name)
    for name in fields.value:
        if name not in _FIELDS:
            raise fields.error(name, "invalid_value", f"is no field of a manifest; expected {', '.join(_FIELDS)}")
    writer = fields.object("writer")
    writer.string("name")
    writer.string("version")
    fields.object("config")
    counts = fields.object("counts")
    for name in counts.value:
        counts.integer(name)
    fields.object("details")
    last: str | None = None
    for entry in fields.objects("files"):
        path = entry.string("path")
        if not path or path.startswith("/") or "\\" in path or ".." in path.split("/"):
            raise entry.error("path", "unsafe_path", f'is "{path}"; expected a path below the artifact')
        if last is not None and path <= last:
            raise entry.error("path", "invalid_value", f'is "{path}" after "{last}"; expected paths sorted, each once')
        last = path
        entry.integer("size_bytes")
        entry.hash("sha256")
    for entry in fields.objects("inputs"):
        entry.string("role")
        entry.string("path")
        if "manifest_sha256" in entry.value:
            entry.hash("manifest_sha256")
        elif "sha256" in entry.value:
            entry.hash("sha256")
            entry.integer("size_bytes")
        else:
            entry.get("manifest_sha256", "the hash of what was used")


def check_files(manifest: Manifest) -> Iterator[FormatError]:
    """Every listed file that is missing or has other content."""
    for entry in manifest.fields.value["files"]:
        path = manifest.directory / entry["path"]

        def fail(code: str, message: str, path: Path = path) -> FormatError:
            return FormatError(str(path), None, None, code, message)

        if not path.is_file():
            yield fail("missing_file", "file not found; expected it because the manifest lists it")
        elif (size_bytes := path.stat().st_size) != entry["size_bytes"]:
            yield fail("wrong_size", f"the file has {size_bytes} bytes; expected {entry['size_bytes']}")
        elif (found := sha256_of(path)) != entry["sha256"]:
            yield fail("checksum_mismatch", f"the sha256 is {found[:12]}…; expected {entry['sha256'][:12]}…")


def check_counts(manifest: Manifest, counts: dict[str, int]) -> Iterator[FormatError]:
    """Every count that is not the content's."""
    stated = manifest.fields.object("counts")
    for name, found in counts.items():
        try:
            value = stated.integer(name)
        except FormatError as error:
            yield error
            continue
        if value != found:
            yield stated.error(name, "invalid_value", f"is {value}; expected {found}, what the files hold")

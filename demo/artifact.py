"""Artifacts of the demo's own steps: write files and then a manifest (docs/formats/manifest.md); read documents."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

WRITER = {"name": "demo", "version": "0.1.0"}


def file_hash(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Artifact:
    """A directory being written; it is complete once `finish` has written the manifest."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.directory = directory
        self.kind = kind
        self.inputs: list[dict] = []
        directory.mkdir(parents=True, exist_ok=True)

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write one file, under a temporary name first."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_bytes(data)
        os.replace(temporary, path)

    def write_lines(self, name: str, rows: Iterable[dict]) -> None:
        """Write rows as JSON lines; `.gz` files have no time stamp, so equal rows give equal bytes."""
        data = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows).encode()
        self.write_bytes(name, gzip.compress(data, mtime=0) if name.endswith(".gz") else data)

    def add_input(self, role: str, path: str, sha256: str, size_bytes: int) -> None:
        """Record an input file that is not an artifact."""
        self.inputs.append({"role": role, "path": path, "sha256": sha256, "size_bytes": size_bytes})

    def add_artifact(self, role: str, directory: Path) -> None:
        """Record an input that is an artifact, by the hash of its manifest."""
        relative = os.path.relpath(directory, self.directory).replace(os.sep, "/")
        self.inputs.append({"role": role, "path": relative, "manifest_sha256": file_hash(directory / "manifest.json")})

    def finish(self, *, config: dict, counts: dict, details: dict | None = None) -> None:
        """Write the manifest of all files in the directory."""
        files = [
            {
                "path": path.relative_to(self.directory).as_posix(),
                "size_bytes": path.stat().st_size,
                "sha256": file_hash(path),
            }
            for path in self.directory.rglob("*")
            if path.is_file() and path.name != "manifest.json"
        ]
        manifest = {
            "format": self.kind,
            "version": 1,
            "writer": WRITER,
            "config": config,
            "counts": counts,
            "details": details or {},
            "files": sorted(files, key=lambda file: file["path"]),
            "inputs": sorted(self.inputs, key=lambda item: (item["role"], item["path"])),
        }
        text = json.dumps(manifest, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
        self.write_bytes("manifest.json", text.encode())


def read_documents(path: Path) -> Iterator[dict]:
    """Yield the rows of one file of documents (docs/formats/document.md).

    Raises ValueError: `path:line: …` for a row that is not a document.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: not JSON ({error})") from error
            for field in ("id", "text"):
                if not isinstance(row, dict) or not isinstance(row.get(field), str):
                    raise ValueError(f'{path}:{number}: "{field}" is missing or not a string; expected a document')
            yield row


def read_directory(directory: Path) -> Iterator[dict]:
    """Yield the rows of every document file that the directory's manifest lists, in the order of the paths."""
    manifest = json.loads((directory / "manifest.json").read_text("utf-8"))
    for file in manifest["files"]:
        if file["path"].endswith((".jsonl", ".jsonl.gz", ".json.gz")):
            yield from read_documents(directory / file["path"])

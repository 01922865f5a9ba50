"""Artifacts of the demo's own steps: files under temporary names, then a manifest (docs/formats/manifest.md), last."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

WRITER = {"name": "demo", "version": "0.1.0"}


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Artifact:
    """A directory being written; it counts only once `finish` has written the manifest."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.directory = directory
        self.kind = kind
        self.inputs: list[dict] = []
        directory.mkdir(parents=True, exist_ok=True)

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write one file whole, or not at all."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_bytes(data)
        os.replace(temporary, path)

    def write_lines(self, name: str, rows: Iterable[dict]) -> None:
        """Write rows as JSON lines; a name in `.gz` is compressed without a time stamp: equal rows, equal bytes."""
        data = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows).encode()
        self.write_bytes(name, gzip.compress(data, mtime=0) if name.endswith(".gz") else data)

    def add_input(self, role: str, path: str, sha256: str, size_bytes: int) -> None:
        """Name an input file that is not an artifact."""
        self.inputs.append({"role": role, "path": path, "sha256": sha256, "size_bytes": size_bytes})

    def add_artifact(self, role: str, directory: Path) -> None:
        """Name an input that is an artifact, by the hash of its manifest."""
        relative = os.path.relpath(directory, self.directory).replace(os.sep, "/")
        self.inputs.append({"role": role, "path": relative, "manifest_sha256": file_hash(directory / "manifest.json")})

    def finish(self, *, config: dict, counts: dict, details: dict | None = None) -> None:
        """Write the manifest over everything in the directory."""
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

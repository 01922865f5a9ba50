"""Documents on disk and what can be read off an artifact, for the tests."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Result:
    """What a command gave."""

    code: int
    out: str
    err: str


Dolma = Callable[..., Result]


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Rows as JSON lines, packed where the name ends in ``.gz``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """JSON lines of a file, unpacked where the name ends in ``.gz``."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.splitlines()]


def find_shared_data() -> Path:
    """The directory that ``SHARED_DATA`` names; without the variable the test is skipped."""
    if "SHARED_DATA" not in os.environ:
        pytest.skip("needs real data: set SHARED_DATA (docs/guide/testing.md)")
    return Path(os.environ["SHARED_DATA"])


def artifact_hashes(directory: Path) -> dict[str, str]:
    """sha256 of the manifest and of every file that it lists; the files are what it says."""
    manifest = directory / "manifest.json"
    found = {"manifest.json": hashlib.sha256(manifest.read_bytes()).hexdigest()}
    for entry in json.loads(manifest.read_text("utf-8"))["files"]:
        found[entry["path"]] = hashlib.sha256((directory / entry["path"]).read_bytes()).hexdigest()
        assert found[entry["path"]] == entry["sha256"]
    return found


WORDS = "the of and to in river stone paper light música 東京 naïve 😀 don't x=1; #tag".split()


def make_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Documents of different lengths, some with white space at the ends, some empty, all reproducible."""
    rows = []
    for number in range(start, start + count):
        words = [WORDS[(number * 7 + k * k) % len(WORDS)] for k in range(number % 40)]
        text = " ".join(words).replace("stone paper", "stone\npaper")
        rows.append({"id": f"d,{number}", "text": f"  {text}\n" if number % 5 == 0 else text, "source": "made"})
    return rows

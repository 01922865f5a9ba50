"""The vectors on disk, for tests: cases, their rows and objects."""

import bz2
import gzip
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

__all__ = ["FORMATS_FOLDER", "VectorCase", "cases", "json_lines", "read_bytes"]

FORMATS_FOLDER = Path(__file__).parent.parent / "docs" / "formats"
_ROW_NAMES = (".json", ".jsonl")


@dataclass(frozen=True)
class VectorCase:
    """One case folder of `docs/formats/vectors`."""

    format: str
    folder: Path

    @property
    def data(self) -> Path:
        """The artifact."""
        return self.folder / "data"

    @property
    def name(self) -> str:
        """`format/case`, for test ids."""
        return f"{self.format}/{self.folder.name}"

    def load(self, name: str, default: Any = None) -> Any:
        """A JSON file next to the artifact."""
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default

    def row_files(self) -> list[Path]:
        """Files of rows, in order; empty for formats whose files are objects or binary."""
        if self.format not in ("document", "attributes", "chat", "preference"):
            return []
        found = [p for p in self.data.rglob("*") if p.is_file() and p.name != "manifest.json"]
        return sorted(found, key=lambda path: path.relative_to(self.data).as_posix())


def cases(kind: str, *formats: str) -> list[VectorCase]:
    """All cases of a kind (`valid`, `invalid`), of all formats or those named."""
    found = sorted((FORMATS_FOLDER / "vectors").glob(f"*/v1/{kind}/*"))
    every = [VectorCase(path.parts[-4], path) for path in found]
    return [case for case in every if not formats or case.format in formats]


def read_bytes(path: Path) -> bytes:
    """Content of a file, decompressed as its last extension says."""
    content = path.read_bytes()
    match path.suffix:
        case ".gz":
            return gzip.decompress(content)
        case ".zst":
            return zstandard.ZstdDecompressor().decompress(content)
        case ".bz2":
            return bz2.decompress(content)
        case ".xz":
            return lzma.decompress(content)
    return content


def json_lines(path: Path) -> Iterator[Any]:
    """Every line of a file of rows as a value."""
    for line in read_bytes(path).decode().split("\n"):
        if line:
            yield json.loads(line)

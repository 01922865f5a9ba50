"""The parts of a vector: files, the rows that a reader dumps, the error of an invalid one.

The vectors are written from values in these modules, never with a package's own reader or writer. So a wrong reader
cannot confirm itself.
"""

import bz2
import gzip
import hashlib
import json
import lzma
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import zstandard

__all__ = [
    "ASTRAL",
    "Case",
    "canonical_line",
    "compress",
    "gz",
    "head",
    "invalid",
    "json_lines",
    "manifest",
    "pretty",
    "sha256",
]

# two-, three- and four-byte characters, a joined emoji, an ideograph of plane 2
ASTRAL = "Grüße aus 東京: 😀👩‍🚀 \U00020000 fin"

_WRITER = {"name": "vectors", "version": "1.0.0"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One vector: `data` by relative path, with the dump of a valid case or the `expect` of an invalid one."""

    name: str
    data: dict[str, bytes]
    dump: list[dict[str, Any]] | None = None
    expect: dict[str, Any] | None = None
    arguments: list[str] = field(default_factory=list)
    extra: dict[str, bytes] = field(default_factory=dict)

    def files(self) -> dict[str, bytes]:
        """All files of the case's folder."""
        files = {f"data/{path}": content for path, content in self.data.items()} | self.extra
        if self.dump is not None:
            files["dump.jsonl"] = "".join(canonical_line(row) for row in self.dump).encode()
        if self.expect is not None:
            files["expect.json"] = canonical_line(self.expect).encode()
        if self.arguments:
            files["arguments.json"] = canonical_line(self.arguments).encode()
        return files


def invalid(
    name: str,
    data: dict[str, bytes],
    code: str,
    path: str,
    line: int | None = None,
    field: str | None = None,
    **more: Any,
) -> Case:
    """An invalid case and where it breaks."""
    return Case(name=name, data=data, expect={"code": code, "path": path, "line": line, "field": field}, **more)


def canonical_line(value: Any) -> str:
    """One line of a dump: sorted keys, no spaces, no ASCII escapes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"


def pretty(value: Any) -> bytes:
    """Canonical bytes of a file with one object."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


def json_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    """JSON lines with the keys in the order of the rows, as a foreign writer may leave them."""
    return b"".join((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in rows)


def gz(content: bytes) -> bytes:
    """Gzip without time or name."""
    return gzip.compress(content, compresslevel=9, mtime=0)


def compress(content: bytes, extension: str) -> bytes:
    """The compression that the extension names."""
    match extension:
        case "gz":
            return gz(content)
        case "zst":
            return zstandard.ZstdCompressor(level=3).compress(content)
        case "bz2":
            return bz2.compress(content)
        case "xz":
            return lzma.compress(content)
    raise ValueError(f'unknown compression "{extension}"')


def sha256(content: bytes) -> str:
    """Hexadecimal sha256."""
    return hashlib.sha256(content).hexdigest()


def head(format: str, counts: dict[str, int], **more: Any) -> dict[str, Any]:
    """The first line of a dump."""
    return {"format": format, "version": 1, "counts": counts} | more


def manifest(
    format: str,
    data: dict[str, bytes],
    counts: dict[str, int],
    *,
    details: dict[str, Any] | None = None,
    inputs: list[dict[str, Any]] | None = None,
    config: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A manifest of `data` as an object; `changes` replace fields (or add them) afterwards, to break one.

    Besides the counts of the format's page it has one more, which a writer may add and only the manifest's dump shows.
    """
    return {
        "format": format,
        "version": 1,
        "writer": _WRITER,
        "config": config or {},
        "counts": counts if format in ("filter", "report", "table") else counts | {"files": len(data)},
        "details": details or {},
        "files": [{"path": p, "size_bytes": len(c), "sha256": sha256(c)} for p, c in sorted(data.items())],
        "inputs": inputs or [],
    } | changes

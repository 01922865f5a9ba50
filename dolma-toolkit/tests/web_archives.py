"""Archives that tests make."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

from backports import zstd

PARAGRAPHS = [
    "The harbour was quiet in the early morning, and the fishing boats lay side by side along the old stone wall.",
    "A woman in a blue coat walked slowly past the market, where the first sellers were putting out bread and apples.",
    "Nobody in the town could remember when the lighthouse had been built, but everyone knew the name of its keeper.",
]


def page(number: int = 0, *, head: str = "", extra: str = "") -> str:
    """A page with main content that names its number."""
    text = "".join(f"<p>{paragraph} This is page {number}.</p>" for paragraph in PARAGRAPHS)
    return f"<html><head><title>Page {number}</title>{head}</head><body><article>{text}</article>{extra}</body></html>"


def response(content: bytes | str, *headers: str, status: str = "200 OK", mime_type: str = "text/html") -> bytes:
    """An HTTP response; its content type has no charset."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {mime_type}", "Date: Sun, 16 Feb 2014 05:02:20 GMT", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + (content.encode() if isinstance(content, str) else content)


def record(block: bytes, number: int = 0, *, kind: str = "response", length: int = -1, **headers: str) -> bytes:
    """A WARC record; ``length`` in place of the true one."""
    fields = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{number:032d}>",
        "WARC-Date": "2014-02-16T05:02:21Z",
        "WARC-Target-URI": f"http://www.example.com/{number}/",
        "Content-Type": "application/http; msgtype=response",
        "Content-Length": str(length if length >= 0 else len(block)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"WARC/1.0\r\n{head}\r\n".encode() + block + b"\r\n\r\n"


def pages(count: int, first: int = 0) -> list[bytes]:
    """Records of as many pages."""
    return [record(response(page(number)), number) for number in range(first, first + count)]


def write_gzip(path: Path, records: list[bytes]) -> Path:
    """A member for each record, as archives are packed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(gzip.compress(record, mtime=0) for record in records))
    return path


def write_zstd(path: Path, records: list[bytes], *, packed_dictionary: bool) -> Path:
    """A frame for each record, after a frame with the dictionary that all need."""
    dictionary = zstd.train_dict(pages(200, 1000), 4096)
    content = dictionary.dict_content
    stored = zstd.compress(content) if packed_dictionary else content
    frames = [zstd.compress(record, zstd_dict=dictionary) for record in records]
    path.write_bytes(struct.pack("<II", 0x184D2A5D, len(stored)) + stored + b"".join(frames))
    return path


def texts(path: Path) -> list[dict[str, Any]]:
    """The documents of a file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]

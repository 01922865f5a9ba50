"""JSON and JSON lines: decoding with error codes, every compression, deterministic and atomic writing."""

import bz2
import gzip
import hashlib
import json
import lzma
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from catwalk.formats.errors import FormatError
from catwalk.formats.fields import type_name

__all__ = [
    "DATA_SUFFIXES",
    "atomic_file",
    "canonical_json",
    "canonical_line",
    "decode_object",
    "files_below",
    "is_data_file",
    "is_foreign_file",
    "read_lines",
    "read_object",
    "read_rows",
    "sha256_file",
    "write_jsonl_gz",
]

_COMPRESSIONS = ("", ".gz", ".zst", ".bz2", ".xz")
DATA_SUFFIXES = tuple(f".{kind}{compression}" for kind in ("jsonl", "json") for compression in _COMPRESSIONS)
_SIDE_FILES = ("manifest.json", "metrics.jsonl", "errors.jsonl", "skipped.jsonl", "funnel.json")  # what tools add
_FOREIGN_SUFFIXES = (".br", ".lz4", ".sz", ".snappy", ".7z", ".zip", ".parquet")
_READ_BYTES = 1 << 20
_MAGIC = {
    b"\xef\xbb\xbf": "the text begins with a byte-order mark (BOM)",
    b"\xff\xfe": "the text is UTF-16, by its byte-order mark",
    b"\xfe\xff": "the text is UTF-16, by its byte-order mark",
    b"\x1f\x8b": "the bytes are gzip's, under a name without .gz",
    b"\x28\xb5\x2f\xfd": "the bytes are zstd's, under a name without .zst",
    b"BZh": "the bytes are bzip2's, under a name without .bz2",
    b"\xfd7zXZ": "the bytes are xz's, under a name without .xz",
    b"PAR1": "the bytes are Parquet's",
}
_MAGIC_HINT = "save it as UTF-8 without a mark, or give the file the suffix of its compression"
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def is_data_file(path: Path) -> bool:
    """Whether a file of a directory holds rows, by its name. Side files (`.progress.jsonl`) do not."""
    own = path.name in _SIDE_FILES or path.name.startswith(".")
    return path.name.endswith(DATA_SUFFIXES) and not own


def is_foreign_file(path: Path) -> bool:
    """Whether a file looks like rows in a form that this reader does not take: Parquet, brotli and so on."""
    return path.suffix == ".parquet" or (path.suffix in _FOREIGN_SUFFIXES and path.stem.endswith(DATA_SUFFIXES))


def files_below(root: Path) -> list[Path]:
    """Every file below a directory, sorted. Links to directories are followed, each directory once: loops end."""
    waiting, seen, files = [root], set(), []
    while waiting:
        for place, folders, names in os.walk(waiting.pop(0)):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            real = os.path.realpath(place)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            waiting += [Path(place, name) for name in folders if Path(place, name).is_symlink()]
            files += [Path(place, name) for name in names if Path(place, name).is_file()]
    return sorted(files, key=lambda file: file.relative_to(root).as_posix())


def sha256_file(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _open_bytes(path: Path) -> BinaryIO:
    match path.suffix:
        case ".gz":
            return cast(BinaryIO, gzip.open(path, "rb"))
        case ".bz2":
            return cast(BinaryIO, bz2.open(path, "rb"))
        case ".xz":
            return cast(BinaryIO, lzma.open(path, "rb"))
    return path.open("rb")


def _chunks(path: Path) -> Iterator[bytes]:
    """Uncompressed bytes; an early end of the compressed stream raises `truncated`."""
    if path.suffix in _FOREIGN_SUFFIXES:
        message = f"{path.suffix} files are not read; expected JSON lines, plain or as {', '.join(_COMPRESSIONS[1:])}"
        raise FormatError("not_json", path, message, hint="convert the file")
    try:
        if path.suffix == ".zst":
            yield from _zstandard_chunks(path)
            return
        with _open_bytes(path) as stream:
            while chunk := stream.read(_READ_BYTES):
                yield chunk
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if isinstance(error, EOFError):
            message = "the compressed data end early; expected a complete file"
            raise FormatError("truncated", path, message, hint="copy or make the file again") from error
        message = f"the compressed data are damaged ({error}); expected a complete file"
        raise FormatError("truncated", path, message, hint="copy or make the file again") from error


def _zstandard_chunks(path: Path) -> Iterator[bytes]:
    """Frame by frame: the library's stream reader ends silently in the middle of a frame."""
    import zstandard  # rarely needed: only when such a file is met

    frame = None
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_READ_BYTES):
                while chunk:
                    frame = frame or zstandard.ZstdDecompressor().decompressobj()
                    yield frame.decompress(chunk)
                    chunk = frame.unused_data
                    frame = None if frame.eof else frame
    except zstandard.ZstdError as error:
        raise lzma.LZMAError(str(error)) from error
    if frame is not None:
        raise EOFError


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines without their newline, numbered from 1.

    Raises:
        FormatError: `truncated` when compressed data end early; no line of the cut end is given out before.
    """
    number, rest = 0, b""
    for chunk in _chunks(path):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        for line in lines:
            number += 1
            yield number, line
    if rest:
        yield number + 1, rest


def decode_object(content: bytes, path: Path, line: int | None = None) -> dict[str, Any]:
    """One JSON object.

    Raises:
        FormatError: `not_json` (also bytes that are not UTF-8, lone surrogates, NaN), `not_object`.
    """
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        cause, hint = _why_not_json(content, error)
        raise FormatError("not_json", path, f"{cause}; expected one JSON object", line=line, hint=hint) from error
    if not isinstance(value, dict):
        raise FormatError("not_object", path, f"the JSON is {type_name(value)}; expected an object", line=line)
    return value


def _why_not_json(content: bytes, error: Exception) -> tuple[str, str | None]:
    """What stands there instead of JSON, and what to do about it."""
    for magic, name in _MAGIC.items():
        if content.startswith(magic):
            return name, _MAGIC_HINT
    try:
        text = content.decode()
    except UnicodeDecodeError as problem:
        byte = content[problem.start]
        return f"the text is not UTF-8 (byte 0x{byte:02X} at {problem.start})", "convert it: iconv -f LATIN1 -t UTF-8"
    if not text.strip():
        return "the line is blank", "remove it"
    constants: list[str] = []
    try:
        json.loads(text, parse_constant=constants.append)
    except (ValueError, RecursionError):
        return f"the text is not JSON ({error})", None
    if constants:
        return f"the text holds {constants[0]}, which JSON has not", "leave the field out, or write null"
    if _LONE_SURROGATE.search(text):
        return "the text holds a lone surrogate (\\ud800 and the like: half a character)", "replace it by U+FFFD"
    return f"the text is not JSON ({error})", None


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON lines file with their line numbers."""
    for number, line in read_lines(path):
        yield number, decode_object(line, path, number)


def read_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file; `missing_file` if it does not exist."""
    if not path.is_file():
        raise FormatError("missing_file", path, "the file is absent; expected a JSON file")
    return decode_object(path.read_bytes(), path)


def canonical_json(value: Any) -> str:
    """A file that holds one object: sorted keys, indent 2, no ASCII escapes, one final newline."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def canonical_line(value: Any) -> str:
    """One row: sorted keys, no spaces, no ASCII escapes, with its newline."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Write to a temporary name beside `path` and rename it at the end; nothing is left behind on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_jsonl_gz(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Rows as canonical lines, compressed without time and name: equal rows give equal bytes."""
    with (
        atomic_file(path) as stream,
        gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=6, mtime=0) as packed,
    ):
        for row in rows:
            packed.write(canonical_line(row).encode())

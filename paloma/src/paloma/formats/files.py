"""Files as the contract has them: JSON lines, compressed by extension, written whole or not at all."""

import bz2
import contextlib
import gzip
import hashlib
import io
import json
import lzma
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import zstandard

from paloma.formats.errors import FormatError

__all__ = [
    "atomic_file",
    "canonical_line",
    "gzip_writer",
    "json_value",
    "pretty",
    "read_object",
    "row_files",
    "rows",
    "sha256_file",
]

_COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
_ROW_SUFFIXES = (".json", ".jsonl")
_CHUNK_BYTES = 1 << 20


class _ZstdFrames(io.RawIOBase):
    """Decompressed bytes of one or more zstd frames; unlike `stream_reader` it notices a frame that ends early."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder: Any = None
        self._pending = b""
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._pending or self._file.read(_CHUNK_BYTES)
            self._pending = b""
            if not data:
                if self._decoder is not None:
                    raise EOFError("the last frame has no end")
                return 0
            if self._decoder is None:
                self._decoder = zstandard.ZstdDecompressor().decompressobj()
            self._ready = self._decoder.decompress(data)
            if self._decoder.eof:
                self._pending = self._decoder.unused_data
                self._decoder = None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _open(path: Path) -> IO[bytes] | gzip.GzipFile | io.BufferedReader:
    match path.suffix:
        case ".gz":
            return gzip.open(path, "rb")
        case ".bz2":
            return bz2.open(path, "rb")
        case ".xz":
            return lzma.open(path, "rb")
        case ".zst":
            return io.BufferedReader(_ZstdFrames(path.open("rb")), _CHUNK_BYTES)
    return path.open("rb")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1; what cannot be decompressed to its end is `truncated`."""
    try:
        with _open(path) as file:
            yield from enumerate(file, start=1)
    except FileNotFoundError:
        raise FormatError("missing_file", path, "is not there") from None
    except (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, gzip.BadGzipFile) as error:
        message = f"ends early or is damaged ({error}); expected a whole {path.suffix} file"
        raise FormatError("truncated", path, message, hint="copy or make the file again") from None
    except OSError as error:
        if error.errno is not None:  # a real input/output error; bz2 raises OSError without a number for damaged data
            raise
        raise FormatError("truncated", path, f"is damaged ({error})", hint="copy or make the file again") from None


def json_value(data: bytes, path: Path, line: int | None = None) -> Any:
    """One JSON value.

    Raises:
        FormatError: `not_json`, also for bytes that are not UTF-8 and for a blank line.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        got = "a blank line" if not data.strip() else f"not JSON ({error})"
        raise FormatError("not_json", path, f"is {got}; expected one JSON object", line=line) from None


def rows(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines of a file of rows with their numbers from 1, undecoded.

    Raises:
        FormatError: `truncated`, `missing_file`.
    """
    for line, data in _lines(path):
        yield line, data.rstrip(b"\n")


def read_object(path: Path) -> dict[str, Any]:
    """A file that is one JSON object.

    Raises:
        FormatError: `missing_file`, `not_json`, `not_object`.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FormatError("missing_file", path, "is not there") from None
    value = json_value(data, path)
    if not isinstance(value, dict):
        raise FormatError("not_object", path, f"is {type(value).__name__}; expected an object")
    return value


def row_files(path: Path, listed: list[str] | None = None) -> list[Path]:
    """Files of rows in the contract's order: those `listed`, or all below a directory, or the file itself."""
    if path.is_file():
        return [path]
    if listed is not None:
        names = [name for name in listed if _holds_rows(name)]
    else:
        found = (p.relative_to(path) for p in path.rglob("*") if p.is_file())
        names = [p.as_posix() for p in found if not any(part.startswith(".") for part in p.parts)]
        names = [name for name in names if _holds_rows(name)]
    return [path / name for name in sorted(names)]


def _holds_rows(name: str) -> bool:
    for suffix in _COMPRESSIONS:
        name = name.removesuffix(suffix)
    return name.endswith(_ROW_SUFFIXES) and Path(name).name != "manifest.json"


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that has its name only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def gzip_writer(path: Path) -> Iterator[gzip.GzipFile]:
    """As `atomic_file`, compressed, with neither time nor name in the header."""
    with atomic_file(path) as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as compressed:
        yield compressed


def canonical_line(value: Any) -> str:
    """One line of a dump: sorted keys, no spaces, no ASCII escapes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"


def pretty(value: Any) -> bytes:
    """Canonical bytes of a file that is one object."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def sha256_file(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

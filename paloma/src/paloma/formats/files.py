"""Files as the contract has them: JSON lines, compressed by extension, written whole or not at all."""

import bz2
import contextlib
import gzip
import hashlib
import io
import json
import lzma
import os
import re
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
_FOREIGN_SUFFIXES = (".br", ".lz4", ".sz", ".snappy", ".7z", ".zip", ".parquet")
_SIDE_FILES = ("manifest.json", "metrics.jsonl", "errors.jsonl", "skipped.jsonl", "funnel.json")  # what tools add
_CHUNK_BYTES = 1 << 20
_MAGIC = {
    b"\xef\xbb\xbf": "begins with a byte-order mark (BOM)",
    b"\xff\xfe": "is UTF-16, by its byte-order mark",
    b"\xfe\xff": "is UTF-16, by its byte-order mark",
    b"\x1f\x8b": "holds gzip's bytes, under a name without .gz",
    b"\x28\xb5\x2f\xfd": "holds zstd's bytes, under a name without .zst",
    b"BZh": "holds bzip2's bytes, under a name without .bz2",
    b"\xfd7zXZ": "holds xz's bytes, under a name without .xz",
    b"PAR1": "holds Parquet's bytes",
}
_MAGIC_HINT = "save it as UTF-8 without a mark, or give the file the suffix of its compression"
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


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
    if path.suffix in _FOREIGN_SUFFIXES:
        message = f"{path.suffix} files are not read; expected JSON lines, plain or as {', '.join(_COMPRESSIONS)}"
        raise FormatError("not_json", path, message, hint="convert the file")
    try:
        with _open(path) as file:
            yield from enumerate(file, start=1)
    except FileNotFoundError:
        raise FormatError("missing_file", path, "not found") from None
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
        got, hint = _why_not_json(data, error)
        raise FormatError("not_json", path, f"{got}; expected one JSON object", line=line, hint=hint) from None


def _why_not_json(data: bytes, error: Exception) -> tuple[str, str | None]:
    """What stands there instead of JSON, and what to do about it."""
    for magic, name in _MAGIC.items():
        if data.startswith(magic):
            return name, _MAGIC_HINT
    try:
        text = data.decode()
    except UnicodeDecodeError as problem:
        byte = data[problem.start]
        return f"is not UTF-8 (byte 0x{byte:02X} at {problem.start})", "convert it: iconv -f LATIN1 -t UTF-8"
    if not text.strip():
        return "is a blank line", "remove it"
    constants: list[str] = []
    try:
        json.loads(text, parse_constant=constants.append)
    except (ValueError, RecursionError):
        return f"is not JSON ({error})", None
    if constants:
        return f"holds {constants[0]}, which JSON has not", "leave the field out, or write null"
    if _LONE_SURROGATE.search(text):
        return "holds a lone surrogate (\\ud800 and the like: half a character)", "replace it by U+FFFD"
    return f"is not JSON ({error})", None


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
        raise FormatError("missing_file", path, "not found") from None
    value = json_value(data, path)
    if not isinstance(value, dict):
        raise FormatError("not_object", path, f"is {type(value).__name__}; expected an object")
    return value


def row_files(path: Path, listed: list[str] | None = None) -> list[Path]:
    """Files of rows in the contract's order: those `listed`, or all below a directory, or the file itself.

    Raises:
        FormatError: a pipe, or a file of rows that is not read, which would be left out unseen.
    """
    if path.is_file():
        return [path]
    if path.exists() and not path.is_dir():
        message = "is a pipe or a device; expected a file or a directory"
        raise FormatError("invalid_value", path, message, hint="write it to a file: it is read more than once")
    if listed is not None:
        return [path / name for name in sorted(listed) if _holds_rows(name)]
    names = _names_below(path)
    foreign = next((name for name in names if _is_foreign(name)), None)
    if foreign is not None:
        message = f"{Path(foreign).suffix} files are not read; expected JSON lines alone in {path}"
        raise FormatError("not_json", path / foreign, message, hint="convert it, or name the others one by one")
    return [path / name for name in names if _holds_rows(name)]


def _names_below(root: Path) -> list[str]:
    """Files below a directory, sorted, hidden ones left out. Links to directories are followed, each one once."""
    waiting, seen, names = [root], set(), []
    while waiting:
        for place, folders, files in os.walk(waiting.pop(0)):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            real = os.path.realpath(place)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            waiting += [Path(place, name) for name in folders if Path(place, name).is_symlink()]
            found = (Path(place, name) for name in files if not name.startswith("."))
            names += [file.relative_to(root).as_posix() for file in found if file.is_file()]
    return sorted(names)


def _holds_rows(name: str) -> bool:
    for suffix in _COMPRESSIONS:
        name = name.removesuffix(suffix)
    return name.endswith(_ROW_SUFFIXES) and Path(name).name not in _SIDE_FILES


def _is_foreign(name: str) -> bool:
    path = Path(name)
    return path.suffix == ".parquet" or (path.suffix in _FOREIGN_SUFFIXES and _holds_rows(path.stem))


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

"""JSON objects and JSON lines, plain or compressed, and why one cannot be read: docs/formats/README.md, rules 4 to 7.

Every Python package that reads the formats carries this file, byte for byte.
"""

import bz2
import gzip
import hashlib
import json
import lzma
import os
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from .errors import FormatError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = [
    "atomic_file",
    "canonical_json",
    "canonical_line",
    "decode",
    "decode_object",
    "files_below",
    "is_json_lines",
    "open_file",
    "path_kind",
    "read_lines",
    "read_object",
    "read_rows",
    "row_files",
    "sha256_file",
    "signature",
    "type_name",
    "write_gzip",
]

_COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
_UNSUPPORTED = (".br", ".lz4", ".sz", ".snappy", ".7z", ".zip", ".parquet")
_SIDE_FILES = ("manifest.json", "metrics.jsonl", "errors.jsonl", "skipped.jsonl", "funnel.json")  # what tools add
_SIGNATURES = (
    (b"\x1f\x8b", "gzip data", ".gz"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data", ".zst"),
    (b"BZh", "bzip2 data", ".bz2"),
    (b"\xfd7zXZ\x00", "xz data", ".xz"),
    (b"PK\x03\x04", "a zip archive", ".zip"),
    (b"PAR1", "a Parquet file", ".parquet"),
    (b"SQLite format 3", "a SQLite database", ".sqlite"),
    (b"\xff\xfe", "UTF-16 text", ""),
    (b"\xfe\xff", "UTF-16 text", ""),
)
_UTF16_HINT = "convert it to UTF-8: iconv -f UTF-16 -t UTF-8"
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


# ---- which files


def is_json_lines(name: str) -> bool:
    """Whether a file holds rows, judging by its name. Hidden files and those that tools add to a directory do not."""
    if name.startswith(".") or name in _SIDE_FILES:
        return False
    suffix = Path(name).suffix
    return name.removesuffix(suffix if suffix in _COMPRESSIONS else "").endswith((".jsonl", ".json"))


def files_below(root: Path) -> list[Path]:
    """Every file and pipe below a directory except hidden ones, in the contract's order.

    Links to directories are followed. Each directory is read once, so a link to a parent ends there.
    """
    waiting, seen, found = [root], set(), []
    while waiting:
        for place, folders, names in os.walk(waiting.pop(0)):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            real = os.path.realpath(place)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            waiting += [Path(place, name) for name in folders if Path(place, name).is_symlink()]
            found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted((path for path in found if path.exists()), key=lambda path: path.relative_to(root).as_posix())


def row_files(path: Path, listed: list[str] | None = None) -> list[Path]:
    """The files of rows at a path: the file itself, those of a manifest (`listed`), or all below a directory.

    Raises:
        FormatError: `missing_file` without any; `invalid_value` for a pipe, `not_json` for rows in a format that is
            not supported, since both would be skipped silently.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise _not_a_file(path, "a file or a directory")
    if listed is not None:
        files = [path / name for name in sorted(listed) if is_json_lines(Path(name).name)]
    else:
        files = []
        for file in files_below(path):
            plain = file.name.removesuffix(file.suffix)
            if file.suffix == ".parquet" or (file.suffix in _UNSUPPORTED and is_json_lines(plain)):
                message = f"{file.suffix} files are not supported; expected JSON lines only"
                raise FormatError("not_json", file, message, hint="convert the file, or name the others one by one")
            if is_json_lines(file.name):
                if not file.is_file():
                    raise _not_a_file(file, "a file")
                files.append(file)
    if not files and listed is None:
        raise FormatError("missing_file", path, "no .jsonl or .json file found; expected at least one")
    return files


def path_kind(path: Path) -> str:
    """What a path is, when it is not the file that was expected."""
    if path.is_fifo():
        return "is a named pipe"
    if path.is_dir():
        return "is a directory"
    return "is not a regular file" if path.exists() else "not found"


def _not_a_file(path: Path, expected: str) -> FormatError:
    if not path.exists():
        return FormatError("missing_file", path, f"not found; expected {expected}", hint="check the path")
    hint = None if path.is_dir() else "write it to a file first: it is read more than once"
    return FormatError("invalid_value", path, f"{path_kind(path)}; expected {expected}", hint=hint)


# ---- bytes


def signature(head: bytes) -> tuple[str, str] | None:
    """What a file's first bytes show it to be, when that is not UTF-8 text, and the extension that belongs to it."""
    return next((found[1:] for found in _SIGNATURES if head.startswith(found[0])), None)


def open_file(path: Path) -> BinaryIO:
    """Open a file through the decompressor that its last extension names.

    Raises:
        FormatError: `missing_file`, `invalid_value` for a directory or a pipe, `not_json` where the first bytes and
            the extension disagree.
    """
    if not path.is_file():
        raise _not_a_file(path, "a file")
    if path.suffix in _UNSUPPORTED:
        expected = f"JSON lines, plain or as {', '.join(_COMPRESSIONS)}"
        message = f"{path.suffix} files are not supported; expected {expected}"
        raise FormatError("not_json", path, message, hint="convert the file")
    with path.open("rb") as stream:
        head = stream.read(16)
    what, extension = signature(head) or ("", "")
    wanted = path.suffix if path.suffix in _COMPRESSIONS else ""
    if what and (extension != wanted or not extension):
        hint = _UTF16_HINT if not extension else "convert it"
        if extension in _COMPRESSIONS and not wanted:
            hint = f"rename it to {path.name}{extension}"
        raise FormatError("not_json", path, f"is {what}; expected {wanted or 'UTF-8 text'}", hint=hint)
    if wanted and head.lstrip()[:1] in (b"{", b"["):
        message = f"is not compressed; expected {wanted[1:]} data, as its name says"
        raise FormatError("not_json", path, message, hint=f"rename it to {path.name.removesuffix(wanted)}")
    match wanted:
        case ".gz":
            return cast(BinaryIO, gzip.open(path, "rb"))
        case ".bz2":
            return cast(BinaryIO, bz2.open(path, "rb"))
        case ".xz":
            return cast(BinaryIO, lzma.open(path, "rb"))
        case ".zst":
            return cast(BinaryIO, zstd.open(path, "rb"))
    return path.open("rb")


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file without their newline, numbered from 1.

    Raises:
        FormatError: as `open_file`; `truncated` where compressed data end early or are damaged.
    """
    try:
        with open_file(path) as stream:
            for number, line in enumerate(stream, start=1):
                yield number, line.removesuffix(b"\n")
    except (EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError, gzip.BadGzipFile, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # bz2 raises OSError without a number
            raise
        found = "ends early" if isinstance(error, EOFError) else f"is damaged ({error})"
        message = f"{found}; expected a complete {path.suffix} file"
        raise FormatError("truncated", path, message, hint="copy or create the file again") from error


# ---- JSON


def decode(raw: bytes, path: Path | str, line: int | None = None) -> Any:
    """Decode one JSON value.

    Raises:
        FormatError: `not_json`, naming the cause: a byte-order mark, UTF-16, bytes that are not UTF-8, NaN, half of a
            surrogate pair.
    """
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        found, hint = _cause(raw, error)
        raise FormatError("not_json", path, f"{found}; expected a JSON object", line=line, hint=hint) from error


def decode_object(raw: bytes, path: Path | str, line: int | None = None) -> dict[str, Any]:
    """Decode one JSON object.

    Raises:
        FormatError: as `decode`, and `not_object`.
    """
    value = decode(raw, path, line)
    if not isinstance(value, dict):
        raise FormatError("not_object", path, f"is {type_name(value)}; expected a JSON object", line=line)
    return value


def type_name(value: Any) -> str:
    """The JSON type of a decoded value, as messages name it."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
    return "an object"


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a JSON Lines file with their line numbers.

    Raises:
        FormatError: as `read_lines` and `decode_object`, at the first invalid row.
    """
    for line, raw in read_lines(path):
        yield line, decode_object(raw, path, line)


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that is one JSON object.

    Raises:
        FormatError: `missing_file`, `not_json`, `not_object`.
    """
    if not path.is_file():
        raise _not_a_file(path, "a JSON file")
    return decode_object(path.read_bytes(), path)


def _cause(raw: bytes, error: Exception) -> tuple[str, str | None]:
    """Why bytes are not JSON, and what to do about it."""
    if raw.startswith(b"\xef\xbb\xbf"):
        return "starts with a byte-order mark (BOM)", "save it as UTF-8 without one: sed '1s/^\\xEF\\xBB\\xBF//'"
    if found := signature(raw):
        return f"is {found[0]}", None if found[1] else _UTF16_HINT
    try:
        text = raw.decode()
    except UnicodeDecodeError as bad:
        return f"is not UTF-8 (byte 0x{raw[bad.start]:02X} at {bad.start})", "convert it: iconv -f LATIN1 -t UTF-8"
    if not text.strip():
        return "is blank", "remove the line"
    constants: list[str] = []
    try:
        json.loads(text, parse_constant=constants.append)
    except (ValueError, RecursionError):
        return f"is not JSON ({error})", None
    if constants:
        return f"contains {constants[0]}, which is not JSON", "write null, or leave the field out"
    if _LONE_SURROGATE.search(text):
        return "contains half of a surrogate pair (\\ud800 or the like)", "replace it with U+FFFD"
    return f"is not JSON ({error})", None


# ---- writing


def canonical_json(value: Any) -> str:
    """A file that is one object: sorted keys, indent 2, no ASCII escapes, a final newline."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def canonical_line(value: Any) -> str:
    """A row: sorted keys, no spaces, no ASCII escapes, with its newline."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Write to a temporary file beside `path` and rename it at the end; on an error nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def write_gzip(path: Path, level: int = 9) -> Iterator[gzip.GzipFile]:
    """As `atomic_file`, compressed, with neither time nor name in the header: equal rows give equal bytes."""
    with (
        atomic_file(path) as stream,
        gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=level, mtime=0) as compressed,
    ):
        yield compressed

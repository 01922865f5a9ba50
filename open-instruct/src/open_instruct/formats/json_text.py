"""JSON and JSONL files, plain or compressed, with the place of what is wrong: docs/formats/README.md, rules 4 to 6."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from .errors import FormatError, kind

__all__ = [
    "canonical_line",
    "canonical_text",
    "is_json_lines",
    "open_bytes",
    "parse_rows",
    "read_object",
    "require",
    "sha256_file",
]

Row = TypeVar("Row")
_COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
_ENDS_EARLY = "ends early; expected a whole compressed file"


def is_json_lines(name: str) -> bool:
    """Whether a file name is that of rows: `.jsonl` or `.json`, then perhaps a compression, not hidden, no manifest."""
    plain = name
    for compression in _COMPRESSIONS:
        plain = plain.removesuffix(compression)
    return plain.endswith((".jsonl", ".json")) and name != "manifest.json" and not name.startswith(".")


def open_bytes(path: Path) -> BinaryIO:
    """Open for reading what the last extension says.

    Raises:
        FormatError: `invalid_value` for a `.zst` file where the package `zstandard` is not installed.
    """
    match path.suffix:
        case ".gz":
            return gzip.open(path, "rb")  # type: ignore[return-value]
        case ".bz2":
            return bz2.open(path, "rb")  # type: ignore[return-value]
        case ".xz":
            return lzma.open(path, "rb")  # type: ignore[return-value]
        case ".zst":
            try:
                import zstandard
            except ImportError:
                raise FormatError(
                    "invalid_value", path, 'needs the package zstandard; expected "pip install open-instruct[zstd]"'
                ) from None
            return io.BytesIO(_decompress_zstd(zstandard, path))
        case _:
            return path.open("rb")


def _decompress_zstd(zstandard: Any, path: Path) -> bytes:
    # the library's own stream reader takes a file that ends within a frame for a whole one
    rest, parts = path.read_bytes(), []
    while rest:
        frame = zstandard.ZstdDecompressor().decompressobj()
        parts.append(frame.decompress(rest))
        if not frame.eof:
            raise FormatError("truncated", path, _ENDS_EARLY)
        rest = frame.unused_data
    return b"".join(parts)


_SIGNATURES = (
    (b"\x1f\x8b", "gzip", ".gz"),
    (b"\x28\xb5\x2f\xfd", "zstd", ".zst"),
    (b"BZh", "bzip2", ".bz2"),
    (b"\xfd7zXZ\x00", "xz", ".xz"),
    (b"PK\x03\x04", "zip", ""),
    (b"PAR1", "Parquet", ""),
    (b"SQLite format 3", "SQLite", ""),
)
_UTF8_MARK, _UTF16_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


def _check_kind(path: Path) -> None:
    """Say what else a file is than its name says.

    Raises:
        FormatError: `not_json` for a compression under another name, a byte-order mark or a binary format,
            `missing_file` for what is no file.
    """
    if not path.is_file():
        what = "a named pipe" if path.is_fifo() else "no regular file"
        raise FormatError("missing_file", path, f"is {what}; expected a file", hint="write the rows to a file first")
    if path.suffix == ".br":
        raise FormatError("invalid_value", path, "is compressed by brotli; expected .gz, .zst, .bz2, .xz or none")
    with path.open("rb") as stream:
        head = stream.read(16)
    for signature, name, suffix in _SIGNATURES:
        if head.startswith(signature) and path.suffix != suffix:
            hint = f"rename it to {path.name}{suffix}" if suffix else ""
            raise FormatError("not_json", path, f"holds {name} data; expected JSON lines", hint=hint)
    if path.suffix in _COMPRESSIONS and head and not any(head.startswith(sign) for sign, *_ in _SIGNATURES):
        plain = path.name.removesuffix(path.suffix)
        sentence = f"is not compressed; expected {path.suffix[1:]} data, as its name says"
        raise FormatError("not_json", path, sentence, hint=f"rename it to {plain}")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    errors: tuple[type[BaseException], ...] = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
    _check_kind(path)
    try:
        with open_bytes(path) as stream:
            yield from enumerate(stream, start=1)
    except errors:
        raise FormatError("truncated", path, _ENDS_EARLY) from None
    except OSError as error:
        if path.suffix in _COMPRESSIONS and error.errno is None:  # what bz2 raises for damaged data
            raise FormatError("truncated", path, _ENDS_EARLY) from None
        raise
    except Exception as error:
        if type(error).__name__ == "ZstdError":
            raise FormatError("truncated", path, _ENDS_EARLY) from None
        raise


def _cause(line: bytes, error: Exception) -> tuple[str, str]:
    """Say why bytes are not JSON, and what to do about it."""
    if not line.strip():
        return "a blank line", ""
    if line.startswith(_UTF8_MARK):
        return "behind a byte-order mark", "take it off: sed '1s/^\\xEF\\xBB\\xBF//'"
    if line.startswith(_UTF16_MARKS):
        return "UTF-16", "write it as UTF-8: iconv -f UTF-16 -t UTF-8"
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as bad:
        return f"not UTF-8 (byte 0x{line[bad.start]:02X} at {bad.start})", "write it as UTF-8, with iconv say"
    bare = _STRINGS.sub('""', text)
    found = re.search(r"-?\b(?:NaN|Infinity)\b", bare)
    if found:
        return f"not JSON ({found[0]} is no JSON number)", "write null, or leave the field out"
    half = _HALF.search(_PAIR.sub("", text))
    if half:
        return f"not JSON ({half[0]} is half of a surrogate pair)", "write the whole character"
    return f"not JSON ({error})", ""


_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_HALF = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')


def parse_rows(files: Iterable[Path], parse: Callable[[dict[str, Any], Path, int], Row]) -> Iterator[Row | FormatError]:
    """Yield `parse(row, file, line)` of every line of JSONL files, or the error that the line is.

    `line` is 1-based. A file that ends early yields `truncated` after its last whole row, and the next file follows.
    """
    decode = msgspec.json.Decoder().decode
    for path in files:
        try:
            for number, line in _lines(path):
                try:
                    yield parse(_decode_object(decode, line, path, number), path, number)
                except FormatError as error:
                    yield error
        except FormatError as error:
            yield error


def _decode_object(decode: Callable[[bytes], Any], line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        value = decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        what, hint = _cause(line, error)
        sentence = f"the line is {what}; expected one JSON object"
        raise FormatError("not_json", path, sentence, line=number, hint=hint) from None
    if not isinstance(value, dict):
        raise FormatError("not_object", path, f"the line is {kind(value)}; expected an object", line=number)
    return value


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
        FormatError: `missing_file`, `not_json`, `not_object`.
    """
    if not path.is_file():
        raise FormatError("missing_file", path, "not found; expected a file")
    try:
        content = path.read_bytes()
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        what, hint = _cause(content, error)
        raise FormatError("not_json", path, f"is {what}; expected a JSON object", hint=hint) from None
    if not isinstance(value, dict):
        raise FormatError("not_object", path, f"is {kind(value)}; expected an object")
    return value


def require(
    value: dict[str, Any],
    key: str,
    types: type | tuple[type, ...],
    path: Path,
    *,
    prefix: str = "",
    line: int | None = None,
) -> Any:
    """Return `value[key]`, of one of `types` (a boolean is no number).

    Raises:
        FormatError: `missing_field`, `wrong_type`; `field` is `prefix` + `key`.
    """
    names = {str: "a string", int: "an integer", dict: "an object", list: "an array", float: "a number"}
    field = prefix + key
    kinds = types if isinstance(types, tuple) else (types,)
    expected = " or ".join(names[one] for one in kinds)
    if key not in value:
        raise FormatError("missing_field", path, f'"{field}" is absent; expected {expected}', line=line, field=field)
    found = value[key]
    if not isinstance(found, kinds) or isinstance(found, bool):
        raise FormatError(
            "wrong_type", path, f'"{field}" is {kind(found)}; expected {expected}', line=line, field=field
        )
    return found


def canonical_text(value: object) -> str:
    """Give the canonical bytes of a manifest (docs/formats/manifest.md, section Canonical bytes), as text."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def canonical_line(value: object) -> str:
    """Give one line of a dump: keys sorted, no spaces, no ASCII escapes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"


def sha256_file(path: Path) -> str:
    """Hash a file's bytes as they lie on the disk."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""What all packages share: errors, files of JSON rows, typed fields. Implements docs/formats/README.md.

Every Python package carries this file, byte for byte.
"""

import bz2
import gzip
import hashlib
import json
import lzma
import math
import os
import re
import sys
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

__all__ = [
    "CODES",
    "ConfigError",
    "Fields",
    "FormatError",
    "MissingFlagError",
    "Problem",
    "Reader",
    "WorkError",
    "atomic_file",
    "canonical_json",
    "canonical_line",
    "decode",
    "decode_object",
    "files_below",
    "first_line",
    "is_json_lines",
    "mismatch",
    "open_file",
    "path_kind",
    "read_lines",
    "read_object",
    "read_rows",
    "report_error",
    "row_files",
    "sha256_file",
    "signature",
    "type_name",
    "write_file",
    "write_gzip",
]

# ---- errors


CODES = frozenset(
    "not_json not_object missing_field wrong_type invalid_value truncated missing_file wrong_size checksum_mismatch "
    "unknown_format unsupported_version unsafe_path misaligned out_of_range wrong_dtype bad_boundary missing_tensor "
    "wrong_shape unknown_role role_order empty_messages prompt_mismatch identical_answers".split()
)


class FormatError(ValueError):
    """A file breaks its format. Its text is `path:line: message`.

    `code` is stable, `message` is not. `path` is as it was given to the reader; `line` is 1-based; `field` is dotted
    (`files.0.sha256`); `hint` is one thing to do.
    """

    def __init__(
        self,
        code: str,
        path: str | Path,
        message: str,
        *,
        line: int | None = None,
        field: str | None = None,
        hint: str | None = None,
    ) -> None:
        assert code in CODES, code
        self.code, self.path, self.message = code, str(path), message
        self.line, self.field, self.hint = line, field, hint
        super().__init__(f"{self.where}: {message}")

    def __reduce__(self) -> Any:
        """Keep every part when an error crosses to another process."""
        return _rebuilt, (type(self), self.code, self.path, self.message, self.line, self.field, self.hint)

    @property
    def where(self) -> str:
        """`path` or `path:line`."""
        return self.path if self.line is None else f"{self.path}:{self.line}"


def _rebuilt(
    kind: type[FormatError], code: str, path: str, message: str, line: int | None, field: str | None, hint: str | None
) -> FormatError:
    return kind(code, path, message, line=line, field=field, hint=hint)


class MissingFlagError(ValueError):
    """Files without a manifest lack some information; the text names the flag that provides it."""


@dataclass(frozen=True)
class Problem:
    """One mistake in a request: `<where>: <what> is <got>; expected <expected>`, and one thing to do."""

    message: str
    hint: str | None = None


class _Problems(ValueError):
    """One or more mistakes; `hint` belongs to the last."""

    def __init__(self, *problems: Problem | str, hint: str | None = None) -> None:
        found = [Problem(problem) if isinstance(problem, str) else problem for problem in problems]
        if hint:
            found[-1] = Problem(found[-1].message, hint)
        self.problems = tuple(found)
        super().__init__("; ".join(problem.message for problem in found))

    def __reduce__(self) -> Any:
        """Keep every problem when an error crosses to another process."""
        return type(self), self.problems

    @property
    def hint(self) -> str | None:
        """One thing to do."""
        return self.problems[-1].hint


class ConfigError(_Problems):
    """A wrong request (exit code 2), with every mistake found."""


class WorkError(_Problems):
    """Work that failed (exit code 1) although the request was right and no file breaks its format."""


def first_line(error: BaseException) -> str:
    """The first line of a library's message, or the name of the error if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def report_error(error: Exception) -> int:
    """Write an error and its hint to stderr; returns the exit code: 2 if the request was wrong, else 1."""
    if isinstance(error, _Problems):
        problems = error.problems
    elif isinstance(error, OSError) and error.strerror:
        problems = (Problem(f"{error.filename or 'a file'}: {error.strerror}"),)
    else:
        problems = (Problem(str(error), getattr(error, "hint", None)),)
    for problem in problems:
        sys.stderr.write(f"error: {problem.message}\n" + (f"hint: {problem.hint}\n" if problem.hint else ""))
    return 2 if isinstance(error, ConfigError) else 1


def mismatch(
    code: str,
    path: str | Path,
    got: str,
    expected: str,
    *,
    line: int | None = None,
    field: str | None = None,
    hint: str | None = None,
) -> FormatError:
    """The error `"field" is <got>; expected <expected>`; without a field, of the line or the file."""
    subject = "" if field is None else f'"{field}" '
    return FormatError(code, path, f"{subject}is {got}; expected {expected}", line=line, field=field, hint=hint)


# ---- files and rows of JSON


if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


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
    """Whether a file contains rows, by its name. Hidden files and those that tools add to a directory do not."""
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
    """Describe a path that is not the expected file."""
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
    """What a file's first bytes show it to be, if it is not UTF-8 text, and the matching extension."""
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
    """Read a file with one JSON object.

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
    """A file with one object: sorted keys, indent 2, no ASCII escapes, a final newline."""
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
    """Write to a temporary file next to `path` and rename it at the end; on an error nothing remains."""
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


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file like `atomic_file`."""
    with atomic_file(path) as stream:
        stream.write(data)


@contextmanager
def write_gzip(path: Path, level: int = 9) -> Iterator[gzip.GzipFile]:
    """Like `atomic_file`, compressed, without time or name in the header: equal rows give equal bytes."""
    with (
        atomic_file(path) as stream,
        gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=level, mtime=0) as compressed,
    ):
        yield compressed


# ---- typed fields


_HASH = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Fields:
    """A JSON object with its place: the file, the line, and the dotted name of the object (`prefix`).

    `string` and the like raise FormatError: `missing_field`, `wrong_type`, `invalid_value`. The optional ones return
    None, or an empty object, for a field that is missing or null.
    """

    value: dict[str, Any]
    path: Path | str
    line: int | None = None
    prefix: str = ""

    def name(self, key: str) -> str:
        """The dotted name of a field."""
        return f"{self.prefix}.{key}" if self.prefix else key

    def error(self, code: str, key: str, message: str, hint: str | None = None) -> FormatError:
        """The error of a field; the message follows the quoted name: `is 3; expected 4`."""
        name = self.name(key)
        return FormatError(code, self.path, f'"{name}" {message}', line=self.line, field=name, hint=hint)

    def wrong_type(self, key: str, expected: str) -> FormatError:
        """The error of a field with the wrong type."""
        return self.error("wrong_type", key, f"is {type_name(self.value[key])}; expected {expected}")

    def get(self, key: str, expected: str = "a value") -> Any:
        """A field of any type."""
        if key not in self.value:
            raise self.error("missing_field", key, f"is missing; expected {expected}")
        return self.value[key]

    def string(self, key: str, *, choices: Collection[str] = (), not_empty: bool = False) -> str:
        """A string, one of `choices` if given."""
        value = self.get(key, "a string")
        if not isinstance(value, str):
            raise self.wrong_type(key, "a string")
        if choices and value not in choices:
            raise self.error("invalid_value", key, f'is "{value}"; expected {" or ".join(choices)}')
        if not_empty and not value:
            raise self.error("invalid_value", key, "is empty; expected at least one character")
        return value

    def optional_string(self, key: str) -> str | None:
        """A string or None."""
        return None if self.value.get(key) is None else self.string(key)

    def integer(self, key: str, *, minimum: int | None = 0) -> int:
        """An integer; `true` and `1.0` are not."""
        value = self.get(key, "an integer")
        if type(value) is not int:
            raise self.wrong_type(key, "an integer")
        if minimum is not None and value < minimum:
            raise self.error("invalid_value", key, f"is {value}; expected at least {minimum}")
        return value

    def optional_integer(self, key: str, *, minimum: int | None = 0) -> int | None:
        """An integer or None."""
        return None if self.value.get(key) is None else self.integer(key, minimum=minimum)

    def number(self, key: str, *, minimum: float | None = None) -> float:
        """A finite number."""
        value = self.get(key, "a number")
        if type(value) not in (int, float):
            raise self.wrong_type(key, "a number")
        if not math.isfinite(value) or (minimum is not None and value < minimum):
            expected = "a finite number" if minimum is None else f"at least {minimum:g}"
            raise self.error("invalid_value", key, f"is {value}; expected {expected}")
        return float(value)

    def number_or_null(self, key: str, *, minimum: float | None = None) -> float | None:
        """A finite number or null; the field is required."""
        return None if self.get(key, "a number or null") is None else self.number(key, minimum=minimum)

    def hash(self, key: str) -> str:
        """A sha256: 64 lower-case hexadecimal digits."""
        value = self.string(key)
        if not _HASH.match(value):
            raise self.error("invalid_value", key, f'is "{value}"; expected 64 lower-case hexadecimal digits')
        return value

    def hash_or_null(self, key: str) -> str | None:
        """A sha256 or null; the field is required."""
        return None if self.get(key, "a sha256 or null") is None else self.hash(key)

    def object(self, key: str) -> "Fields":
        """An object."""
        value = self.get(key, "an object")
        if not isinstance(value, dict):
            raise self.wrong_type(key, "an object")
        return Fields(value, self.path, self.line, self.name(key))

    def optional_object(self, key: str) -> "Fields":
        """An object, empty if the field is missing or null."""
        return self.object(key) if self.value.get(key) is not None else Fields({}, self.path, self.line, self.name(key))

    def array(self, key: str) -> list[Any]:
        """An array."""
        value = self.get(key, "an array")
        if not isinstance(value, list):
            raise self.wrong_type(key, "an array")
        return value

    def objects(self, key: str) -> list["Fields"]:
        """An array of objects."""
        rows = []
        for index, value in enumerate(self.array(key)):
            if not isinstance(value, dict):
                raise self.error("wrong_type", f"{key}.{index}", f"is {type_name(value)}; expected an object")
            rows.append(Fields(value, self.path, self.line, self.name(f"{key}.{index}")))
        return rows


# ---- what `python -m <package>.formats` needs to know of a format


@dataclass(frozen=True)
class Reader:
    """How a package reads a format."""

    rows: Callable[..., Iterator[dict[str, Any] | FormatError]]
    """yields the rows that `dump` prints, or the error of a row; gets the path and its flags"""
    counts: tuple[str, ...]
    """what the manifest counts"""
    count: Callable[[dict[str, Any]], tuple[int, ...]]
    """what a row adds to the counts"""
    flags: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """arguments of the command: name and settings of argparse"""
    stated: tuple[str, ...] = ()
    """counts that only a manifest can tell"""

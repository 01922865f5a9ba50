"""Files as every format needs them: hashing, compressed lines, atomic writes, checked JSON fields."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib
import json
import lzma
import math
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from .errors import FormatError, shown

__all__ = [
    "COMPRESSIONS",
    "field_of",
    "fitting",
    "foreign_bytes",
    "kind_of",
    "open_binary",
    "place",
    "read_json",
    "refuse_unread",
    "rows",
    "sha256_of",
    "write_atomically",
]

COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
_KINDS: dict[str, tuple[type, ...]] = {
    "a string": (str,),
    "an integer": (int,),
    "a number": (int, float),
    "an object": (dict,),
    "an array": (list,),
    "true or false": (bool,),
}


def place(text: str) -> Path:
    """A path of a command line, where the shell may have left `~` as it is (`--output=~/page.html`)."""
    return Path(os.path.expanduser(text))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 lower-case hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, flush it to the disk and rename it: it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.writing")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def fitting(root: Path, fits: Callable[[str], bool]) -> list[Path]:
    """The files below a directory whose name fits, hidden ones left out, by their relative paths; a file itself."""
    if root.is_file():
        return [root]
    if root.exists() and not root.is_dir():
        raise FormatError(root, "invalid_value", kind_of(root), "a file or a directory")
    names = (path.relative_to(root) for path in _below(root) if fits(path.name) and _is_plain(path))
    return [root / name for name in sorted(names, key=Path.as_posix) if not any(x.startswith(".") for x in name.parts)]


_UNREAD = {".br": "brotli", ".lz4": "LZ4", ".zip": "ZIP", ".7z": "7z", ".sz": "snappy"}


def _below(root: Path) -> Iterator[Path]:
    """All files below a directory, each folder once: a link to one that is below it anyway, or above, leads nowhere."""
    whole = root.resolve()
    seen, waiting = {whole}, [root]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if not path.is_dir():
                yield path
                continue
            place = path.resolve()
            is_within = path.is_symlink() and (place.is_relative_to(whole) or whole.is_relative_to(place))
            if place not in seen and not is_within:
                seen.add(place)
                waiting.append(path)


def _is_plain(path: Path) -> bool:
    """Whether a file can be read; a directory is none.

    Raises: FormatError: it would be left out although it holds what is looked for.
    """
    if path.is_fifo():
        raise FormatError(path, "invalid_value", kind_of(path), "a file")
    return path.is_file()


def refuse_unread(root: Path, fits: Callable[[str], bool]) -> None:
    """Refuse a directory with files that would fit if they were compressed otherwise.

    Raises: FormatError: naming the first.
    """
    for path in sorted(_below(root)) if root.is_dir() else ():
        if path.suffix in _UNREAD and fits(path.stem):
            got, expected = f"compressed with {_UNREAD[path.suffix]}", f"{', '.join(COMPRESSIONS)} or no compression"
            raise FormatError(path, "invalid_value", got, expected)


def _zstandard(path: Path) -> Any:
    """Python 3.14's module, or its backport: unlike others they fail on a file that ends early."""
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        hint = "pip install 'olmo-trainer[zst]'"
        raise FormatError(path, "invalid_value", "compressed with zstandard", f"{name} installed", hint=hint) from error


def open_binary(path: Path) -> IO[bytes]:
    """Open a file for reading through the decompressor that its last extension names.

    Raises: FormatError: for .zst on a Python before 3.14 without the extra `zst`.
    """
    match path.suffix:
        case ".gz":
            return gzip.open(path, "rb")  # type: ignore[return-value]
        case ".bz2":
            return bz2.open(path, "rb")
        case ".xz":
            return lzma.open(path, "rb")
        case ".zst":
            return _zstandard(path).open(path, "rb")  # type: ignore[no-any-return]
        case _:
            return path.open("rb")


_BEGINNINGS = {
    b"\x1f\x8b": "compressed with gzip, though its name does not say so",
    b"\x28\xb5\x2f\xfd": "compressed with zstandard, though its name does not say so",
    b"BZh": "compressed with bzip2, though its name does not say so",
    b"\xfd7zXZ\x00": "compressed with xz, though its name does not say so",
    b"PK\x03\x04": "a ZIP archive",
    b"PAR1": "a Parquet file",
    b"\xff\xfe": "in UTF-16",
    b"\xfe\xff": "in UTF-16",
}


def foreign_bytes(raw: bytes) -> str | None:
    """What bytes are that are not text in UTF-8, by how they begin; None where nothing is known."""
    return next((what for beginning, what in _BEGINNINGS.items() if raw.startswith(beginning)), None)


def kind_of(path: Path) -> str:
    """What is at a path where a file is expected, for an error."""
    if path.is_dir():
        return "a directory"
    if path.is_fifo():
        return "a named pipe, which can be read only once"
    return "not a file" if path.exists() else "missing"


class _NotANumber(ValueError):
    """A number that JSON or a float does not have."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NotANumber(name)  # NaN and Infinity are Python's extension, not JSON


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _NotANumber(text)
    return value


def _parse(raw: bytes, path: Path | str, line: int | None) -> Any:
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
        if b"\\u" in raw:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # half of a surrogate pair cannot be encoded
        return value
    except UnicodeEncodeError as error:
        raise FormatError(path, "not_json", "half of a surrogate pair", "UTF-8 JSON", line=line) from error
    except UnicodeDecodeError as error:
        got = foreign_bytes(raw) or f"not UTF-8 at byte {error.start}"
        raise FormatError(path, "not_json", got, "UTF-8 JSON", line=line) from error
    except _NotANumber as error:
        got = f"not JSON, for it holds {error}"
        raise FormatError(path, "not_json", got, "finite numbers or null", line=line) from error
    except (ValueError, RecursionError) as error:
        got = foreign_bytes(raw) or ("not JSON" if raw.strip() else "blank")
        if raw.startswith(b"\xef\xbb\xbf"):
            got = "begun with a byte-order mark"
        raise FormatError(path, "not_json", got, "one JSON value", line=line) from error


def read_json(path: Path, shown_path: str | None = None) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises: FormatError: `missing_file`, `not_json`, `not_object`.
    """
    name = shown_path or str(path)
    if not path.is_file():
        raise FormatError(name, "missing_file", kind_of(path), "a file")
    value = _parse(path.read_bytes(), name, None)
    if not isinstance(value, dict):
        raise FormatError(name, "not_object", shown(value), "a JSON object")
    return value


def rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `(line number from 1, object)` of a possibly compressed JSON-lines file.

    Raises: FormatError: `not_json`, `not_object`, `truncated`.
    """
    line = 0
    try:
        with open_binary(path) as stream:
            for line, raw in enumerate(stream, start=1):
                value = _parse(raw, path, line)
                if not isinstance(value, dict):
                    raise FormatError(path, "not_object", shown(value), "a JSON object", line=line)
                yield line, value
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise FormatError(path, "missing_file", "missing", "a file") from error
        raise FormatError(path, "truncated", f"cut short or damaged ({error})", "a whole compressed file") from error
    except Exception as error:
        if type(error).__name__ != "ZstdError":  # zstandard is optional, so its class cannot be named here
            raise
        raise FormatError(path, "truncated", f"damaged ({error})", "a whole compressed file") from error


def field_of(
    row: dict[str, Any],
    name: str,
    kind: str,
    path: Path | str,
    *,
    line: int | None = None,
    prefix: str = "",
    optional: bool = False,
    default: Any = None,
) -> Any:
    """The value of a field after its type is checked; `kind` is one of the phrases an error uses ("a string", …).

    Raises: FormatError: `missing_field`, `wrong_type`.
    """
    field = prefix + name
    if name not in row or (optional and row[name] is None):
        if optional:
            return default
        raise FormatError(path, "missing_field", "missing", kind, line=line, field=field)
    value = row[name]
    is_bool = isinstance(value, bool)
    if not isinstance(value, _KINDS[kind]) or (is_bool and kind != "true or false"):
        raise FormatError(path, "wrong_type", shown(value), kind, line=line, field=field)
    return value

"""Files as every format needs them: hashing, compressed lines, atomic writes, checked JSON fields."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib
import json
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from .errors import FormatError, shown

__all__ = ["COMPRESSIONS", "field_of", "fitting", "open_binary", "read_json", "rows", "sha256_of", "write_atomically"]

COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
_KINDS: dict[str, tuple[type, ...]] = {
    "a string": (str,),
    "an integer": (int,),
    "a number": (int, float),
    "an object": (dict,),
    "an array": (list,),
    "true or false": (bool,),
}


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
    names = (path.relative_to(root) for path in root.rglob("*") if path.is_file() and fits(path.name))
    return [root / name for name in sorted(names, key=Path.as_posix) if not any(x.startswith(".") for x in name.parts)]


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


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are Python's extension, not JSON


def _parse(raw: bytes, path: Path | str, line: int | None) -> Any:
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
        if b"\\u" in raw:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # half of a surrogate pair cannot be encoded
        return value
    except UnicodeEncodeError as error:
        raise FormatError(path, "not_json", "half of a surrogate pair", "UTF-8 JSON", line=line) from error
    except UnicodeDecodeError as error:
        got = f"not UTF-8 at byte {error.start}"
        raise FormatError(path, "not_json", got, "UTF-8 JSON", line=line) from error
    except (ValueError, RecursionError) as error:
        got = "not JSON" if raw.strip() else "blank"
        raise FormatError(path, "not_json", got, "one JSON value", line=line) from error


def read_json(path: Path, shown_path: str | None = None) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises: FormatError: `missing_file`, `not_json`, `not_object`.
    """
    name = shown_path or str(path)
    if not path.is_file():
        raise FormatError(name, "missing_file", "not there", "a file")
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
            raise FormatError(path, "missing_file", "not there", "a file") from error
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

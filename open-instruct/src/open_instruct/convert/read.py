"""Rows of JSON Lines, JSON arrays and Parquet files, each with its place."""

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from ..formats.contract import ConfigError, FormatError, decode_object, files_below, open_file, read_lines

__all__ = ["download", "find_files", "read_file"]

Placed = tuple[int, dict[str, Any]]
_ROWS = re.compile(r".+\.(jsonl?(\.(gz|bz2|xz|zst))?|parquet)")
_SPACE = re.compile(r"[\s,]*")


def find_files(path: Path) -> list[Path]:
    """The files of rows at a path. Raises ConfigError without any."""
    if path.is_file():
        return [path]
    files = [file for file in files_below(path) if _ROWS.fullmatch(file.name)] if path.is_dir() else []
    if not files:
        found = "has no .jsonl, .json or .parquet file" if path.exists() else "not found"
        raise ConfigError(f"{path}: {found}; expected rows")
    return [file for file in files if file.name != "manifest.json"]


def read_file(path: Path) -> Iterator[Placed | FormatError]:
    """Yield (line, row), or the error of a line; of Parquet files, the number of the row from 1."""
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path)
            return
        lines = read_lines(path)
        first = next(lines, None)
        while first is not None and not first[1].strip():
            first = next(lines, None)
        if first is None:
            return
        if first[1].lstrip()[:1] == b"[":
            yield from _array(path)
            return
        for number, line in chain([first], lines):
            if line.strip():
                try:
                    yield number, decode_object(line, path, number)
                except FormatError as error:
                    yield error
    except FormatError as error:
        yield error


def _array(path: Path) -> Iterator[Placed | FormatError]:
    """The objects of a JSON array, each with the line on which it begins."""
    with open_file(path) as stream:
        raw = stream.read()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("not_json", path, "is not UTF-8; expected a JSON array") from None
    decoder = json.JSONDecoder(parse_constant=_refuse)
    position, line, counted = text.index("[") + 1, 1, 0
    while True:
        position = _SPACE.match(text, position).end()  # type: ignore[union-attr]
        line, counted = line + text.count("\n", counted, position), position
        if text[position : position + 1] == "]":
            return
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            yield FormatError("not_json", path, f"is not JSON ({error}); expected an array of objects", line=line)
            return
        if isinstance(value, dict):
            yield line, value
        else:
            yield FormatError("not_object", path, "is not an object; expected an array of objects", line=line)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _parquet(path: Path) -> Iterator[Placed | FormatError]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        message = f"is damaged ({str(error).splitlines()[0]}); expected a Parquet file"
        yield FormatError("truncated", path, message)


def download(name: str, directory: Path | None = None) -> Path:
    """Fetch a data set's files of rows from the Hub, `owner/name` or `owner/name@revision`; return their directory.

    The only command of the package that uses the network, and only if asked to.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    repository, _, revision = name.partition("@")
    patterns = ["*.parquet", "*.jsonl*", "*.json", "*.json.*"]
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repository, repo_type="dataset", revision=revision or None, allow_patterns=patterns, cache_dir=directory
            )
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"--hub {name}: could not be fetched ({reason}); expected a data set on the Hub") from error

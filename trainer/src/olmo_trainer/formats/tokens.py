"""Token shards: raw little-endian ids and their document boundaries. Implements docs/formats/tokens.md v1."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .fields import field_of, mismatch, shown
from .json_lines import files_below, sha256_file
from .manifest import MANIFEST, Manifest, check_files, read_manifest

__all__ = ["DTYPES", "Boundary", "Shard", "TokenDirectory", "boundaries", "dump", "open_tokens", "validate"]

VERSION = 1
DTYPES = ("uint8", "uint16", "uint32")


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """One document of a shard: token offsets in the file (`end` exclusive) and where its text came from."""

    start: int
    end: int
    id: str
    src: str
    loc: int


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One token file; `name` is its path below the directory, `boundaries_path` is None where there is no `.csv.gz`."""

    path: Path
    name: str
    dtype: str
    tokens: int
    boundaries_path: Path | None

    def ids(self) -> npt.NDArray[np.integer[Any]]:
        """The ids, mapped into memory (little-endian, not copied)."""
        if self.tokens == 0:
            return np.empty(0, dtype=self.dtype)
        return np.memmap(self.path, dtype=np.dtype(self.dtype).newbyteorder("<"), mode="r")


@dataclass(frozen=True, kw_only=True)
class TokenDirectory:
    """A directory of shards and what is known of them; a foreign directory has no manifest."""

    path: Path
    shards: tuple[Shard, ...]
    manifest: Manifest | None
    dtype: str
    eos_token_id: int | None
    bos_token_id: int | None
    pad_token_id: int | None
    vocab_size: int | None
    tokenizer_path: Path | None
    tokenizer_sha256: str | None


def _shard(root: Path, path: Path, dtype: str) -> Shard:
    size_bytes, item_bytes = path.stat().st_size, np.dtype(dtype).itemsize
    if size_bytes % item_bytes:
        got = f"{size_bytes} bytes long, which is not a multiple of {item_bytes}"
        raise mismatch(path, "wrong_dtype", got, f"whole {dtype} items")
    sidecar = path.with_suffix(".csv.gz")
    return Shard(
        path=path,
        name=path.relative_to(root).as_posix(),
        dtype=dtype,
        tokens=size_bytes // item_bytes,
        boundaries_path=sidecar if sidecar.is_file() else None,
    )


def _optional_id(details: dict[str, Any], name: str, path: Path) -> int | None:
    if name not in details:
        raise mismatch(path, "missing_field", "missing", "an integer or null", field=f"details.{name}")
    if details[name] is None:
        return None
    value: int = field_of(details, name, "an integer", path, prefix="details.")
    if value < 0:
        raise mismatch(path, "invalid_value", shown(value), "0 or more, or null", field=f"details.{name}")
    return value


def open_tokens(directory: Path, *, dtype: str | None = None, eos_token_id: int | None = None) -> TokenDirectory:
    """Find the shards of a directory; `dtype` and `eos_token_id` are for a directory without manifest, and only for it.

    Raises: FormatError: what the files and the manifest contradict each other in; ValueError: `dtype` is needed.
    """
    manifest: Manifest | None = None
    bos = pad = vocab_size = None
    tokenizer_sha256 = None
    if (directory / MANIFEST).is_file():
        manifest = read_manifest(directory, wanted="tokens", newest=VERSION)
        where, details = manifest.path, manifest.details
        dtype = field_of(details, "dtype", "a string", where, prefix="details.")
        if dtype not in DTYPES:
            raise mismatch(where, "invalid_value", shown(dtype), " or ".join(DTYPES), field="details.dtype")
        vocab_size = field_of(details, "vocab_size", "an integer", where, prefix="details.")
        tokenizer_sha256 = field_of(details, "tokenizer_sha256", "a string", where, prefix="details.")
        eos_token_id = _optional_id(details, "eos_token_id", where)
        bos = _optional_id(details, "bos_token_id", where)
        pad = _optional_id(details, "pad_token_id", where)
        check_files(manifest, checksums=False)
        paths = [directory / row["path"] for row in manifest.files if row["path"].endswith(".npy")]
    else:
        found = files_below(directory) if directory.is_dir() else [directory]
        paths = [path for path in found if path.name.endswith(".npy")]
    if dtype is None:
        raise ValueError("dtype")
    root = directory if directory.is_dir() else directory.parent
    tokenizer_path = root / "tokenizer.json"
    return TokenDirectory(
        path=directory,
        shards=tuple(_shard(root, path, dtype) for path in paths),
        manifest=manifest,
        dtype=dtype,
        eos_token_id=eos_token_id,
        bos_token_id=bos,
        pad_token_id=pad,
        vocab_size=vocab_size,
        tokenizer_path=tokenizer_path if tokenizer_path.is_file() else None,
        tokenizer_sha256=tokenizer_sha256,
    )


def boundaries(shard: Shard, eos_token_id: int | None = None) -> Iterator[Boundary]:
    """Yield the documents of a shard, from its `.csv.gz` or, where there is none, by looking for `eos_token_id`.

    Documents found by their end token have neither id nor source.
    Raises: FormatError: `bad_boundary`, `truncated`, `wrong_type`; ValueError: neither a `.csv.gz` nor an end token.
    """
    if shard.boundaries_path is None:
        if eos_token_id is None:
            raise ValueError("eos_token_id")
        ends = np.flatnonzero(np.asarray(shard.ids()) == eos_token_id) + 1
        if shard.tokens and (ends.size == 0 or ends[-1] != shard.tokens):
            ends = np.append(ends, shard.tokens)
        start = 0
        for end in ends.tolist():
            yield Boundary(start=start, end=end, id="", src="", loc=0)
            start = end
        return
    path, last, last_line = shard.boundaries_path, 0, None
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
            for line, row in enumerate(csv.reader(stream), start=1):
                boundary = _boundary(row, path, line)
                if boundary.start != last:
                    expected = f"{last}, where the document before ends"
                    raise mismatch(path, "bad_boundary", f"{boundary.start}", expected, line=line, field="start")
                if not boundary.start <= boundary.end <= shard.tokens:
                    expected = f"between {boundary.start} and the file's {shard.tokens} {shard.dtype} tokens"
                    raise mismatch(path, "bad_boundary", f"{boundary.end}", expected, line=line, field="end")
                last, last_line = boundary.end, line
                yield boundary
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise mismatch(path, "truncated", f"cut short or damaged ({error})", "a whole gzip file") from error
    except UnicodeDecodeError as error:
        raise mismatch(path, "invalid_value", "not UTF-8", "UTF-8 text") from error
    if last != shard.tokens:
        expected = f"the file's {shard.tokens} {shard.dtype} tokens"
        raise mismatch(path, "bad_boundary", f"{last}", expected, line=last_line, field="end")


def _boundary(row: list[str], path: Path, line: int) -> Boundary:
    if len(row) != 5:
        raise mismatch(path, "invalid_value", f"{len(row)} columns", "start,end,id,src,loc", line=line)
    numbers = {}
    for column, name in ((0, "start"), (1, "end"), (4, "loc")):
        try:
            numbers[name] = int(row[column])
        except ValueError as error:
            raise mismatch(path, "wrong_type", shown(row[column]), "an integer", line=line, field=name) from error
    return Boundary(start=numbers["start"], end=numbers["end"], id=row[2], src=row[3], loc=numbers["loc"])


def _check_ids(directory: TokenDirectory, shard: Shard) -> None:
    ids = np.asarray(shard.ids())
    if directory.vocab_size is not None and ids.size and int(ids.max()) >= directory.vocab_size:
        place = int(np.argmax(ids >= directory.vocab_size))
        expected = f"ids below vocab_size {directory.vocab_size}"
        raise mismatch(shard.path, "out_of_range", f"with id {int(ids[place])} at token {place}", expected)


def _checked_boundaries(directory: TokenDirectory, shard: Shard) -> Iterator[Boundary]:
    """The boundaries, held against the end and begin tokens where a manifest names them."""
    eos = directory.eos_token_id if directory.manifest is not None else None
    bos, path, ids = directory.bos_token_id, shard.boundaries_path, shard.ids()
    for line, document in enumerate(boundaries(shard, directory.eos_token_id), start=1):
        part = ids[document.start : document.end]
        if path is not None and part.size and eos is not None:
            if part[-1] != eos:
                expected = f"eos_token_id {eos}"
                got = f"{document.end}, after token {int(part[-1])}"
                raise mismatch(path, "bad_boundary", got, expected, line=line, field="end")
            if (part[:-1] == eos).any():
                raise mismatch(path, "bad_boundary", "a document with an end within", "one at its end", line=line)
        if path is not None and part.size and bos is not None and part[0] != bos:
            got, expected = f"{document.start}, at token {int(part[0])}", f"bos_token_id {bos}"
            raise mismatch(path, "bad_boundary", got, expected, line=line, field="start")
        yield document


def validate(
    directory: Path, *, dtype: str | None = None, eos_token_id: int | None = None
) -> Iterator[tuple[TokenDirectory, Shard, list[Boundary]]]:
    """Check a directory of shards in full and yield each shard with its documents.

    Raises: FormatError: at the first shard that breaks a rule; ValueError: a missing argument, by name.
    """
    opened = open_tokens(directory, dtype=dtype, eos_token_id=eos_token_id)
    if opened.manifest is not None:
        check_files(opened.manifest, checksums=True)
        if opened.tokenizer_path is not None and sha256_file(opened.tokenizer_path) != opened.tokenizer_sha256:
            expected = "the sha256 in the manifest's details.tokenizer_sha256"
            raise mismatch(opened.tokenizer_path, "checksum_mismatch", "another tokenizer", expected)
    counted_documents = counted_tokens = 0
    for shard in opened.shards:
        _check_ids(opened, shard)
        documents = list(_checked_boundaries(opened, shard))
        counted_documents += len(documents)
        counted_tokens += shard.tokens
        yield opened, shard, documents
    if opened.manifest is None:
        return
    for name, value in (("documents", counted_documents), ("tokens", counted_tokens)):
        stated = field_of(opened.manifest.counts, name, "an integer", opened.manifest.path, prefix="counts.")
        if stated != value:
            raise mismatch(opened.manifest.path, "invalid_value", str(stated), str(value), field=f"counts.{name}")


def dump(directory: Path, *, dtype: str | None = None, eos_token_id: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield a row a document: file, offsets, provenance and ids."""
    for _, shard, documents in validate(directory, dtype=dtype, eos_token_id=eos_token_id):
        ids = shard.ids()
        for document in documents:
            yield {
                "file": shard.name,
                "start": document.start,
                "end": document.end,
                "id": document.id,
                "src": document.src,
                "loc": document.loc,
                "tokens": ids[document.start : document.end].tolist(),
            }

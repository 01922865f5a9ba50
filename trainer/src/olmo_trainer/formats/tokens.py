"""Token shards: raw little-endian ids and their document boundaries. Implements docs/formats/tokens.md v1."""

import csv
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .contract import Fields, FormatError, MissingFlagError, Reader, files_below, mismatch, sha256_file
from .manifest import Manifest, check_files, find_manifest

__all__ = ["DTYPES", "READERS", "Boundary", "Shard", "TokenDirectory", "boundaries", "dump", "open_tokens"]

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
        raise mismatch("wrong_dtype", path, got, f"whole {dtype} items")
    sidecar = path.with_suffix(".csv.gz")
    return Shard(
        path=path,
        name=path.relative_to(root).as_posix(),
        dtype=dtype,
        tokens=size_bytes // item_bytes,
        boundaries_path=sidecar if sidecar.is_file() else None,
    )


def _id_or_null(details: Fields, name: str) -> int | None:
    return None if details.get(name, "an integer or null") is None else details.integer(name)


def open_tokens(directory: Path, *, dtype: str | None = None, eos_token_id: int | None = None) -> TokenDirectory:
    """Find the shards of a directory; `dtype` and `eos_token_id` are for a directory without manifest, and only for it.

    Raises: FormatError: what the files and the manifest contradict each other in; MissingFlagError: `dtype` is needed.
    """
    bos = pad = vocab_size = None
    tokenizer_sha256 = None
    if manifest := find_manifest(directory, "tokens"):
        details = manifest.fields("details")
        dtype, vocab_size = details.string("dtype", choices=DTYPES), details.integer("vocab_size")
        tokenizer_sha256 = details.string("tokenizer_sha256")
        eos_token_id, bos, pad = (_id_or_null(details, f"{kind}_token_id") for kind in ("eos", "bos", "pad"))
        for error in check_files(manifest, checksums=False):
            raise error
        paths = [directory / row["path"] for row in manifest.files if row["path"].endswith(".npy")]
    else:
        found = files_below(directory) if directory.is_dir() else [directory]
        paths = [path for path in found if path.name.endswith(".npy")]
    if dtype is None:
        raise MissingFlagError("--dtype")
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
    Raises: FormatError: `bad_boundary`, `truncated`, `wrong_type`; MissingFlagError: no `.csv.gz` and no end token.
    """
    if shard.boundaries_path is None:
        if eos_token_id is None:
            raise MissingFlagError("--eos-token-id")
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
                    raise mismatch("bad_boundary", path, f"{boundary.start}", expected, line=line, field="start")
                if not boundary.start <= boundary.end <= shard.tokens:
                    expected = f"between {boundary.start} and the file's {shard.tokens} {shard.dtype} tokens"
                    raise mismatch("bad_boundary", path, f"{boundary.end}", expected, line=line, field="end")
                last, last_line = boundary.end, line
                yield boundary
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise mismatch("truncated", path, f"cut short or damaged ({error})", "a whole gzip file") from error
    except UnicodeDecodeError as error:
        raise mismatch("invalid_value", path, "not UTF-8", "UTF-8 text") from error
    if last != shard.tokens:
        expected = f"the file's {shard.tokens} {shard.dtype} tokens"
        raise mismatch("bad_boundary", path, f"{last}", expected, line=last_line, field="end")


def _boundary(row: list[str], path: Path, line: int) -> Boundary:
    if len(row) != 5:
        raise mismatch("invalid_value", path, f"{len(row)} columns", "start,end,id,src,loc", line=line)
    numbers = {}
    for column, name in ((0, "start"), (1, "end"), (4, "loc")):
        try:
            numbers[name] = int(row[column])
        except ValueError as error:
            raise mismatch("wrong_type", path, f'"{row[column]}"', "an integer", line=line, field=name) from error
    return Boundary(start=numbers["start"], end=numbers["end"], id=row[2], src=row[3], loc=numbers["loc"])


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
                raise mismatch("bad_boundary", path, got, expected, line=line, field="end")
            if (part[:-1] == eos).any():
                raise mismatch("bad_boundary", path, "a document with an end within", "one at its end", line=line)
        if path is not None and part.size and bos is not None and part[0] != bos:
            got, expected = f"{document.start}, at token {int(part[0])}", f"bos_token_id {bos}"
            raise mismatch("bad_boundary", path, got, expected, line=line, field="start")
        yield document


def dump(
    directory: Path, *, dtype: str | None = None, eos_token_id: int | None = None
) -> Iterator[dict[str, Any] | FormatError]:
    """Yield a row for each document (file, offsets, provenance and ids), each shard checked before its first row.

    Raises: FormatError: at the first shard that breaks a rule; MissingFlagError.
    """
    opened = open_tokens(directory, dtype=dtype, eos_token_id=eos_token_id)
    if opened.manifest and opened.tokenizer_path and sha256_file(opened.tokenizer_path) != opened.tokenizer_sha256:
        expected = "that of the manifest's details.tokenizer_sha256"
        raise mismatch("checksum_mismatch", opened.tokenizer_path, "a different tokenizer", expected)
    for shard in opened.shards:
        ids = shard.ids()
        if opened.vocab_size is not None and ids.size and int(ids.max()) >= opened.vocab_size:
            first = int(np.argmax(ids >= opened.vocab_size))
            expected = f"ids below vocab_size {opened.vocab_size}"
            raise mismatch("out_of_range", shard.path, f"with id {int(ids[first])} at token {first}", expected)
        for document in list(_checked_boundaries(opened, shard)):
            yield {
                "file": shard.name,
                "start": document.start,
                "end": document.end,
                "id": document.id,
                "src": document.src,
                "loc": document.loc,
                "tokens": ids[document.start : document.end].tolist(),
            }


READERS = {
    "tokens": Reader(
        dump,
        ("documents", "tokens"),
        lambda row: (1, len(row["tokens"])),
        flags={
            "dtype": {"choices": DTYPES, "help": "of token files without a manifest"},
            "eos_token_id": {"type": int, "metavar": "ID", "help": "of token files without a manifest"},
        },
        stated=("text_bytes",),
    )
}

"""Token shards, packed sequences and Megatron pairs: docs/formats/{tokens,packed,megatron}.md, version 1."""

from __future__ import annotations

import csv
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dolma.formats.contract import FormatError, MissingFlagError, Reader, sha256_file
from dolma.formats.files import artifact_files, open_text
from dolma.formats.manifest import Manifest, check_counts, find_manifest, read_manifest

__all__ = ["DTYPES", "READERS", "dump", "dump_megatron", "dump_packed"]

DTYPES = ("uint8", "uint16", "uint32")

Row = dict[str, Any]
Ids = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Shape:
    """What is the same for all shards of an artifact."""

    dtype: str
    vocab_size: int | None = None
    eos_token_id: int | None = None
    """Ends documents; checked in tables only where a manifest names it."""
    bos_token_id: int | None = None
    checked: bool = False


def dump(path: Path, *, dtype: str | None = None, eos_token_id: int | None = None) -> Iterator[Row | FormatError]:
    """Yields every document of the valid shards, or the error of an invalid one.

    Raises:
        MissingFlagError: ``dtype`` or ``eos_token_id`` is needed.
    """
    found = find_manifest(path, "tokens")
    if found:
        shape = shape_of(found)
    elif dtype is None:
        raise MissingFlagError("--dtype")
    else:
        shape = Shape(dtype, eos_token_id=eos_token_id)
    root, names = artifact_files(path, "tokens", lambda name: name.endswith(".npy"))
    for name in names:
        try:
            ids = ids_of(root / name, shape)
            table = (root / name).with_suffix(".csv.gz")
            for row in _table(table, ids, shape) if table.is_file() else _separated(ids, shape):
                yield {"file": name, **row, "tokens": ids[row["start"] : row["end"]].tolist()}
        except FormatError as error:
            yield error


def shape_of(found: Manifest) -> Shape:
    """From the details of a manifest.

    Raises:
        FormatError: a detail is wrong, or ``tokenizer.json`` is another than the details say.
    """
    details = found.fields("details")
    dtype = details.string("dtype")
    if dtype not in DTYPES:
        raise details.error("invalid_value", "dtype", f'is "{dtype}"; expected one of {", ".join(DTYPES)}')
    ids: dict[str, int | None] = {}
    for name in ("eos_token_id", "bos_token_id", "pad_token_id"):
        ids[name] = None if details.get(name) is None else details.integer(name)
    vocab_size = details.integer("vocab_size")
    tokenizer_sha256 = details.hash("tokenizer_sha256")
    tokenizer = found.directory / "tokenizer.json"
    if tokenizer.is_file() and sha256_file(tokenizer) != tokenizer_sha256:
        message = f'the sha256 is another; expected "details.tokenizer_sha256" {tokenizer_sha256[:12]}…'
        raise FormatError("checksum_mismatch", tokenizer, message)
    return Shape(dtype, vocab_size, ids["eos_token_id"], ids["bos_token_id"], checked=True)


def ids_of(path: Path, shape: Shape) -> Ids:
    """The items of a shard, mapped into memory.

    Raises:
        FormatError: ``wrong_dtype``, or ``out_of_range`` for an id outside the vocabulary.
    """
    size_bytes, item_bytes = path.stat().st_size, np.dtype(shape.dtype).itemsize
    if size_bytes % item_bytes:
        message = f"the file has {size_bytes} bytes; expected a multiple of {item_bytes}"
        raise FormatError("wrong_dtype", path, message)
    little = np.dtype(shape.dtype).newbyteorder("<")
    ids: Ids = np.memmap(path, dtype=little, mode="r") if size_bytes else np.empty(0, little)
    if shape.vocab_size is not None and ids.size and int(ids.max()) >= shape.vocab_size:
        position = int(np.argmax(ids >= shape.vocab_size))
        message = f"token {position} is {int(ids[position])}; expected an id below {shape.vocab_size}"
        raise FormatError("out_of_range", path, message)
    return ids


def _separated(ids: Ids, shape: Shape) -> Iterator[Row]:
    if shape.eos_token_id is None:
        raise MissingFlagError("--eos-token-id")
    ends = (np.flatnonzero(ids == shape.eos_token_id) + 1).tolist()
    if ids.size and (not ends or ends[-1] != ids.size):
        ends.append(int(ids.size))
    for start, end in zip([0, *ends], ends, strict=False):
        yield {"start": start, "end": end, "id": "", "src": "", "loc": 0}


def fail_at(path: Path, line: int | None, field: str | None, message: str, code: str = "bad_boundary") -> FormatError:
    """An error of a row of a table."""
    return FormatError(code, path, f'"{field}" {message}' if field else message, line=line, field=field)


def rows_of(path: Path) -> Iterator[tuple[int, Row]]:
    """Line and columns of every row of a table; bounds are not looked at."""
    for line, columns in enumerate(csv.reader(open_text(path)), start=1):
        if len(columns) != 5:
            message = f"the row has {len(columns)} columns; expected start,end,id,src,loc"
            raise fail_at(path, line, None, message, "invalid_value")
        numbers = {}
        for name, text in (("start", columns[0]), ("end", columns[1]), ("loc", columns[4])):
            if not (text.isascii() and text.removeprefix("-").isdigit()):
                raise fail_at(path, line, name, f'is "{text}"; expected an integer', "wrong_type")
            numbers[name] = int(text)
        yield line, {**numbers, "id": columns[2], "src": columns[3]}


def _table(path: Path, ids: Ids, shape: Shape) -> Iterator[Row]:
    before, line = 0, None
    for line, row in rows_of(path):
        start, end = row["start"], row["end"]
        if start != before:
            raise fail_at(path, line, "start", f"is {start}; expected {before}, where the document before ends")
        if not start <= end <= ids.size:
            raise fail_at(path, line, "end", f"is {end}; expected from {start} to {ids.size}")
        part = ids[start:end]
        if shape.checked and part.size and shape.eos_token_id is not None:
            if part[-1] != shape.eos_token_id:
                raise fail_at(path, line, "end", f"follows token {int(part[-1])}; expected {shape.eos_token_id}")
            if (part[:-1] == shape.eos_token_id).any():
                raise fail_at(path, line, None, f"token {shape.eos_token_id} is within; expected it only at the end")
        if shape.checked and part.size and shape.bos_token_id not in (None, int(part[0])):
            raise fail_at(path, line, "start", f"is at token {int(part[0])}; expected {shape.bos_token_id}")
        before = end
        yield row
    if before != ids.size:
        raise fail_at(path, line, "end", f"is {before} in the last row; expected {ids.size}, the number of tokens")


PACKINGS = ("best_fit", "concatenate")


def dump_packed(path: Path) -> Iterator[Row | FormatError]:
    """Yields every part, or the error of an invalid shard."""
    found = read_manifest(path, "packed")
    shape, details = shape_of(found), found.fields("details")
    length, pad = details.integer("sequence_length", minimum=1), details.integer("pad_token_id")
    packing = details.string("packing")
    if packing not in PACKINGS:
        raise details.error("invalid_value", "packing", f'is "{packing}"; expected one of {", ".join(PACKINGS)}')
    counts = {"padding": 0, "sequences": 0}
    failed = False
    for name in artifact_files(path, "packed", lambda name: name.endswith(".npy"))[1]:
        try:
            ids = ids_of(path / name, shape)
            if ids.size % length:
                message = f"the file has {ids.size} tokens; expected a multiple of {length}, the length of a sequence"
                raise FormatError("wrong_dtype", path / name, message)
            counts["padding"] += ids.size
            counts["sequences"] += ids.size // length
            for row in _parts((path / name).with_suffix(".csv.gz"), ids, length, pad):
                counts["padding"] -= row["end"] - row["start"]
                yield {"file": name, **row, "tokens": ids[row["start"] : row["end"]].tolist()}
        except FormatError as error:
            failed = True
            yield error
    if not failed:
        yield from check_counts(found, counts)


def _parts(path: Path, ids: Ids, length: int, pad: int) -> Iterator[Row]:
    before, line = 0, None
    for line, row in rows_of(path):
        start, end = row["start"], row["end"]
        if start != before:
            # what is left of a sequence is padding
            begins = -(-before // length) * length
            if start != begins:
                message = f"is {start}; expected {before}, where the part before ends, or {begins}, the next sequence"
                raise fail_at(path, line, "start", message)
            _check_padding(path, line, ids, before, begins, pad)
        last = (start // length + 1) * length
        if not start < end <= min(last, ids.size):
            raise fail_at(path, line, "end", f"is {end}; expected from {start + 1} to {last}, the end of the sequence")
        before = end
        yield row
    if ids.size - before >= length or (ids.size and not before):
        message = f"is {before} in the last row; expected it in the last sequence, which ends at {ids.size}"
        raise fail_at(path, line, "end", message)
    _check_padding(path, line, ids, before, int(ids.size), pad)


def _check_padding(path: Path, line: int | None, ids: Ids, start: int, end: int, pad: int) -> None:
    other = [index for index in range(start, end) if int(ids[index]) != pad]
    if other:
        message = f"token {other[0]} is {int(ids[other[0]])} and in no part; expected {pad}, which fills sequences up"
        raise fail_at(path, line, None, message)


_MAGIC = b"MMIDIDX\0\0"
_HEADER = struct.Struct("<9sQBQQ")
MEGATRON_DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}
"""Codes of the item types of ids."""

Numbers = npt.NDArray[np.int64]


def dump_megatron(path: Path) -> Iterator[Row | FormatError]:
    """Yields every document, or the error of an invalid pair."""
    root, names = artifact_files(path, "megatron", lambda name: name.endswith(".idx"))
    for name in names:
        try:
            yield from _megatron_documents(root / name, name)
        except FormatError as error:
            yield error


def _megatron_documents(path: Path, name: str) -> Iterator[Row]:
    dtype, lengths, documents = _index(path)
    binary = path.with_suffix(".bin")
    if not binary.is_file():
        message = f"file not found; expected it next to {path.name}"
        raise FormatError("missing_file", binary, message)
    size_bytes, expected = binary.stat().st_size, int(lengths.sum()) * dtype.itemsize
    if size_bytes != expected:
        message = f"the file has {size_bytes} bytes; expected {expected}, as {path.name} says"
        raise FormatError("wrong_size", binary, message)
    ids = np.memmap(binary, dtype=dtype, mode="r") if size_bytes else np.empty(0, dtype)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])[documents]
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        yield {"file": name, "start": start, "end": end, "tokens": ids[start:end].tolist()}


def _index(path: Path) -> tuple[np.dtype[Any], Numbers, Numbers]:
    """Item type, lengths of the sequences, and the first sequence of each document with their number at the end."""

    def fail(code: str, message: str) -> FormatError:
        return FormatError(code, path, message)

    data = path.read_bytes()
    if data[:9] != _MAGIC[: len(data)] or len(data) < 9:
        raise fail("invalid_value", f"the file begins with {data[:9]!r}; expected {_MAGIC!r}")
    if len(data) < _HEADER.size:
        raise fail("truncated", f"the file has {len(data)} bytes; expected a header of {_HEADER.size}")
    _, version, code, sequences, boundaries = _HEADER.unpack_from(data)
    if version != 1:
        raise fail("unsupported_version", f"the version is {version}; expected 1")
    if code not in MEGATRON_DTYPES:
        raise fail("wrong_dtype", f"the item type is {code}; expected one of {', '.join(map(str, MEGATRON_DTYPES))}")
    size = _HEADER.size + 12 * sequences + 8 * boundaries
    # a byte for each sequence may follow: its mode
    if len(data) not in (size, size + sequences):
        raise fail("truncated", f"the file has {len(data)} bytes; expected {size}, as its header says")
    dtype = np.dtype(MEGATRON_DTYPES[code]).newbyteorder("<")
    lengths = np.frombuffer(data, "<i4", sequences, _HEADER.size).astype(np.int64)
    pointers = np.frombuffer(data, "<i8", sequences, _HEADER.size + 4 * sequences)
    documents = np.frombuffer(data, "<i8", boundaries, _HEADER.size + 12 * sequences).astype(np.int64)
    if (lengths < 0).any() or (pointers != (np.cumsum(lengths) - lengths) * dtype.itemsize).any():
        raise fail("bad_boundary", "the pointers are not the sums of the lengths; expected sequences without gaps")
    whole = documents.size and documents[0] == 0 and documents[-1] == sequences and (np.diff(documents) >= 0).all()
    if not whole:
        raise fail("bad_boundary", f"the documents do not go from sequence 0 to {sequences}; expected all sequences")
    return dtype, lengths, documents


def _tokens(row: Row) -> tuple[int, int]:
    return 1, row["end"] - row["start"]


_FLAGS: dict[str, dict[str, Any]] = {
    "dtype": {"choices": DTYPES, "help": "of shards without a manifest"},
    "eos_token_id": {"type": int, "metavar": "ID", "help": "of shards without a table"},
}
READERS = {
    "tokens": Reader(dump, ("documents", "tokens"), _tokens, flags=_FLAGS, stated=("text_bytes",)),
    "packed": Reader(dump_packed, ("parts", "tokens"), _tokens),
    "megatron": Reader(dump_megatron, ("documents", "tokens"), _tokens),
}

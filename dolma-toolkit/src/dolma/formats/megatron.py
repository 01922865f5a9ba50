"""Pairs of ``.bin`` and ``.idx`` as Megatron-LM reads them: docs/formats/megatron.md, version 1."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dolma.formats import manifest
from dolma.formats.error import FormatError
from dolma.formats.files import artifact_files

__all__ = ["DTYPES", "read"]

MAGIC = b"MMIDIDX\0\0"
HEADER = struct.Struct("<9sQBQQ")
DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}
"""Codes of the item types that hold ids."""

Row = dict[str, Any]
Numbers = npt.NDArray[np.int64]


def read(path: Path, errors: list[FormatError]) -> Iterator[tuple[Row, dict[str, int]]]:
    """Every document and what it adds to the counts; what is wrong is appended to ``errors``."""
    found = manifest.read_optional(path, "megatron")
    if found:
        errors.extend(manifest.check_files(found))
        if errors:
            return
    root, names = artifact_files(path, found.paths if found else None, lambda name: name.endswith(".idx"))
    counts = {"documents": 0, "tokens": 0}
    for name in names:
        try:
            for row in _documents(root / name, name):
                added = {"documents": 1, "tokens": row["end"] - row["start"]}
                counts = {key: counts[key] + added[key] for key in counts}
                yield row, added
        except FormatError as error:
            errors.append(error)
    if found and not errors:
        errors.extend(manifest.check_counts(found, counts))


def _documents(path: Path, name: str) -> Iterator[Row]:
    dtype, lengths, documents = _index(path)
    binary = path.with_suffix(".bin")
    if not binary.is_file():
        message = f"file not found; expected it next to {path.name}"
        raise FormatError(str(binary), None, None, "missing_file", message)
    size_bytes, expected = binary.stat().st_size, int(lengths.sum()) * dtype.itemsize
    if size_bytes != expected:
        message = f"the file has {size_bytes} bytes; expected {expected}, as {path.name} says"
        raise FormatError(str(binary), None, None, "wrong_size", message)
    ids = np.memmap(binary, dtype=dtype, mode="r") if size_bytes else np.empty(0, dtype)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])[documents]
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        yield {"file": name, "start": start, "end": end, "tokens": ids[start:end].tolist()}


def _index(path: Path) -> tuple[np.dtype[Any], Numbers, Numbers]:
    """Item type, lengths of the sequences, and the first sequence of each document with their number at the end."""

    def fail(code: str, message: str) -> FormatError:
        return FormatError(str(path), None, None, code, message)

    data = path.read_bytes()
    if data[:9] != MAGIC[: len(data)] or len(data) < 9:
        raise fail("invalid_value", f"the file begins with {data[:9]!r}; expected {MAGIC!r}")
    if len(data) < HEADER.size:
        raise fail("truncated", f"the file has {len(data)} bytes; expected a header of {HEADER.size}")
    _, version, code, sequences, boundaries = HEADER.unpack_from(data)
    if version != 1:
        raise fail("unsupported_version", f"the version is {version}; expected 1")
    if code not in DTYPES:
        raise fail("wrong_dtype", f"the item type is {code}; expected one of {', '.join(map(str, DTYPES))}")
    size = HEADER.size + 12 * sequences + 8 * boundaries
    # a byte for each sequence may follow: its mode
    if len(data) not in (size, size + sequences):
        raise fail("truncated", f"the file has {len(data)} bytes; expected {size}, as its header says")
    dtype = np.dtype(DTYPES[code]).newbyteorder("<")
    lengths = np.frombuffer(data, "<i4", sequences, HEADER.size).astype(np.int64)
    pointers = np.frombuffer(data, "<i8", sequences, HEADER.size + 4 * sequences)
    documents = np.frombuffer(data, "<i8", boundaries, HEADER.size + 12 * sequences).astype(np.int64)
    if (lengths < 0).any() or (pointers != (np.cumsum(lengths) - lengths) * dtype.itemsize).any():
        raise fail("bad_boundary", "the pointers are not the sums of the lengths; expected sequences without gaps")
    whole = documents.size and documents[0] == 0 and documents[-1] == sequences and (np.diff(documents) >= 0).all()
    if not whole:
        raise fail("bad_boundary", f"the documents do not go from sequence 0 to {sequences}; expected all sequences")
    return dtype, lengths, documents

"""Vectors of docs/formats/tokens.md."""

import csv
import io
from typing import Any

import numpy as np

from .cases import Case, gz, head, invalid, manifest, pretty, sha256
from .tokenizer import END, TOKENIZER, VOCABULARY, encode

__all__ = ["binary", "cases", "details", "dump", "shard"]

Row = tuple[Any, ...]  # start, end, id, src, loc

_TEXTS = [
    ("a-1", "  the cat and the hat.\n"),
    ('a,"2"', "in the end, 42?"),
    ("ä-😀", "on and on and on"),
]


def binary(ids: list[int], dtype: str) -> bytes:
    """Raw little-endian items."""
    return np.asarray(ids, dtype=np.dtype(dtype).newbyteorder("<")).tobytes()


def _table(rows: list[Row]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def shard(name: str, dtype: str, documents: list[list[int]], rows: list[Row]) -> dict[str, bytes]:
    """A `.npy` and its table."""
    ids = [i for document in documents for i in document]
    return {f"{name}.npy": binary(ids, dtype), f"{name}.csv.gz": gz(_table(rows))}


def _rows(documents: list[list[int]], ids: list[str], src: str) -> list[Row]:
    rows, start = [], 0
    for loc, (document, id) in enumerate(zip(documents, ids, strict=True), start=1):
        rows.append((start, start + len(document), id, src, loc))
        start += len(document)
    return rows


def dump(file: str, documents: list[list[int]], rows: list[Row]) -> list[dict[str, Any]]:
    """The rows as a reader dumps them."""
    names = ("start", "end", "id", "src", "loc")
    return [
        {"file": file, "tokens": tokens} | dict(zip(names, row, strict=True))
        for tokens, row in zip(documents, rows, strict=True)
    ]


def details(**changes: Any) -> dict[str, Any]:
    """The details of a tokens manifest."""
    return {
        "dtype": "uint16",
        "vocab_size": len(VOCABULARY),
        "eos_token_id": END,
        "bos_token_id": None,
        "pad_token_id": 1,
        "tokenizer_sha256": sha256(TOKENIZER),
    } | changes


_DOCUMENTS = [[*encode(text), END] for _, text in _TEXTS]
_ROWS = _rows(_DOCUMENTS, [id for id, _ in _TEXTS], "documents/a.jsonl.gz")
_COUNTS = {
    "documents": len(_TEXTS),
    "tokens": sum(map(len, _DOCUMENTS)),
    "text_bytes": sum(len(text.strip().encode()) for _, text in _TEXTS),
}
_SHARDS = {
    **shard("part-0", "uint16", _DOCUMENTS[:2], _ROWS[:2]),
    **shard("part-1", "uint16", _DOCUMENTS[2:], _rows(_DOCUMENTS[2:], ["ä-😀"], "b/ü.jsonl.gz")),
    "tokenizer.json": TOKENIZER,
}


def _with_manifest(data: dict[str, bytes], counts: dict[str, int], changes: Any = (), **more: Any) -> dict[str, bytes]:
    value = manifest("tokens", data, counts, details=details(**more)) | dict(changes)
    return {**data, "manifest.json": pretty(value)}


def _small(rows: list[Row] | None = None, ids: list[int] | None = None, **more: Any) -> dict[str, bytes]:
    """One shard of three documents `5 6 0 | 7 0 | 8 9 0` with a manifest, its table or ids replaced."""
    ids = [5, 6, END, 7, END, 8, 9, END] if ids is None else ids
    rows = [(0, 3, "x", "f", 1), (3, 5, "y", "f", 2), (5, 8, "z", "f", 3)] if rows is None else rows
    data = {"s.npy": binary(ids, "uint16"), "s.csv.gz": gz(_table(rows))}
    return _with_manifest(data, {"documents": len(rows), "tokens": len(ids), "text_bytes": 12}, **more)


def _valid() -> list[Case]:
    large = [[100256, 65536, 7, 100257], [70000, 100257]]
    large_rows = _rows(large, ["1", "2"], "/data/2.jsonl.gz")
    bytes_alone = [[9, 8, 3], [3], [255, 3]]
    marked = [[2, 5, 6, END], [2, 7, END]]
    marked_rows = _rows(marked, ["m", "n"], "m.jsonl")
    marked_data = {
        **shard("empty", "uint8", [], []),
        **shard("full", "uint8", marked, marked_rows),
    }
    marked_counts = {"documents": 2, "tokens": 7, "text_bytes": 9}
    byte_rows = _rows(bytes_alone, ["", "", ""], "")
    return [
        Case(
            name="uint16_two_shards",
            data=_with_manifest(_SHARDS, _COUNTS),
            dump=[
                head("tokens", _COUNTS),
                *dump("part-0.npy", _DOCUMENTS[:2], _ROWS[:2]),
                *dump("part-1.npy", _DOCUMENTS[2:], _rows(_DOCUMENTS[2:], ["ä-😀"], "b/ü.jsonl.gz")),
            ],
        ),
        Case(
            name="uint32_foreign",
            data=shard("000000", "uint32", large, large_rows),
            dump=[head("tokens", {"documents": 2, "tokens": 6}), *dump("000000.npy", large, large_rows)],
            arguments=["--dtype", "uint32"],
        ),
        Case(
            name="uint8_without_table",
            data={"deep/x.npy": binary([i for document in bytes_alone for i in document], "uint8")},
            dump=[
                head("tokens", {"documents": 3, "tokens": 6}),
                *dump("deep/x.npy", bytes_alone, [(*row[:4], 0) for row in byte_rows]),
            ],
            arguments=["--dtype", "uint8", "--eos-token-id", "3"],
        ),
        Case(
            name="begin_and_end_and_empty_shard",
            data=_with_manifest(marked_data, marked_counts, dtype="uint8", bos_token_id=2),
            dump=[head("tokens", marked_counts), *dump("full.npy", marked, marked_rows)],
        ),
    ]


def cases() -> list[Case]:
    """Valid: two shards, foreign uint32, no table, an empty shard. Invalid: one case per rule."""
    odd = {"s.npy": b"\x05\x00\x00\x00\x07", "s.csv.gz": gz(_table([(0, 2, "x", "f", 1)]))}
    many = gz(_table([(2 * n, 2 * n + 2, f"{n**5}", "f", n + 1) for n in range(60)]))
    cut = {"s.npy": binary([5, END] * 60, "uint16"), "s.csv.gz": many[:-40]}
    four = gz(b"0,3,x,f,1\r\n3,5,y,f\r\n5,8,z,f,3\r\n")
    letters = gz(b"0,3,x,f,1\r\nthree,5,y,f,2\r\n5,8,z,f,3\r\n")
    ids = binary([5, 6, END, 7, END, 8, 9, END], "uint16")
    counts = {"documents": 3, "tokens": 8, "text_bytes": 12}
    without_dtype = {key: value for key, value in details().items() if key != "dtype"}
    missing = {path: content for path, content in _small().items() if path != "s.npy"}
    three = gz(b"0,3,x,f,1\r\n3,5,y,f,2\r\n5,8,z,f,3\r\n")
    other = {"tokenizer.json": TOKENIZER.replace(b"1.0", b"1.1"), "s.npy": ids, "s.csv.gz": three}
    table = "s.csv.gz"
    gap = [(0, 3, "x", "f", 1), (4, 5, "y", "f", 2), (5, 8, "z", "f", 3)]
    backwards = [(0, 5, "x", "f", 1), (5, 3, "y", "f", 2), (3, 8, "z", "f", 3)]
    past = [(0, 3, "x", "f", 1), (3, 5, "y", "f", 2), (5, 9, "z", "f", 3)]
    return [
        *_valid(),
        invalid("odd_size", odd, "wrong_dtype", "s.npy", arguments=["--dtype", "uint16", "--eos-token-id", "0"]),
        invalid("gap", _small(gap, eos_token_id=None), "bad_boundary", table, 2, "start"),
        invalid("backwards", _small(backwards, eos_token_id=None), "bad_boundary", table, 2, "end"),
        invalid("past_end", _small(past), "bad_boundary", table, 3, "end"),
        invalid("no_end_token", _small(ids=[5, 6, END, 7, 7, 8, 9, END]), "bad_boundary", table, 2, "end"),
        invalid("end_token_within", _small(ids=[5, 6, END, 7, END, END, 9, END]), "bad_boundary", table, 3),
        invalid("id_out_of_range", _small(ids=[5, 6, END, 64, END, 8, 9, END]), "out_of_range", "s.npy"),
        invalid("truncated", cut, "truncated", table, arguments=["--dtype", "uint16", "--eos-token-id", "0"]),
        invalid(
            "start_is_word", _with_manifest({"s.npy": ids, table: letters}, counts), "wrong_type", table, 2, "start"
        ),
        invalid("four_columns", _with_manifest({"s.npy": ids, table: four}, counts), "invalid_value", table, 2),
        invalid("missing_file", missing, "missing_file", "s.npy"),
        invalid(
            "details_without_dtype",
            _with_manifest({}, dict.fromkeys(counts, 0), {"details": without_dtype}),
            "missing_field",
            "manifest.json",
            None,
            "details.dtype",
        ),
        invalid("signed_dtype", _small(dtype="int16"), "invalid_value", "manifest.json", None, "details.dtype"),
        invalid("other_tokenizer", _with_manifest(other, counts), "checksum_mismatch", "tokenizer.json"),
        invalid(
            "unknown_format",
            _with_manifest({}, dict.fromkeys(counts, 0), {"format": "document"}),
            "unknown_format",
            "manifest.json",
            None,
            "format",
        ),
        invalid(
            "newer_version",
            _with_manifest({}, dict.fromkeys(counts, 0), {"version": 2}),
            "unsupported_version",
            "manifest.json",
            None,
            "version",
        ),
    ]

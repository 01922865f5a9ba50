"""Vectors of docs/formats/megatron.md."""

import struct
from typing import Any

from .cases import Case, head, invalid, manifest, pretty
from .tokenizer import END
from .tokens import binary, details

__all__ = ["cases"]

DOCUMENTS = [[5, 6, END], [END], [7, 8, 9, END]]


def _index(
    lengths: list[int], item_bytes: int, code: int, documents: list[int] | None = None, gap: int = 0, version: int = 1
) -> bytes:
    pointers = [sum(lengths[:n]) * item_bytes + gap * n for n in range(len(lengths))]
    documents = list(range(len(lengths) + 1)) if documents is None else documents
    return (
        struct.pack("<9sQBQQ", b"MMIDIDX\0\0", version, code, len(lengths), len(documents))
        + struct.pack(f"<{len(lengths)}i", *lengths)
        + struct.pack(f"<{len(pointers)}q", *pointers)
        + struct.pack(f"<{len(documents)}q", *documents)
    )


def _pair(**changes: Any) -> dict[str, bytes]:
    ids = [id for document in DOCUMENTS for id in document]
    given = {"item_bytes": 2, "code": 8} | changes
    return {
        "000000.bin": binary(ids, "uint16"),
        "000000.idx": _index([len(document) for document in DOCUMENTS], **given),
    }


def _dump(documents: list[list[int]]) -> list[dict[str, Any]]:
    rows, start = [], 0
    for document in documents:
        rows.append({"file": "000000.idx", "start": start, "end": start + len(document), "tokens": document})
        start += len(document)
    return rows


def cases() -> list[Case]:
    """Valid: a pair with a manifest, foreign int32 of several sequences per document. Invalid: one case per rule."""
    counts = {"documents": 3, "tokens": 8}
    data = _pair()
    value = manifest("megatron", data, counts, details=details())
    two = [[100256, 70000, 100257], [5]]
    foreign = {
        "000000.bin": binary([100256, 70000, 100257, 5], "int32"),
        "000000.idx": _index([2, 1, 1], 4, 4, [0, 2, 3]),
    }
    index = "000000.idx"
    return [
        Case(
            name="uint16",
            data={**data, "manifest.json": pretty(value)},
            dump=[head("megatron", counts), *_dump(DOCUMENTS)],
        ),
        Case(
            name="int32_foreign",
            data=foreign,
            dump=[head("megatron", {"documents": 2, "tokens": 4}), *_dump(two)],
        ),
        invalid("other_file", {**_pair(), index: b"TNTIDX\0\0" + bytes(40)}, "invalid_value", index),
        invalid("truncated", {**_pair(), index: _pair()[index][:-8]}, "truncated", index),
        invalid("floating_point", _pair(code=6), "wrong_dtype", index),
        invalid("gap", _pair(gap=2), "bad_boundary", index),
        invalid("documents_without_end", _pair(documents=[0, 1, 2]), "bad_boundary", index),
        invalid("short_binary", {**_pair(), "000000.bin": _pair()["000000.bin"][:-2]}, "wrong_size", "000000.bin"),
        invalid("without_binary", {index: _pair()[index]}, "missing_file", "000000.bin"),
        invalid("newer_index", _pair(version=2), "unsupported_version", index),
    ]

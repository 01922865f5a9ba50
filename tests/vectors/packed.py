"""Vectors of docs/formats/packed.md."""

from typing import Any

from .cases import Case, head, invalid, manifest, pretty
from .tokenizer import END
from .tokens import binary, details, dump, shard

__all__ = ["cases"]

LENGTH, PAD = 4, 1

# two sequences and a half: x whole, y whole and two tokens of padding, z in two parts
IDS = [5, 6, 7, END, 8, END, PAD, PAD, 9, 9, 9, 9, 9, END, PAD, PAD]
ROWS = [(0, 4, "x", "f", 1), (4, 6, "y", "f", 2), (8, 12, 'z,"1"', "d/ü", 3), (12, 14, 'z,"1"', "d/ü", 3)]
COUNTS = {"documents": 3, "documents_cut": 1, "padding": 4, "parts": 4, "sequences": 4, "tokens": 12}


def _artifact(
    rows: list[Any] = ROWS, ids: list[int] = IDS, counts: dict[str, int] = COUNTS, **changes: Any
) -> dict[str, bytes]:
    data = shard("000000", "uint16", [ids], rows)
    shape = details(**{"sequence_length": LENGTH, "packing": "best_fit", "pad_token_id": PAD} | changes)
    return {**data, "manifest.json": pretty(manifest("packed", data, counts, details=shape))}


def cases() -> list[Case]:
    """Valid: best-fit and concatenated. Invalid: one case per rule."""
    table, name = "000000.csv.gz", "000000.npy"
    joined = [5, 6, END, 7, 7, 7, 7, END, 8, END, PAD, PAD]
    joined_rows = [(0, 3, "x", "f", 1), (3, 4, "y", "f", 2), (4, 8, "y", "f", 2), (8, 10, "z", "f", 3)]
    joined_counts = {"documents": 3, "documents_cut": 1, "padding": 2, "parts": 4, "sequences": 3, "tokens": 10}
    shown = {"parts": 4, "tokens": 12}
    crossing = [ROWS[0], (4, 6, "y", "f", 2), (8, 14, "z", "f", 3)]
    return [
        Case(
            name="best_fit",
            data=_artifact(),
            dump=[head("packed", shown), *dump("000000.npy", [IDS[row[0] : row[1]] for row in ROWS], ROWS)],
        ),
        Case(
            name="concatenate",
            data=_artifact(joined_rows, joined, joined_counts, packing="concatenate", eos_token_id=None),
            dump=[
                head("packed", {"parts": 4, "tokens": 10}),
                *dump("000000.npy", [joined[row[0] : row[1]] for row in joined_rows], joined_rows),
            ],
        ),
        invalid("part_crosses_sequences", _artifact(crossing), "bad_boundary", table, 3, "end"),
        invalid("gap", _artifact([ROWS[0], (5, 6, "y", "f", 2), *ROWS[2:]]), "bad_boundary", table, 2, "start"),
        invalid("empty_sequence", _artifact(ROWS[:2]), "bad_boundary", table, 2, "end"),
        invalid("padding_is_text", _artifact(ids=[*IDS[:6], 7, *IDS[7:]]), "bad_boundary", table, 3),
        invalid("no_whole_sequence", _artifact(ids=IDS[:-1]), "wrong_dtype", name),
        invalid(
            "unknown_packing", _artifact(packing="random"), "invalid_value", "manifest.json", None, "details.packing"
        ),
        invalid("without_manifest", {name: binary(IDS, "uint16")}, "missing_file", "manifest.json"),
        invalid(
            "wrong_padding",
            _artifact(counts=COUNTS | {"padding": 3}),
            "invalid_value",
            "manifest.json",
            None,
            "counts.padding",
        ),
    ]

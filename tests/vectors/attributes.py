"""Vectors of docs/formats/attributes.md."""

from typing import Any

from .cases import ASTRAL, Case, gz, head, invalid, json_lines, manifest, pretty

__all__ = ["cases"]

_DOCUMENTS: list[dict[str, Any]] = [
    {"id": "a-1", "text": "Hello there", "source": "web"},
    {"id": "a-2", "text": ASTRAL, "source": "web"},
    {"id": "a-3", "text": "", "source": "web"},
]
_ASTRAL_LENGTH = len(ASTRAL)
_ROWS: list[dict[str, Any]] = [
    {
        "id": "a-1",
        "attributes": {"exp__length__document": [[0, 11, 11.0]], "exp__word__w": [[6, 11, 0.5], [0, 5, -1.25]]},
    },
    # the emoji is one code point from 14 to 15, two UTF-16 units and four bytes
    {
        "id": "a-2",
        "attributes": {
            "exp__length__document": [[0, _ASTRAL_LENGTH, float(_ASTRAL_LENGTH)]],
            "exp__emoji__e": [[14, 15, 1.0]],
        },
    },
    {"id": "a-3", "attributes": {}, "source": "web"},
]
_PART = "part.jsonl.gz"
_EXTRA = {f"documents/{_PART}": gz(json_lines(_DOCUMENTS))}
_FLAGS = ["--documents", "documents"]


def _spans(rows: list[dict[str, Any]]) -> int:
    return sum(len(spans) for row in rows for spans in row["attributes"].values())


def _dump(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = [{"id": row["id"], "attributes": row["attributes"]} for row in rows]
    return [head("attributes", {"documents": len(rows), "spans": _spans(rows)}), *rows]


def _manifest(data: dict[str, bytes], rows: list[dict[str, Any]], **details: Any) -> dict[str, Any]:
    keys = sorted({key for row in rows for key in row["attributes"]})
    counts = {"documents": len(rows), "spans": _spans(rows)}
    return manifest("attributes", data, counts, details={"keys": keys, "documents": "../documents"} | details)


def _lines(name: str, second: bytes, code: str, field: str | None = None, aligned: bool = True) -> Case:
    """Three rows, the second one broken; `aligned` adds their documents."""
    lines = json_lines(_ROWS[:1]) + second + b"\n" + json_lines(_ROWS[2:])
    more: dict[str, Any] = {"arguments": _FLAGS, "extra": _EXTRA} if aligned else {}
    return invalid(name, {_PART: gz(lines)}, code, _PART, 2, field, **more)


def _rows(name: str, rows: list[dict[str, Any]], line: int, field: str | None = None) -> Case:
    return invalid(
        name, {_PART: gz(json_lines(rows))}, "misaligned", _PART, line, field, arguments=_FLAGS, extra=_EXTRA
    )


def _listed(name: str, value: str, code: str, field: str) -> Case:
    """Three rows; the second has an invalid value under a key that the manifest lists."""
    data = {_PART: gz(json_lines(_ROWS[:1]) + _row(f'{{"k": {value}}}') + b"\n" + json_lines(_ROWS[2:]))}
    stated = _manifest(data, _ROWS)
    stated["details"] |= {"keys": ["k"]}
    return invalid(name, {**data, "manifest.json": pretty(stated)}, code, _PART, 2, field)


def _row(attributes: str, id: str = "a-2") -> bytes:
    return f'{{"id": "{id}", "attributes": {attributes}}}'.encode()


def cases() -> list[Case]:
    """Valid: aligned by flag, by manifest, duplicates in bytes, without documents. Invalid: one case per rule."""
    data = {_PART: gz(json_lines(_ROWS))}
    size_bytes = len(ASTRAL.encode())
    duplicates = [
        {"id": "a-1", "attributes": {}},
        {"id": "a-2", "attributes": {"dup": [[0, size_bytes, 1.0]]}},
        {"id": "a-3", "attributes": {"dup": [[0, 0, 1.0]]}},
    ]
    marked = {_PART: gz(json_lines(duplicates))}
    value = _manifest(data, _ROWS)
    integers = [{"attributes": {"dup": [[0, 45, 1]]}, "id": "1"}]
    long = gz(json_lines([{"id": f"t-{n}", "attributes": {"k": [[n, n * n, n**3]]}} for n in range(60)]))
    free: list[dict[str, Any]] = [
        {
            "id": "a-1",
            "attributes": {"toxicity": 0.7, "pii": {"email": [[6, 11, 0.9]], "too_much": False}, "none": None},
        },
        {
            "id": "a-2",
            "attributes": {"spans": [[0, 5, 0.5, "PER", [1]], [6, 9, 0.25, None, []]], "pair": [[0, 1, 1], [2]]},
        },
        {"id": "a-3", "attributes": {"label": "好评", "backwards": [[2, 1, 1.5]]}},
    ]
    return [
        Case(
            name="any_json",
            data={_PART: gz(json_lines(free))},
            dump=[head("attributes", {"documents": 3, "spans": 2}), *free],
            arguments=_FLAGS,
            extra=_EXTRA,
        ),
        Case(name="aligned_by_flag", data=data, dump=_dump(_ROWS), arguments=_FLAGS, extra=_EXTRA),
        Case(name="with_manifest", data={**data, "manifest.json": pretty(value)}, dump=_dump(_ROWS), extra=_EXTRA),
        Case(
            name="duplicates_in_bytes",
            data={**marked, "manifest.json": pretty(_manifest(marked, duplicates, byte_length_keys=["dup"]))},
            dump=_dump(duplicates),
            extra=_EXTRA,
        ),
        Case(
            name="integer_scores_alone",
            data={_PART: gz(json_lines(integers))},
            dump=_dump([{"id": "1", "attributes": {"dup": [[0, 45, 1.0]]}}]),
        ),
        _lines("not_json", b"{", "not_json", aligned=False),
        _lines("not_object", b"3", "not_object", aligned=False),
        _lines("missing_attributes", b'{"id": "a-2"}', "missing_field", "attributes", aligned=False),
        _listed("start_is_float", "[[0.0, 1, 1]]", "wrong_type", "attributes.k.0.0"),
        _listed("score_is_boolean", "[[0, 1, true]]", "wrong_type", "attributes.k.0.2"),
        _listed("span_of_two", "[[0, 1, 1], [1, 2]]", "invalid_value", "attributes.k.1"),
        _listed("span_backwards", "[[2, 1, 1]]", "out_of_range", "attributes.k.0"),
        _listed("no_spans", "0.7", "wrong_type", "attributes.k"),
        _lines("span_past_end", _row(f'{{"k": [[0, {_ASTRAL_LENGTH + 1}, 1]]}}'), "out_of_range", "attributes.k.0"),
        _lines("other_id", _row("{}", "a-9"), "misaligned", "id"),
        _rows("row_too_few", _ROWS[:2], 3),
        _rows("row_too_many", [*_ROWS, {"id": "a-4", "attributes": {}}], 4),
        invalid("truncated", {_PART: long[:-40]}, "truncated", _PART),
        invalid(
            "unknown_format",
            {**data, "manifest.json": pretty(value | {"format": "document"})},
            "unknown_format",
            "manifest.json",
            None,
            "format",
            extra=_EXTRA,
        ),
        invalid(
            "newer_version",
            {**data, "manifest.json": pretty(value | {"version": 2})},
            "unsupported_version",
            "manifest.json",
            None,
            "version",
            extra=_EXTRA,
        ),
        invalid("missing_file", {"manifest.json": pretty(value)}, "missing_file", _PART, extra=_EXTRA),
        invalid(
            "details_without_keys",
            {**data, "manifest.json": pretty(value | {"details": {"documents": "../documents"}})},
            "missing_field",
            "manifest.json",
            None,
            "details.keys",
            extra=_EXTRA,
        ),
    ]

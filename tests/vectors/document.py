"""Vectors of docs/formats/document.md."""

import json
from typing import Any

from .cases import ASTRAL, Case, compress, gz, head, invalid, json_lines, manifest, pretty

__all__ = ["ROWS", "cases", "normal"]

ROWS: list[dict[str, Any]] = [
    {"id": "a-1", "text": "First document.\nTwo lines.", "source": "books", "added": "2024-03-01T00:00:00Z"},
    {
        "id": "a-2",
        "text": ASTRAL,
        "source": "books",
        "created": "1999-12-31",
        "version": "v2",
        "metadata": {"subdomain": "poésie", "url": "https://example.org/ü", "depth": {"list": [1, 2.5, None, True]}},
        "attributes": {"exp__len__document": [[0, 27, 27.0]], "exp__none__span": []},
    },
    {"id": "a-3", "text": "", "source": "books", "extra_field": {"passes": "through"}},
]


def normal(row: dict[str, Any]) -> dict[str, Any]:
    """The row as every reader dumps it."""
    metadata = row.get("metadata") or {}
    metadata = json.loads(metadata) if isinstance(metadata, str) else dict(metadata)
    if row.get("subdomain") is not None:
        metadata["subdomain"] = row["subdomain"]
    return {
        "id": row["id"],
        "text": row["text"],
        "source": row.get("source") or "",
        "added": row.get("added") or "",
        "created": row.get("created") or "",
        "version": row.get("version"),
        "metadata": metadata,
        "attributes": row.get("attributes") or {},
    }


def _counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {"documents": len(rows), "text_bytes": sum(len(row["text"].encode()) for row in rows)}


def _dump(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [head("document", _counts(rows)), *map(normal, rows)]


def _lines(name: str, second: bytes, code: str, field: str | None = None) -> Case:
    """Three lines, the second one broken."""
    lines = json_lines(ROWS[:1]) + second + b"\n" + json_lines(ROWS[2:])
    return invalid(name, {"part.jsonl.gz": gz(lines)}, code, "part.jsonl.gz", 2, field)


def _with_manifest(name: str, code: str, path: str, field: str | None, **changes: Any) -> Case:
    data = {"part.jsonl.gz": gz(json_lines(ROWS))}
    value = manifest("document", data, _counts(ROWS)) | changes
    return invalid(name, {**data, "manifest.json": pretty(value)}, code, path, None, field)


def cases() -> list[Case]:
    """Valid: with and without a manifest, every compression, foreign shapes, nothing. Invalid: one case per rule."""
    shards = {"books/0000.jsonl.gz": gz(json_lines(ROWS[:2])), "books/0001.jsonl.gz": gz(json_lines(ROWS[2:]))}
    single = [{"id": f"c-{n}", "text": f"text {n} é"} for n in range(5)]
    names = ["c0.json", "c1.jsonl.bz2", "c2.jsonl.gz", "c3.json.xz", "c4.jsonl.zst"]
    compressed = {}
    for file_name, row in zip(names, single, strict=True):
        extension = file_name.rsplit(".", 1)[-1]
        content = json_lines([row])
        compressed[file_name] = content if extension == "json" else compress(content, extension)
    foreign = [
        {
            "text": "top-level",
            "id": "p-1",
            "subdomain": "reddit_x",
            "source": "paloma",
            "metadata": None,
            "token_length": 3,
        },
        {"text": "both", "id": "p-2", "subdomain": "outer", "metadata": {"subdomain": "inner"}, "version": None},
        {
            "text": "no newline at the end",
            "id": "p-3",
            "added": None,
            "created": None,
            "source": None,
            "attributes": None,
        },
        {
            "text": "attributes of another tool",
            "id": "p-4",
            "metadata": '{"url": "https://example.org", "subdomain": "inside"}',
            "attributes": {
                "toxicity": 0.7,
                "pii": {"email": [[6, 15, 1]]},
                "four": [[0, 1, 0.5, "x"]],
                "backwards": [[2, 1, 0]],
            },
        },
    ]
    # a repeated field: the last one counts, as in Python's json
    repeated = (
        b'{"id": "r-1", "text": "first", "source": "a", "metadata": {"a": 1}, "text": "second", "metadata": {"b": 2}}\n'
    )
    whole = gz(json_lines(ROWS))
    long = gz(json_lines([{"id": f"t-{n}", "text": f"{n * n} {n**3} {n**4}"} for n in range(40)]))
    return [
        Case(
            name="shards_with_manifest",
            data={**shards, "manifest.json": pretty(manifest("document", shards, _counts(ROWS)))},
            dump=_dump(ROWS),
        ),
        Case(name="every_compression", data=compressed, dump=_dump(single)),
        Case(name="foreign_rows", data={"x.jsonl": json_lines(foreign)[:-1]}, dump=_dump(foreign)),
        Case(
            name="repeated_field",
            data={"x.jsonl": repeated},
            dump=_dump([{"id": "r-1", "text": "second", "source": "a", "metadata": {"b": 2}}]),
        ),
        Case(
            name="no_documents",
            data={"z.jsonl": b"", "manifest.json": pretty(manifest("document", {"z.jsonl": b""}, _counts([])))},
            dump=_dump([]),
        ),
        _lines("not_json", b'{"id": "a-2", "text": "cut', "not_json"),
        _lines("blank_line", b"", "not_json"),
        _lines("not_utf8", b'{"id": "a-2", "text": "\xff\xfe"}', "not_json"),
        _lines("lone_surrogate", b'{"id": "a-2", "text": "\\ud83d"}', "not_json"),
        _lines("not_object", b'["a-2", "text"]', "not_object"),
        _lines("missing_text", b'{"id": "a-2"}', "missing_field", "text"),
        _lines("text_is_number", b'{"id": "a-2", "text": 7}', "wrong_type", "text"),
        _lines("id_is_number", b'{"id": 2, "text": "x"}', "wrong_type", "id"),
        _lines("empty_id", b'{"id": "", "text": "x"}', "invalid_value", "id"),
        _lines(
            "subdomain_is_number",
            b'{"id": "a-2", "text": "x", "metadata": {"subdomain": 1}}',
            "wrong_type",
            "metadata.subdomain",
        ),
        _lines("metadata_is_not_json", b'{"id": "a-2", "text": "x", "metadata": "url"}', "wrong_type", "metadata"),
        _lines("metadata_is_list", b'{"id": "a-2", "text": "x", "metadata": "[1]"}', "wrong_type", "metadata"),
        _lines("attributes_are_list", b'{"id": "a-2", "text": "x", "attributes": [1]}', "wrong_type", "attributes"),
        # 8 bytes of trailer and some data are missing, so no line may count as the last
        invalid("truncated", {"part.jsonl.gz": long[:-40]}, "truncated", "part.jsonl.gz"),
        _with_manifest("unknown_format", "unknown_format", "manifest.json", "format", format="tokens"),
        _with_manifest("newer_version", "unsupported_version", "manifest.json", "version", version=2),
        _with_manifest(
            "wrong_count", "invalid_value", "manifest.json", "counts.documents", counts=_counts(ROWS) | {"documents": 4}
        ),
        invalid(
            "checksum_mismatch",
            {
                "part.jsonl.gz": whole,
                "manifest.json": pretty(
                    manifest("document", {"part.jsonl.gz": bytes(len(whole))}, _counts(ROWS)),
                ),
            },
            "checksum_mismatch",
            "part.jsonl.gz",
        ),
    ]

"""Vectors of docs/formats/manifest.md."""

from typing import Any

from .cases import Case, head, invalid, manifest, pretty, sha256

__all__ = ["cases"]

_DATA = {"a.txt": b"alpha\n", "parts/b.txt": "bêta\n".encode()}
_HASH = sha256(b"an input")
_INPUTS = [
    {"role": "documents", "path": "../documents", "manifest_sha256": _HASH},
    {"role": "source", "path": "https://example.org/dump.xml", "sha256": _HASH, "size_bytes": 8},
]
_MANIFEST = "manifest.json"


def _dump(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        head(value["format"], value["counts"], details=value["details"], files=value["files"], inputs=value["inputs"])
    ]


def _valid(name: str, data: dict[str, bytes], value: dict[str, Any]) -> Case:
    return Case(name=name, data={**data, _MANIFEST: pretty(value)}, dump=_dump(value))


def _broken(name: str, code: str, field: str | None, **changes: Any) -> Case:
    value = manifest("filter", _DATA, {"items": 2}, inputs=_INPUTS) | changes
    return invalid(name, {**_DATA, _MANIFEST: pretty(value)}, code, _MANIFEST, None, field)


def cases() -> list[Case]:
    """Valid: full, empty and non-ASCII. Invalid: one case per rule."""
    full = manifest(
        "filter", _DATA, {"items": 2}, details={"rate": 0.25}, inputs=_INPUTS, config={"b": [1, 2], "a": None}
    )
    accents = {"données/日本.txt": b"x"}
    good = manifest("filter", _DATA, {"items": 2})
    entries = good["files"]
    without_writer = {key: value for key, value in good.items() if key != "writer"}
    return [
        _valid("full", _DATA, full),
        _valid("empty", {}, manifest("report", {}, {})),
        _valid("not_ascii", accents, manifest("table", accents, {}, config={"titre": "Grüße 😀"})),
        # a log next to the artifact is not part of it
        _valid("unlisted_file", {**_DATA, "metrics.jsonl": b'{"step":1}\n'}, good),
        invalid("not_json", {_MANIFEST: b'{"format": "filter",\n'}, "not_json", _MANIFEST),
        invalid("not_object", {_MANIFEST: b"[]\n"}, "not_object", _MANIFEST),
        invalid("no_manifest", _DATA, "missing_file", _MANIFEST),
        invalid(
            "missing_field", {**_DATA, _MANIFEST: pretty(without_writer)}, "missing_field", _MANIFEST, None, "writer"
        ),
        _broken("count_not_integer", "wrong_type", "counts.items", counts={"items": 2.5}),
        _broken("unknown_field", "invalid_value", "created", created="2024-01-01"),
        _broken(
            "hash_upper_case", "invalid_value", "files.0.sha256", files=[entries[0] | {"sha256": "A" * 64}, entries[1]]
        ),
        _broken("files_not_sorted", "invalid_value", "files.1.path", files=entries[::-1]),
        _broken("unknown_format", "unknown_format", "format", format="spreadsheet"),
        _broken("newer_version", "unsupported_version", "version", version=2),
        _broken(
            "absolute_path", "unsafe_path", "files.0.path", files=[entries[0] | {"path": "/etc/hostname"}, entries[1]]
        ),
        _broken("path_leaves", "unsafe_path", "files.0.path", files=[entries[0] | {"path": "../a.txt"}, entries[1]]),
        invalid("missing_file", {"a.txt": _DATA["a.txt"], _MANIFEST: pretty(good)}, "missing_file", "parts/b.txt"),
        invalid("wrong_size", {**_DATA, "a.txt": b"alpha!\n", _MANIFEST: pretty(good)}, "wrong_size", "a.txt"),
        invalid(
            "checksum_mismatch", {**_DATA, "a.txt": b"alphA\n", _MANIFEST: pretty(good)}, "checksum_mismatch", "a.txt"
        ),
        _broken(
            "input_without_hash",
            "missing_field",
            "inputs.0.manifest_sha256",
            inputs=[{"role": "documents", "path": "../documents"}],
        ),
    ]

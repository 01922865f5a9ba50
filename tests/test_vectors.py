"""The committed vectors are what `make_vectors.py` writes, and small."""

import json
import zlib
from pathlib import Path

import pytest
from make_vectors import FORMATS, VECTORS, write


def _files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.skipif("ng" in zlib.ZLIB_RUNTIME_VERSION, reason="another deflate writes other bytes for the same content")
@pytest.mark.parametrize("format", FORMATS)
def test_vectors_are_written_byte_for_byte(format: str, tmp_path: Path) -> None:
    if format == "checkpoint":
        pytest.importorskip("transformers")
    write(tmp_path, format)
    fresh, stored = _files(tmp_path / format), _files(VECTORS / format)
    assert sorted(fresh) == sorted(stored)
    for path, content in fresh.items():
        if path.endswith("probe.json"):  # another CPU adds in another order
            ours, theirs = (json.loads(data)["logits"] for data in (content, stored[path]))
            flat = [
                (a, b)
                for x, y in zip(ours, theirs, strict=True)
                for r, s in zip(x, y, strict=True)
                for a, b in zip(r, s, strict=True)
            ]
            assert max(abs(a - b) for a, b in flat) <= 2e-6
        else:
            assert content == stored[path], path


def test_vectors_stay_small() -> None:
    assert sum(map(len, _files(VECTORS).values())) < 1_000_000

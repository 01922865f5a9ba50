"""The reader of JSON that every Python package carries: files, compressions, and the cause of what cannot be read."""

import bz2
import gzip
import lzma
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from olmo_trainer.formats.contract import (
    FormatError,
    files_below,
    read_object,
    read_rows,
    row_files,
    write_gzip,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROW = b'{"id":"a","text":"x"}\n'
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd.compress,
}


@pytest.mark.parametrize("extension", COMPRESS)
def test_each_compression_is_read_in_several_parts(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.jsonl{extension}"
    path.write_bytes(COMPRESS[extension](ROW) + COMPRESS[extension](ROW.rstrip()))
    assert list(read_rows(path)) == [(1, {"id": "a", "text": "x"}), (2, {"id": "a", "text": "x"})]


@pytest.mark.parametrize("extension", [extension for extension in COMPRESS if extension])
@pytest.mark.parametrize("cut", [1, 3, 12])
def test_a_file_that_ends_early_is_truncated(extension: str, cut: int, tmp_path: Path) -> None:
    path = tmp_path / f"a.jsonl{extension}"
    path.write_bytes(COMPRESS[extension](ROW * 500)[:-cut])
    with pytest.raises(FormatError) as caught:
        list(read_rows(path))
    assert (caught.value.code, caught.value.line) == ("truncated", None)


CAUSES = {
    "byte-order mark": (b"\xef\xbb\xbf" + ROW, "a.jsonl:1: starts with a byte-order mark"),
    "UTF-16": (ROW.decode().encode("utf-16"), "a.jsonl: is UTF-16 text"),
    "Latin-1": ('{"id":"é"}'.encode("latin-1"), "a.jsonl:1: is not UTF-8 (byte 0xE9 at 7)"),
    "NaN": (ROW + b'{"n":[1,NaN]}', "a.jsonl:2: contains NaN, which is not JSON"),
    "infinity": (b'{"n":-Infinity}', "contains -Infinity, which is not JSON"),
    "too large": (b'{"n":1e999}', "is not JSON (Number out of range"),
    "half a character": (b'{"s":"\\ud83d \\ud83d\\ude00"}', "contains half of a surrogate pair"),
    "blank": (ROW + b"\n" + ROW, "a.jsonl:2: is blank"),
    "text": (b"NaN is a word\n", "is not JSON"),
    "no object": (b"[1]\n", "a.jsonl:1: is an array; expected a JSON object"),
    "gzip": (gzip.compress(ROW), "a.jsonl: is gzip data; expected UTF-8 text"),
    "Zstandard": (zstd.compress(ROW), "a.jsonl: is Zstandard data"),
    "zip": (b"PK\x03\x04....", "a.jsonl: is a zip archive"),
    "Parquet": (b"PAR1....", "a.jsonl: is a Parquet file"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_the_cause_is_named(name: str, tmp_path: Path) -> None:
    content, message = CAUSES[name]
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        list(read_rows(path))
    assert message in str(caught.value)
    assert caught.value.code == ("not_object" if name == "no object" else "not_json")


def test_a_name_that_promises_another_compression_is_refused(tmp_path: Path) -> None:
    for name, content, message in (
        ("a.jsonl.gz", ROW, "is not compressed; expected gz data"),
        ("b.jsonl.gz", zstd.compress(ROW), "is Zstandard data; expected .gz"),
        ("c.jsonl.br", b"\x0b\x02", ".br files are not supported"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FormatError, match=message):
            list(read_rows(tmp_path / name))


def test_the_last_of_a_repeated_field_counts(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a":1,"a":2}')
    assert read_object(tmp_path / "a.json") == {"a": 2}


def test_links_are_followed_once_and_side_files_skipped(tmp_path: Path) -> None:
    root, far = tmp_path / "root", tmp_path / "far"
    for path in (root / "deep/a.jsonl", far / "b.jsonl.gz", root / "metrics.jsonl", root / ".hidden/c.jsonl"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(ROW) if path.suffix == ".gz" else ROW)
    (root / "deep/loop").symlink_to("..")
    (root / "linked").symlink_to(far)
    assert [path.relative_to(root).as_posix() for path in row_files(root)] == ["deep/a.jsonl", "linked/b.jsonl.gz"]
    assert len(files_below(root)) == 3


def test_what_would_be_skipped_silently_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(ROW)
    for name in ("b.parquet", "c.jsonl.br"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(FormatError, match="files are not supported"):
            row_files(tmp_path)
        (tmp_path / name).unlink()
    os.mkfifo(tmp_path / "d.jsonl")
    with pytest.raises(FormatError, match="is a named pipe"):
        row_files(tmp_path)
    with pytest.raises(FormatError, match="is a named pipe"):
        row_files(tmp_path / "d.jsonl")
    with pytest.raises(FormatError, match="not found"):
        row_files(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"no \.jsonl or \.json file found"):
        row_files(tmp_path / "empty")


def test_equal_rows_are_written_as_equal_bytes_and_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        with write_gzip(tmp_path / name) as file:
            file.write(ROW)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    with pytest.raises(TypeError), write_gzip(tmp_path / "c.gz") as file:
        file.writelines([ROW, None])  # type: ignore[list-item]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gz", "b.gz"]

"""Files that are damaged, hostile or packed in unusual ways, and disks that refuse: a clear error or the right rows."""

import bz2
import gzip
import hashlib
import json
import lzma
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dolma_corpus import Dolma, make_rows, read_rows, write_rows

from dolma.formats.__main__ import main as formats

zstandard = pytest.importorskip("backports.zstd")

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".zstd": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.decompress,
    ".zst": zstandard.decompress,
    ".zstd": zstandard.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}
TAG = ["tag", "--taggers", "char_length_v1", "--experiment", "e", "--documents"]
LINES = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in make_rows(90)]


def commands(tokenizer_path: Path) -> dict[str, list[Any]]:
    """Each command on ``documents/*``, small enough for a test, with the directory that it writes to."""
    filter = ["--bloom_filter.file", "filter.bin", "--bloom_filter.size_in_bytes", 200_000]
    tokenizer = ["--tokenizer.name_or_path", tokenizer_path, "--tokenizer.eos_token_id", 0]
    stream = {"name": "s", "documents": ["documents/*"], "output": {"path": "mixed"}, "compression": {"output": ""}}
    Path("mix.json").write_text(json.dumps({"streams": [stream]}))
    keys = ["--dedupe.documents.attribute_name", "d", "--dedupe.documents.key", "$.text"]
    return {
        "attributes/e": [*TAG, "documents/*"],
        "attributes/d": ["dedupe", "--documents", "documents/*", *keys, *filter],
        "mixed": ["-c", "mix.json", "mix"],
        "tokens": ["tokens", "--documents", "documents/*", "--destination", "tokens", *tokenizer],
    }


def validate(format: str, path: str) -> int:
    """The exit code of ``python -m dolma.formats validate``."""
    return formats(["validate", format, path])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "documents").mkdir()
    return tmp_path


@pytest.mark.parametrize("extension", PACK)
@pytest.mark.parametrize("stem", ["a.jsonl", "a.json"])
def test_every_packing_in_several_members_goes_through_every_command(
    dolma: Dolma, here: Path, tokenizer_path: Path, stem: str, extension: str
) -> None:
    pieces = [b"".join(LINES[start : start + 30]) for start in (0, 30, 60)]
    name = f"{stem}{extension}"
    (here / "documents" / name).write_bytes(b"".join(PACK[extension](piece) for piece in pieces))
    for command in commands(tokenizer_path).values():
        dolma(*command)
    for directory in ("e", "d"):
        data = UNPACK[extension]((here / "attributes" / directory / name).read_bytes())
        assert [json.loads(line)["id"] for line in data.splitlines()] == [row["id"] for row in make_rows(90)]
    assert [row["text"] for row in read_rows(here / "mixed/s-0000.jsonl")] == [row["text"] for row in make_rows(90)]
    counts = json.loads((here / "tokens/manifest.json").read_text())["counts"]
    assert counts["documents"] == sum(bool(row["text"].strip()) for row in make_rows(90))


@pytest.mark.parametrize("extension", [name for name in PACK if name])
def test_mix_packs_its_output_as_told_and_the_same_each_time(dolma: Dolma, here: Path, extension: str) -> None:
    write_rows(here / "documents/a.jsonl", make_rows(90))
    packing = extension.removeprefix(".").replace("zstd", "zst")
    written = []
    for out in ("one", "two"):
        stream = {
            "name": "s",
            "documents": ["documents/*"],
            "output": {"path": out},
            "compression": {"output": packing},
        }
        (here / "mix.json").write_text(json.dumps({"streams": [stream]}))
        dolma("-c", "mix.json", "mix")
        written.append((here / out / f"s-0000.jsonl.{packing}").read_bytes())
    assert written[0] == written[1]
    assert len(UNPACK[extension](written[0]).splitlines()) == 90


@pytest.mark.parametrize("extension", [name for name in PACK if name not in ("", ".zstd")])
def test_damage_to_a_packed_file_is_told_and_leaves_no_result(dolma: Dolma, here: Path, extension: str) -> None:
    whole = PACK[extension](b"".join(LINES * 40))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    path = here / "documents" / f"a.jsonl{extension}"
    for data in (b"", whole[: len(whole) // 2], whole[:-3], bytes(flipped), whole + b"trailing garbage", b"\0" * 100):
        path.write_bytes(data)
        result = dolma(*TAG, "documents/*", code=1)
        assert f"a.jsonl{extension}" in result.err
        # a wrong bit may show in a row before it shows in the checksum at the end
        assert "the compressed file" in result.err or data == bytes(flipped)
        assert "panicked" not in result.err
        assert not list(here.glob("attributes/e/a*"))
        assert not (here / "attributes/e/manifest.json").exists()


@pytest.mark.parametrize("extension", [".gz", ".zst", ".xz"])
def test_a_file_that_unpacks_to_a_thousand_times_its_size_takes_no_memory(here: Path, extension: str) -> None:
    rows, times = b"".join(b'{"id":"%d","text":"%s"}\n' % (number, b" " * 200_000) for number in range(50)), 30
    (here / f"documents/a.jsonl{extension}").write_bytes(PACK[extension](rows) * times)
    assert (here / f"documents/a.jsonl{extension}").stat().st_size < len(rows) * times / 500
    code = (
        "import re, sys; from dolma.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    command = [sys.executable, "-c", code, *TAG, "documents/*"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) * 1024 < 250e6 < len(rows) * times


ROWS: dict[str, tuple[bytes, str]] = {
    "deep": (b'{"id":"1","text":"a","metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "expected a JSON object"),
    "number": (b'{"id":"1","text":"a","metadata":{"n":1' + b"0" * 400 + b"}}\n", ""),
    "surrogate": (b'{"id":"1","text":"a\\ud800b"}\n', "lone surrogate"),
    "latin": ("{\"id\":\"1\",\"text\":\"é\"}\n".encode("latin-1"), "not UTF-8 (byte 0xe9"),
    "mark": (b'\xef\xbb\xbf{"id":"1","text":"a"}\n', "byte-order mark"),
    "nul": (b'{"id":"1","text":"a\0b"}\n', "not JSON"),
    "blank": (b"\n", "blank"),
    "cut": (b'{"id":"1","te', "not JSON"),
    "array": (b'["id","text"]\n', "expected a JSON object"),
    "twice": (b'{"id":"1","id":"2","text":"a"}\n', ""),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("directory", ["attributes/e", "attributes/d", "mixed", "tokens"])
def test_a_hostile_row_is_told_with_its_line(
    dolma: Dolma, here: Path, tokenizer_path: Path, name: str, directory: str
) -> None:
    line, expected = ROWS[name]
    (here / "documents/a.jsonl").write_bytes(LINES[0] + line + LINES[1])
    result = dolma(*commands(tokenizer_path)[directory], code=None)
    assert "panicked" not in result.err
    if result.code == 0:
        # what a command does not look at is no concern of its
        assert name in ("deep", "number", "twice")
        return
    assert result.code == 1
    assert "documents/a.jsonl:2: " in result.err
    assert expected in result.err
    assert not (here / directory / "manifest.json").exists()


def test_unusual_rows_that_are_right_stay_what_they_are(dolma: Dolma, here: Path) -> None:
    texts = ["\u0000", "\r\n", "\ufeff", "e\u0301İ", "😀" * 3, "\u2028\u2029\u0085", "x" * 20_000_000, '\\"\b\f']
    rows = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    lines = [json.dumps(row, ensure_ascii=bool(number % 2)) for number, row in enumerate(rows)]
    (here / "documents/a.jsonl").write_bytes("\r\n".join(lines).encode())
    dolma(*TAG, "documents/*")
    found = read_rows(here / "attributes/e/a.jsonl")
    assert [row["attributes"]["e__char_length_v1__length"] for row in found] == [[[0, len(t), len(t)]] for t in texts]
    stream = {"name": "s", "documents": ["documents/*"], "attributes": ["e"], "output": {"path": "mixed"}}
    (here / "mix.json").write_text(json.dumps({"streams": [stream]}))
    dolma("-c", "mix.json", "mix")
    assert [row["text"] for row in read_rows(here / "mixed/s-0000.jsonl.gz")] == texts


FILTERS = {
    "nothing": b"",
    "other": b"PK\x03\x04" + b"\0" * 100,
    "version": struct.pack("<II", 0x81F0F117, 9),
    "huge": struct.pack("<IIIIQQQ", 0x81F0F117, 2, 7, 0, 1 << 60, 0, 10) + b"\0" * 64,
    "record": struct.pack("<IIIIQQQ", 0x81F0F117, 2, 7, 0, 1, 0, 1 << 62) + b"\0" * 64,
    "hashes": struct.pack("<IIIIQQQ", 0x81F0F117, 2, 0xFFFFFFFF, 0, 1, 0, 2) + b"\0" * 64,
    "old": struct.pack("<III", 0x81F0F117, 1, 0xFFFFFFFF) + b"\0" * 64,
    "old words": struct.pack("<III4QQ", 0x81F0F117, 1, 1, 1, 2, 3, 4, 1 << 61) + b"\0" * 64,
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_hostile_filter_is_refused_without_memory_for_it(
    dolma: Dolma, here: Path, tokenizer_path: Path, name: str
) -> None:
    write_rows(here / "documents/a.jsonl", make_rows(20))
    (here / "filter.bin").write_bytes(FILTERS[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = dolma(*commands(tokenizer_path)["attributes/d"], code=1)
    assert "filter.bin: " in result.err
    assert "expected" in result.err
    assert "panicked" not in result.err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    assert (here / "filter.bin").read_bytes() == FILTERS[name]


def test_a_filter_with_one_wrong_bit_is_refused(dolma: Dolma, here: Path, tokenizer_path: Path) -> None:
    write_rows(here / "documents/a.jsonl", make_rows(20))
    command = commands(tokenizer_path)["attributes/d"]
    dolma(*command)
    data = bytearray((here / "filter.bin").read_bytes())
    data[len(data) // 2] ^= 1
    (here / "filter.bin").write_bytes(data)
    write_rows(here / "documents/b.jsonl", make_rows(20, 50))
    assert "the bytes are not those that were written" in dolma(*command, code=1).err


def run_limited(command: list[Any], limit_bytes: int) -> subprocess.CompletedProcess[str]:
    """Runs a command that can write no file larger than the limit: what a full disk does, without one."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    arguments = [sys.executable, "-m", "dolma", *map(str, command)]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, preexec_fn=limit)


@pytest.fixture
def small_disk(here: Path) -> Iterator[Path]:
    """A real file system of two mebibytes."""
    place = here / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_file_system_without_room_is_told(dolma: Dolma, here: Path, small_disk: Path) -> None:
    rows = [{"id": str(number), "text": hashlib.sha512(str(number).encode()).hexdigest()} for number in range(40_000)]
    write_rows(here / "documents/a.jsonl", rows)
    for command in (
        [*TAG, "documents/*", "--destination", small_disk / "e"],
        ["dedupe", "--documents", "documents/*", "--dedupe.documents.attribute_name", "d", "--dedupe.documents.key",
         "$.text", "--bloom_filter.file", small_disk / "filter.bin", "--bloom_filter.size_in_bytes", 4_000_000],
    ):  # fmt: skip
        result = dolma(*command, code=1)
        assert "No space left on device" in result.err
        assert str(small_disk) in result.err
        assert not list(small_disk.rglob("manifest.json"))
        assert not list(small_disk.rglob("*.partial"))
        assert not (small_disk / "filter.bin").exists()


def contents(directory: Path) -> dict[str, str]:
    """Hashes of the files that are results."""
    files = [path for path in directory.rglob("*") if path.is_file() and not path.name.startswith(".")]
    notes = ("metrics.ndjson", "config.yaml", "errors.ndjson", "progress.ndjson")
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files if path.name not in notes
    }  # fmt: skip


@pytest.mark.parametrize("directory", ["attributes/e", "attributes/d", "mixed", "tokens"])
def test_a_disk_that_is_full_is_told_and_the_next_run_finishes(
    dolma: Dolma, here: Path, tokenizer_path: Path, directory: str
) -> None:
    write_rows(here / "documents/a.jsonl", make_rows(3000))
    command = commands(tokenizer_path)[directory]
    result = run_limited(command, 30_000)
    assert result.returncode == 1, result.stderr
    assert "File too large" in result.stderr
    assert str(directory.split("/")[-1]) in result.stderr or "filter.bin" in result.stderr
    assert "panicked" not in result.stderr
    assert "Traceback" not in result.stderr
    assert not (here / directory / "manifest.json").exists()
    assert not list(here.rglob("*.partial"))
    assert not list((here / directory).glob("[!.]*[0-9ab].jsonl"))
    dolma(*command)
    resumed = contents(here / directory)
    for path in (here / directory).rglob("*"):
        if path.is_file():
            path.unlink()
    (here / "filter.bin").unlink(missing_ok=True)
    dolma(*command)
    assert contents(here / directory) == resumed


@pytest.mark.parametrize("directory", ["attributes/e", "attributes/d", "mixed", "tokens"])
def test_a_place_that_cannot_be_written_is_told(dolma: Dolma, here: Path, tokenizer_path: Path, directory: str) -> None:
    write_rows(here / "documents/a.jsonl", make_rows(20))
    command = commands(tokenizer_path)[directory]
    # a file where a directory has to be: what permissions do, for the superuser too
    blocked = here / directory.split("/")[0]
    blocked.write_text("in the way")
    result = dolma(*command, code=1)
    assert blocked.name in result.err
    assert "panicked" not in result.err
    assert blocked.read_text() == "in the way"
    assert sorted(os.listdir(here / "documents")) == ["a.jsonl"]


def test_a_byte_order_mark_and_trailing_zeros_are_skipped(dolma: Dolma, here: Path, tokenizer_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    (here / "documents/a.jsonl").write_bytes(mark + b"".join(LINES[1:4]))
    (here / "documents/b.jsonl.gz").write_bytes(gzip.compress(mark + b"".join(LINES[4:6])) + b"\0" * 700)
    skippable = struct.pack("<II", 0x184D2A53, 5) + b"notes"
    (here / "documents/c.jsonl.zst").write_bytes(skippable + zstandard.compress(b"".join(LINES[6:8])) + skippable)
    (here / "documents/d.jsonl.xz").write_bytes(lzma.compress(b"".join(LINES[8:9])) + b"\0" * 8)
    for command in commands(tokenizer_path).values():
        dolma(*command)
    assert len(read_rows(here / "attributes/e/b.jsonl.gz")) == 2
    assert [row["id"] for row in read_rows(here / "mixed/s-0000.jsonl")] == [f"d,{n}" for n in range(1, 9)]
    assert validate("document", "documents") == 0


DISGUISES: dict[str, tuple[bytes, str]] = {
    "a.jsonl": (gzip.compress(b"{}"), 'the file contains gzip data; expected a name that ends in ".gz"'),
    "b.jsonl": (zstandard.compress(b"{}"), "the file contains Zstandard data"),
    "c.jsonl.gz": (lzma.compress(b"{}"), "the file contains xz data"),
    "d.jsonl.zst": (bz2.compress(b"{}"), "the file contains bzip2 data"),
    "e.jsonl.gz": (LINES[0], "the file contains JSON lines, not compressed"),
    "f.jsonl.br": (b"\x0b\x02\x80", 'ends in ".br", a compression that is not supported'),
    "g.json": ("{}\n".encode("utf-16"), "the file contains UTF-16 text"),
    "h.parquet": (LINES[0], "the file contains JSON lines, not a Parquet file"),
    "i.jsonl": (b"PAR1 and so on", "the file contains a Parquet file"),
    "j.jsonl": (b"PK\x03\x04rest", "the file contains a zip archive"),
}


@pytest.mark.parametrize("name", DISGUISES)
def test_a_compression_under_another_name_is_an_error(
    dolma: Dolma, here: Path, tokenizer_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    data, expected = DISGUISES[name]
    (here / "documents" / name).write_bytes(data)
    for command in commands(tokenizer_path).values():
        result = dolma(*command, code=1)
        assert f"documents/{name}: " in result.err
        assert expected in result.err
    assert validate("document", "documents") == 1
    assert expected in capsys.readouterr().err


CAUSES = {
    '{"id":"1","text":"a","metadata":{"score":NaN}}': "(NaN, column ",
    '{"id":"1","text":"a","x":[-Infinity]}': "(-Infinity, column ",
    '{"id":"1","text":"a\\udc00"}': "a lone surrogate",
    "{'id': '1', 'text': None}": "a Python literal",
}


@pytest.mark.parametrize("line", CAUSES)
def test_the_error_says_why_a_row_is_not_json(
    dolma: Dolma, here: Path, tokenizer_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    (here / "documents/a.jsonl").write_bytes(LINES[0] + line.encode() + b"\n")
    for command in commands(tokenizer_path).values():
        assert CAUSES[line] in dolma(*command, code=1).err
    assert validate("document", "documents") == 1
    assert CAUSES[line] in capsys.readouterr().err


def test_pipes_are_refused(dolma: Dolma, here: Path, tokenizer_path: Path) -> None:
    os.mkfifo(here / "documents/p")
    write_rows(here / "documents/a.jsonl", make_rows(3))
    for command in commands(tokenizer_path).values():
        if command[0] != "-c":
            result = dolma(*[str(part).replace("documents/*", "documents/p") for part in command], code=2)
            assert "a named pipe, which can be read only once; expected a file" in result.err
            result = dolma(*command, code=2)  # a pipe among files is an error
            assert "matches documents/p, a named pipe that can be read only once; expected files" in result.err
    assert "a device" in dolma(*TAG, "/dev/null", code=2).err
    tokens = ["tokens", "--documents", "documents/a.jsonl", "--destination", "out", "--tokenizer.eos_token_id", 0]
    assert "a pipe or a device" in dolma(*tokens, "--tokenizer.name_or_path", "documents/p", code=2).err
    assert validate("document", "documents/p") == 2


def test_links_that_lead_back_up_add_no_documents(dolma: Dolma, here: Path, tokenizer_path: Path) -> None:
    write_rows(here / "documents/a/b/x.jsonl", make_rows(3, 1))
    write_rows(here / "elsewhere/y.jsonl", make_rows(3, 10))
    for name, target in [("a/up", ".."), ("a/b/top", "../.."), ("z", "a"), ("far", "../elsewhere")]:
        (here / "documents" / name).symlink_to(target)
    (here / "documents/again.jsonl").symlink_to("a/b/x.jsonl")
    pattern = "documents/**/*.jsonl"
    dolma(*TAG, pattern)
    listed = json.loads((here / "attributes/e/manifest.json").read_text())["files"]
    # a file has its own name if the pattern matches it too
    assert [file["path"] for file in listed] == ["a/b/x.jsonl", "far/y.jsonl"]
    tokenizer = ["--tokenizer.name_or_path", tokenizer_path, "--tokenizer.eos_token_id", 0]
    dolma("tokens", "--documents", pattern, "--destination", "tokens", *tokenizer)
    assert json.loads((here / "tokens/manifest.json").read_text())["counts"]["documents"] == 6
    (here / "s.yaml").write_text("documents: ['${d.glob:documents/**/x.jsonl}']\n")
    assert dolma("-c", "s.yaml", "tag", "--taggers", "char_length_v1", "--dryrun").out.count("x.jsonl") == 1


def test_a_tilde_is_the_home_directory_in_every_place(
    dolma: Dolma, here: Path, tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = here / "home"
    monkeypatch.setenv("HOME", str(home))
    write_rows(home / "documents/a.jsonl", make_rows(9))
    shutil.copy(tokenizer_path, home / "tokenizer.json")
    dolma("tag", "--documents", "~/documents/*", "--taggers", "char_length_v1", "--experiment", "e")
    settings = {
        "documents": ["file://~/documents/*"],
        "dedupe": {"documents": {"attribute_name": "d", "key": "$.text"}},
        "bloom_filter": {"file": "~/filter.bin", "size_in_bytes": 200_000},
    }
    (home / "d.json").write_text(json.dumps(settings))
    dolma("-c", "~/d.json", "dedupe")
    stream = {"name": "s", "documents": ["~/documents/*"], "output": {"path": "~/mixed"}}
    (home / "m.json").write_text(json.dumps({"streams": [stream]}))
    dolma("-c", "~/m.json", "mix")
    tokenizer = ["--tokenizer.name_or_path", "~/tokenizer.json", "--tokenizer.eos_token_id", 0]
    dolma("tokens", "--documents", "~/documents/*", "--destination", "~/tokens", *tokenizer)
    made = (
        "attributes/e/a.jsonl",
        "attributes/d/a.jsonl",
        "filter.bin",
        "mixed/s-0000.jsonl.gz",
        "tokens/manifest.json",
    )
    assert [name for name in made if not (home / name).exists()] == []
    assert not (here / "~").exists()
    assert "an unknown user" in dolma(*TAG, "~no-such-user/documents/*", code=2).err


@pytest.mark.parametrize("destination", ["out/*.gz", "out/?", "out/[ab]"])
def test_a_wildcard_in_a_destination_is_refused(
    dolma: Dolma, here: Path, tokenizer_path: Path, destination: str
) -> None:
    write_rows(here / "documents/a.jsonl", make_rows(3))
    stream = {"name": "s", "documents": ["documents/*"], "output": {"path": destination}}
    Path("w.json").write_text(json.dumps({"streams": [stream]}))
    tokenizer = ["--tokenizer.name_or_path", tokenizer_path, "--tokenizer.eos_token_id", 0]
    filter = [
        "--dedupe.documents.attribute_name",
        destination,
        "--bloom_filter.file",
        "f",
        "--bloom_filter.size_in_bytes",
        9,
    ]
    for command in (
        [*TAG, "documents/*", "--destination", destination],
        ["-c", "w.json", "mix"],
        ["tokens", "--documents", "documents/*", "--destination", destination, *tokenizer],
        ["tag", "--taggers", "char_length_v1", "--experiment", destination, "--documents", "documents/*"],
        ["dedupe", "--documents", "documents/*", "--dedupe.documents.key", "$.text", *filter],
    ):
        assert "has a wildcard; expected the name of one directory" in dolma(*command, code=2).err
    assert not (here / "out").exists()


def test_threads_without_work_are_not_started(here: Path, tokenizer_path: Path) -> None:
    write_rows(here / "documents/a.jsonl", make_rows(9))
    for command in commands(tokenizer_path).values():
        if command[0] == "-c":
            (here / "mix.json").write_text(
                json.dumps({**json.loads((here / "mix.json").read_text()), "processes": 20_000})
            )
        else:
            command = [*command, "--processes", 20_000]
        # each thread needs memory for its stack
        code = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)); from dolma.__main__ import main; main(sys.argv[1:])"  # noqa: E501
        run = subprocess.run([sys.executable, "-c", code, *map(str, command)], capture_output=True, check=False)
        assert run.returncode == 0, run.stderr.decode()

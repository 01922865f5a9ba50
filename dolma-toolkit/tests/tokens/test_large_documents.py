"""Documents larger than a shard, and shards shown as text."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dolma_corpus import Dolma, artifact_hashes, make_rows, read_rows, write_rows
from token_shards import END, options, read_shards
from tokenizers import Tokenizer


def long_rows() -> list[dict[str, str]]:
    rows = make_rows(40)
    rows[7]["text"] = " ".join(row["text"] for row in make_rows(60, 900))
    rows[8]["text"] = " ".join(row["text"] for row in make_rows(30, 700))
    return rows


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "documents/a.jsonl.gz", long_rows())
    return tmp_path


@pytest.mark.parametrize("begin", [None, 1])
def test_split_documents_are_whole_again_when_joined(
    dolma: Dolma, books: Path, tokenizer_path: Path, begin: int | None
) -> None:
    settings: dict[str, object] = {} if begin is None else {"tokenizer.bos_token_id": begin}
    dolma(*options(tokenizer_path, "out", max_size=1000, oversize="split", **settings))
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    joined: dict[str, list[int]] = {}
    for row, ids in read_shards(books / "out"):
        assert ids[-1] == END
        assert len(ids) <= 500
        assert begin is None or ids[0] == begin
        joined.setdefault(row["id"], []).extend(ids[(begin is not None) : -1])
    texts = {row["id"]: row["text"].strip() for row in long_rows() if row["text"].strip()}
    assert {id: tokenizer.decode(ids) for id, ids in joined.items()} == texts
    manifest = json.loads((books / "out/manifest.json").read_text())
    assert manifest["counts"]["documents"] == len(read_shards(books / "out")) > 40
    assert manifest["counts"]["text_bytes"] == sum(len(text.encode()) for text in texts.values())
    assert all(path.stat().st_size <= 1000 for path in (books / "out").glob("*.npy"))


def test_split_goes_on_within_a_document(dolma: Dolma, books: Path, tokenizer_path: Path) -> None:
    dolma(*options(tokenizer_path, "whole", max_size=1000, oversize="split"))
    names = sorted(path.stem for path in (books / "whole").glob("*.npy"))
    for kept in range(1, len(names)):
        dolma(*options(tokenizer_path, f"out{kept}", max_size=1000, oversize="split"))
        out = books / f"out{kept}"
        first, *records = [line for line in (out / ".dolma/progress.ndjson").read_text().split("\n") if line]
        (out / ".dolma/progress.ndjson").write_text("\n".join([first, *records[:kept]]) + "\n")
        (out / "manifest.json").unlink()
        assert (
            f"({kept} were finished before)"
            in dolma(*options(tokenizer_path, f"out{kept}", max_size=1000, oversize="split")).err
        )
        assert artifact_hashes(out) == artifact_hashes(books / "whole")


def test_too_small_a_shard_and_an_unknown_rule_are_refused(dolma: Dolma, books: Path, tokenizer_path: Path) -> None:
    result = dolma(*options(tokenizer_path, "out", max_size=2, oversize="split"), code=1)
    assert "expected at most 1, as max_size allows" in result.err
    result = dolma(*options(tokenizer_path, "out", oversize="spilt"), code=2)
    assert 'oversize: is "spilt"; expected refuse or split' in result.err
    assert 'did you mean "split"?' in result.err


def test_hint_names_the_smallest_type_that_fits(dolma: Dolma, books: Path, tokenizer_path: Path) -> None:
    assert "hint: use uint16" in dolma(*options(tokenizer_path, "out", dtype="uint8"), code=2).err


def test_decode_shows_text_ids_and_source(dolma: Dolma, books: Path, tokenizer_path: Path) -> None:
    dolma(*options(tokenizer_path, "out", max_size=4000, oversize="split"))
    found = read_shards(books / "out")
    rows = {row["id"]: row for row in read_rows(books / "documents/a.jsonl.gz")}
    for number in (0, 3, len(found) - 1):
        shown = json.loads(dolma("tokens", "decode", "out", "--document", number, "--json").out)
        row, ids = found[number]
        assert shown["tokens"] == ids
        assert [str(shown[key]) for key in ("file", "start", "end", "id", "src", "loc")] == list(row.values())
        assert shown["text"].removesuffix("<|end|>") in rows[row["id"]]["text"]
    id = found[3][0]["id"]
    text = dolma("tokens", "decode", "out", "--id", id).out
    assert f"id       {id}\n" in text
    assert f"source   documents/a.jsonl.gz:{found[3][0]['loc']}\n" in text
    assert text.endswith("<|end|>\n")
    shard = dolma("tokens", "decode", f"out/{found[-1][0]['file']}", "--json").out
    assert json.loads(shard)["start"] == 0


def test_decode_says_what_is_not_there(dolma: Dolma, books: Path, tokenizer_path: Path) -> None:
    dolma(*options(tokenizer_path, "out", oversize="split"))
    assert (
        "document: is 99; expected a number below 39" in dolma("tokens", "decode", "out", "--document", 99, code=2).err
    )
    assert 'id: is "none"' in dolma("tokens", "decode", "out", "--id", "none", code=2).err
    assert "path: is missing" in dolma("tokens", "decode", code=2).err
    assert "dtype: is missing" in dolma("tokens", "decode", _bare(books), "--tokenizer", tokenizer_path, code=2).err


def _bare(books: Path) -> Path:
    """A shard away from its manifest."""
    (books / "bare").mkdir()
    (books / "out/part-0-00000.npy").rename(books / "bare/part-0-00000.npy")
    return books / "bare/part-0-00000.npy"


@pytest.mark.slow
def test_kill_at_random_moments_and_go_on(corpus: Path, tokenizer_path: Path, dolma: Dolma) -> None:
    write_rows(corpus / "documents/long.jsonl.gz", make_rows(4000, 5000) + long_rows())
    settings: dict[str, object] = {"max_size": 1000, "oversize": "split"}
    started = time.monotonic()
    dolma(*options(tokenizer_path, "whole", **settings))
    whole_seconds = time.monotonic() - started
    chance = random.Random(11)
    killed = 0
    for attempt in range(40):
        processes = (1, 2, 8)[attempt % 3]
        arguments = [str(one) for one in options(tokenizer_path, "killed", processes=processes, **settings)]
        process = subprocess.Popen(
            [sys.executable, "-m", "dolma", *arguments], stderr=subprocess.DEVNULL, env=os.environ | {"RUST_LOG": "off"}
        )
        try:
            process.wait(0.1 + chance.random() * whole_seconds / 8)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    assert killed >= 5
    dolma(*options(tokenizer_path, "killed", processes=8, **settings))
    assert artifact_hashes(corpus / "killed") == artifact_hashes(corpus / "whole")
    assert not [path for path in (corpus / "killed").iterdir() if path.name.endswith(".partial")]

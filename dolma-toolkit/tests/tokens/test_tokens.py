"""``dolma tokens``: shards, their boundaries, their bytes."""

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from dolma_corpus import Dolma, artifact_hashes, make_rows, read_rows, write_rows
from token_shards import END, options, read_shards
from tokenizers import Tokenizer


def source_rows(root: Path) -> dict[tuple[str, int], dict[str, str]]:
    files = [path for path in (root / "documents").rglob("*") if path.is_file()]
    return {
        (str(path.relative_to(root)), line): row for path in files for line, row in enumerate(read_rows(path), start=1)
    }


def test_shards_hold_every_text_stripped_and_ended(dolma: Dolma, corpus: Path, tokenizer_path: Path) -> None:
    dolma(*options(tokenizer_path, "out", max_size=4000))
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    rows = source_rows(corpus)
    found = read_shards(corpus / "out")
    assert len(list((corpus / "out").glob("*.npy"))) > 3
    assert all(path.stat().st_size <= 4000 for path in (corpus / "out").glob("*.npy"))
    seen = {}
    for row, ids in found:
        source = rows[row["src"], int(row["loc"])]
        seen[row["src"], int(row["loc"])] = source
        assert row["id"] == source["id"]
        assert ids[-1] == END
        assert END not in ids[:-1]
        assert ids[:-1] == tokenizer.encode(source["text"].strip(), add_special_tokens=False).ids
        assert tokenizer.decode(ids[:-1]) == source["text"].strip()
    assert seen == {place: row for place, row in rows.items() if row["text"].strip()}
    manifest = json.loads((corpus / "out" / "manifest.json").read_text())
    assert manifest["counts"] == {
        "documents": len(found),
        "tokens": sum(len(ids) for _, ids in found),
        "text_bytes": sum(len(row["text"].strip().encode()) for row in seen.values()),
        "documents_empty": sum(not row["text"].strip() for row in rows.values()),
    }
    copy = (corpus / "out" / "tokenizer.json").read_bytes()
    assert copy == tokenizer_path.read_bytes()
    assert manifest["details"]["tokenizer_sha256"] == hashlib.sha256(copy).hexdigest()
    assert manifest["details"] | {"dtype": "uint16", "eos_token_id": 0, "bos_token_id": None} == manifest["details"]


def test_table_is_csv_without_header_and_with_carriage_returns(
    dolma: Dolma, corpus: Path, tokenizer_path: Path
) -> None:
    dolma(*options(tokenizer_path, "out"))
    table = gzip.decompress((corpus / "out" / "part-0-00000.csv.gz").read_bytes()).decode()
    first = table.split("\r\n")[0]
    assert first.startswith("0,")
    assert ',"d,' in first
    assert table.endswith("\r\n")
    assert (corpus / "out" / "part-0-00000.csv.gz").read_bytes()[4:8] == b"\0\0\0\0"


def test_bytes_do_not_depend_on_threads_or_place(
    dolma: Dolma, corpus: Path, tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = []
    for processes in (1, 2, 4):
        dolma(*options(tokenizer_path, f"out{processes}", processes=processes, max_size=6000))
        hashes.append(artifact_hashes(corpus / f"out{processes}"))
    assert hashes[0] == hashes[1] == hashes[2]
    moved = corpus / "elsewhere"
    moved.mkdir()
    (corpus / "documents").rename(moved / "documents")
    monkeypatch.chdir(moved)
    dolma(*options(tokenizer_path, "../out5", max_size=6000))
    npy = {name: digest for name, digest in hashes[0].items() if not name.startswith("manifest")}
    assert {name: artifact_hashes(corpus / "out5")[name] for name in npy} == npy


def test_seed_changes_the_order_and_nothing_else(dolma: Dolma, corpus: Path, tokenizer_path: Path) -> None:
    orders = []
    small: dict[str, object] = {"batch_size": 7}
    settings_of_runs = [{}, {"seed": 1}, small, small | {"sample_ring_prop": True}, small | {"ring_size": 1}]
    for index, settings in enumerate(settings_of_runs):
        dolma(*options(tokenizer_path, f"out{index}", **settings))
        orders.append([(row["src"], row["loc"]) for row, _ in read_shards(corpus / f"out{index}")])
    assert len({tuple(order) for order in orders}) == len(orders)
    assert len({tuple(sorted(order)) for order in orders}) == 1
    assert orders[0] != sorted(orders[0])


def test_files_per_process_gives_a_series_of_shards_each(dolma: Dolma, corpus: Path, tokenizer_path: Path) -> None:
    dolma(*options(tokenizer_path, "out", files_per_process=1))
    assert sorted(path.name for path in (corpus / "out").glob("*.npy")) == [f"part-{i}-00000.npy" for i in range(3)]
    for path in (corpus / "out").glob("*.npy"):
        assert len({row["src"] for row, _ in read_shards(corpus / "out") if row["file"] == path.name}) == 1


def test_begin_token_and_wider_type(dolma: Dolma, corpus: Path, tokenizer_path: Path) -> None:
    dolma(*options(tokenizer_path, "out", **{"tokenizer.bos_token_id": 1, "dtype": "uint32"}))
    for _, ids in read_shards(corpus / "out", "uint32"):
        assert (ids[0], ids[-1]) == (1, END)


def test_special_tokens_in_a_text_do_not_break_the_document(
    dolma: Dolma, tmp_path: Path, tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = ["to <|mail|> me", "the <|end|> of <|mail|> it", "at the end <|end|>"]
    write_rows(tmp_path / "documents/a.jsonl", [{"id": str(i), "text": text} for i, text in enumerate(texts)])
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    result = dolma(*options(tokenizer_path, "auto"))
    assert "2 documents spell bos or eos" in result.err
    found = {row["id"]: ids for row, ids in read_shards(tmp_path / "auto")}
    assert 2 in found["0"]
    assert all(ids.index(END) == len(ids) - 1 for ids in found.values())
    assert [tokenizer.decode(found[str(i)][:-1], skip_special_tokens=False) for i in range(3)] == texts
    dolma(*options(tokenizer_path, "never", **{"no-tokenizer.encode_special_tokens": True}))
    found = {row["id"]: ids for row, ids in read_shards(tmp_path / "never")}
    assert found["1"].count(END) == 2
    assert found["2"].count(END) == 1


def test_segments_give_the_ids_of_the_whole_text(dolma: Dolma, corpus: Path, tokenizer_path: Path) -> None:
    dolma(*options(tokenizer_path, "whole"))
    dolma(*options(tokenizer_path, "cut", **{"tokenizer.segment_before_tokenization": True}))
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    for (row, whole), (other, cut) in zip(read_shards(corpus / "whole"), read_shards(corpus / "cut"), strict=True):
        assert (row["id"], tokenizer.decode(whole)) == (other["id"], tokenizer.decode(cut))


def test_fields_may_have_other_names(
    dolma: Dolma, tmp_path: Path, tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "documents/a.jsonl", [{"blob": {"n": 7, "content": "paper light"}}])
    fields = {"fields.text_field_name": "blob.content", "fields.id_field_name": "blob.n", "fields.id_field_type": "int"}
    dolma(*options(tokenizer_path, "out", **fields))
    assert read_shards(tmp_path / "out")[0][0]["id"] == "7"
    dolma(*options(tokenizer_path, "null", **(fields | {"fields.id_field_name": "null"})))
    name = hashlib.sha256(b"documents/a.jsonl").hexdigest()
    assert read_shards(tmp_path / "null")[0][0]["id"] == f"{name}-1"


def test_empty_texts_give_no_empty_shard(
    dolma: Dolma, tmp_path: Path, tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "documents/a.jsonl", [{"id": "1", "text": " \n"}])
    assert "no document has any text" in dolma(*options(tokenizer_path, "out")).err
    assert not list((tmp_path / "out").glob("*.npy"))
    assert json.loads((tmp_path / "out/manifest.json").read_text())["counts"]["documents"] == 0


def test_second_run_does_nothing_and_other_settings_are_refused(
    dolma: Dolma, corpus: Path, tokenizer_path: Path
) -> None:
    dolma(*options(tokenizer_path, "out", max_size=4000))
    hashes, times = artifact_hashes(corpus / "out"), [p.stat().st_mtime_ns for p in (corpus / "out").glob("*.npy")]
    result = dolma(*options(tokenizer_path, "out", max_size=4000))
    assert "were finished before" in result.err
    assert times == [p.stat().st_mtime_ns for p in (corpus / "out").glob("*.npy")]
    assert artifact_hashes(corpus / "out") == hashes
    result = dolma(*options(tokenizer_path, "out", seed=5), code=2)
    assert "other settings" in result.err
    assert "hint: " in result.err


def test_run_goes_on_behind_the_last_finished_shard(dolma: Dolma, corpus: Path, tokenizer_path: Path) -> None:
    dolma(*options(tokenizer_path, "whole", max_size=4000))
    dolma(*options(tokenizer_path, "out", max_size=4000))
    out = corpus / "out"
    first, *records = [line for line in (out / ".dolma/progress.ndjson").read_text().split("\n") if line]
    # as a kill leaves it: two shards recorded, the next recorded by half, one there without record, no manifest
    (out / ".dolma/progress.ndjson").write_text("\n".join([first, *records[:2]]) + "\n" + records[2][:40])
    (out / "manifest.json").unlink()
    (out / "part-0-00003.npy").unlink()
    (out / "part-0-00002.npy").write_bytes(b"half")
    (out / ".part-0-00003.npy.partial").write_bytes(b"half")
    times = {name: (out / name).stat().st_mtime_ns for name in ("part-0-00000.npy", "part-0-00001.npy")}
    result = dolma(*options(tokenizer_path, "out", max_size=4000))
    assert "(2 were finished before)" in result.err
    assert artifact_hashes(out) == artifact_hashes(corpus / "whole")
    assert times == {name: (out / name).stat().st_mtime_ns for name in times}


def test_unfinished_shards_of_other_settings_are_replaced(dolma: Dolma, corpus: Path, tokenizer_path: Path) -> None:
    dolma(*options(tokenizer_path, "out", max_size=4000))
    (corpus / "out/manifest.json").unlink()
    assert "were removed" in dolma(*options(tokenizer_path, "out", max_size=8000)).err
    dolma(*options(tokenizer_path, "fresh", max_size=8000))
    assert artifact_hashes(corpus / "out") == artifact_hashes(corpus / "fresh")
    assert len(list((corpus / "out").glob("*.npy"))) == len(list((corpus / "fresh").glob("*.npy")))


@pytest.mark.processes
def test_kill_and_run_again_gives_the_same_bytes(corpus: Path, tokenizer_path: Path, dolma: Dolma) -> None:
    write_rows(corpus / "documents/long.jsonl.gz", make_rows(3000, 5000))
    arguments = [str(argument) for argument in options(tokenizer_path, "killed", max_size=5000, processes=2)]
    killed = 0
    for wanted in (1, 4, 9):
        process = subprocess.Popen([sys.executable, "-m", "dolma", *arguments], stderr=subprocess.DEVNULL)
        records = corpus / "killed/.dolma/progress.ndjson"
        while process.poll() is None and not (records.exists() and records.read_text().count('"npy"') >= wanted):
            time.sleep(0.002)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed >= 1
    assert dolma(*arguments).err
    dolma(*options(tokenizer_path, "whole", max_size=5000))
    assert artifact_hashes(corpus / "killed") == artifact_hashes(corpus / "whole")


@pytest.mark.parametrize(
    ("row", "code", "message"),
    [
        ('{"id":"x","text":', "not_json", "is not JSON"),
        ('{"id":"x"}', "missing_field", '"text" is missing; expected a string'),
        ('{"id":3,"text":"a"}', "wrong_type", '"id" is a number; expected a string'),
        ('{"id":"x","text":null}', "wrong_type", '"text" is null; expected a string'),
        ("[1]", "not_object", "the line is an array; expected a JSON object"),
        ("", "not_json", "the line is blank"),
    ],
)
def test_bad_row_is_told_with_its_place_before_any_work(
    dolma: Dolma, corpus: Path, tokenizer_path: Path, row: str, code: str, message: str
) -> None:
    path = corpus / "documents/bad.jsonl"
    path.write_text('{"id":"1","text":"fine"}\n' + row + "\n" + row + "\n")
    result = dolma(*options(tokenizer_path, "out"), code=1)
    assert f"error: documents/bad.jsonl:2: {message}" in result.err.replace("the line is not JSON", "is not JSON")
    assert "documents/bad.jsonl:3: " in result.err
    errors = read_rows(corpus / "out/.dolma/errors.ndjson")
    assert [(error["code"], error["line"]) for error in errors] == [(code, 2), (code, 3)]
    assert not (corpus / "out/manifest.json").exists()
    assert not list((corpus / "out").glob("*.npy"))


def test_truncated_file_is_an_error(dolma: Dolma, corpus: Path, tokenizer_path: Path) -> None:
    path = corpus / "documents/a.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    result = dolma(*options(tokenizer_path, "out"), code=1)
    assert "error: documents/a.jsonl.gz: the compressed file ends early" in result.err


def test_document_larger_than_a_shard_is_refused(dolma: Dolma, corpus: Path, tokenizer_path: Path) -> None:
    result = dolma(*options(tokenizer_path, "out", max_size=20), code=1)
    assert "expected at most 10, as max_size allows" in result.err
    assert not (corpus / "out/manifest.json").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokenizer.name_or_path": "no/such"}, 'tokenizer.name_or_path: is "no/such"'),
        ({"tokenizer.eos_token_id": 5000}, "tokenizer.eos_token_id: is 5000; expected an id below 322"),
        ({"tokenizer.eos_token_id": "null"}, "tokenizer.eos_token_id: is missing"),
        ({"dtype": "uint8"}, "dtype: is uint8; expected a type that holds a vocabulary of 322"),
        ({"dtype": "int16"}, 'dtype: is "int16"; expected one of uint8, uint16, uint32'),
        ({"no-tokenizer.fast": True}, "tokenizer.fast: is false"),
        ({"ring_size": 0}, "ring_size: is 0; expected at least 1"),
        ({"tokenizer.name_or_path": "documents/a.jsonl.gz"}, "which is a compressed file"),
    ],
)
def test_wrong_request_exits_2(
    dolma: Dolma, corpus: Path, tokenizer_path: Path, settings: dict[str, object], message: str
) -> None:
    destination = str(settings.pop("destination", "out"))
    result = dolma(*options(tokenizer_path, destination, **settings), code=2)
    assert f"error: {message}" in result.err or message in result.err
    assert not list(corpus.rglob("*.npy"))


def test_foreign_shards_are_not_overwritten(dolma: Dolma, corpus: Path, tokenizer_path: Path) -> None:
    (corpus / "out").mkdir()
    (corpus / "out/part-0-00000.npy").write_bytes(b"theirs")
    assert "did not write" in dolma(*options(tokenizer_path, "out"), code=2).err
    assert (corpus / "out/part-0-00000.npy").read_bytes() == b"theirs"


def test_deprecated_tokenizer_option_takes_the_last_id(dolma: Dolma, corpus: Path, tokenizer_path: Path) -> None:
    dolma(
        "tokens",
        "--documents",
        "documents/a.jsonl.gz",
        "--destination",
        "out",
        "--tokenizer_name_or_path",
        tokenizer_path,
    )
    size = Tokenizer.from_file(str(tokenizer_path)).get_vocab_size()
    assert {ids[-1] for _, ids in read_shards(corpus / "out")} == {size - 1}


@pytest.mark.parametrize("name", ["allenai_dolma2", "allenai_gpt-neox-olmo-dolma-v1_5"])
def test_ids_are_the_golden_ones(
    dolma: Dolma, tmp_path: Path, shared_data: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    golden = [row for row in read_rows(shared_data / "tokenizers/golden_encodings.jsonl.gz") if row["text"].strip()]
    # the golden ids are of the texts as they are; ours strips them
    rows = [row for row in golden if row["text"] == row["text"].strip()]
    assert len(rows) > 100
    write_rows(tmp_path / "documents/g.jsonl", [{"id": str(i), "text": row["text"]} for i, row in enumerate(rows)])
    tokenizer = shared_data / "tokenizers" / f"{name}.json"
    end = Tokenizer.from_file(str(tokenizer)).token_to_id("<|endoftext|>")
    assert end is not None
    dolma(*options(tokenizer, "out", **{"tokenizer.eos_token_id": end, "no-tokenizer.encode_special_tokens": True}))
    dtype = json.loads((tmp_path / "out/manifest.json").read_text())["details"]["dtype"]
    assert dtype == {"allenai_dolma2": "uint32"}.get(name, "uint16")
    found = {row["id"]: ids for row, ids in read_shards(tmp_path / "out", dtype)}
    for index, row in enumerate(rows):
        wanted = row["ids"][name]
        assert found[str(index)] == (wanted if wanted[-1:] == [end] else [*wanted, end])


@pytest.mark.slow
def test_ids_of_whole_documents_are_the_golden_ones(dolma: Dolma, tmp_path: Path, shared_data: Path) -> None:
    golden = {
        (row["source"], row["id"]): row
        for row in read_rows(shared_data / "tokenizers/golden_document_token_hashes.jsonl.gz")
    }
    tokenizer = shared_data / "tokenizers/allenai_gpt-neox-olmo-dolma-v1_5.json"
    documents = [shared_data / f"corpus/{source}/documents" for source in ("c4", "wiki")]
    arguments = ["--tokenizer.name_or_path", tokenizer, "--tokenizer.eos_token_id", 50279, "--processes", 2]
    dolma("tokens", "--documents", *documents, "--destination", tmp_path / "out", *arguments)
    checked = 0
    for row, ids in read_shards(tmp_path / "out"):
        source = Path(row["src"]).name.split("-")[0]
        wanted = golden.get((source, row["id"]))
        if wanted is None:
            continue
        data = np.array(ids[:-1], dtype="<u4").tobytes()
        stated = wanted["allenai_gpt-neox-olmo-dolma-v1_5"]
        if len(ids) - 1 == stated["n"]:
            assert hashlib.sha256(data).hexdigest() == stated["sha256_u32le"]
            checked += 1
    assert checked > 600
    assert os.path.exists(tmp_path / "out/manifest.json")


def test_documents_without_text_are_counted(dolma: Dolma, tmp_path: Path, tokenizer_path: Path) -> None:
    rows = [{"id": str(n), "text": text} for n, text in enumerate(["a", "", " \n", "b"])]
    write_rows(tmp_path / "documents/a.jsonl", rows)
    arguments = ["--documents", tmp_path / "documents/*", "--destination", tmp_path / "tokens"]
    tokenizer = ["--tokenizer.name_or_path", tokenizer_path, "--tokenizer.eos_token_id", 0]
    for _ in range(2):  # a second run has nothing to do and reports the same
        assert "2 documents have no text and are in no shard" in dolma("tokens", *arguments, *tokenizer).err
    counts = json.loads((tmp_path / "tokens/manifest.json").read_text())["counts"]
    assert (counts["documents"], counts["documents_empty"]) == (2, 2)
    (metrics,) = tmp_path.rglob("metrics.ndjson")
    assert json.loads(metrics.read_text().splitlines()[-1])["documents_empty"] == 2


def test_bad_rows_are_skipped_up_to_the_limit(dolma: Dolma, tmp_path: Path, tokenizer_path: Path) -> None:
    documents = tmp_path / "documents/a.jsonl"
    write_rows(documents, [{"id": "1", "text": "a"}, {"id": "2"}, {"id": "3", "text": "b"}])
    with documents.open("a") as file:
        file.write("no json\n")
    arguments = ["--documents", tmp_path / "documents/*", "--destination", tmp_path / "tokens"]
    tokenizer = ["--tokenizer.name_or_path", tokenizer_path, "--tokenizer.eos_token_id", 0]
    assert (
        "more than the 1 rows that skip_bad_rows allows"
        in dolma("tokens", *arguments, *tokenizer, "--skip_bad_rows", 1, code=1).err
    )
    dolma("tokens", *arguments, *tokenizer, "--skip_bad_rows", 2)
    counts = json.loads((tmp_path / "tokens/manifest.json").read_text())["counts"]
    assert (counts["documents"], counts["rows_skipped"]) == (2, 2)
    (listed,) = tmp_path.rglob("skipped.ndjson")
    assert [row["line"] for row in map(json.loads, listed.read_text().splitlines())] == [2, 4]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\x02", "a SentencePiece model"),
        (b"IQ== 0\nIg== 1\n", "a tiktoken file"),
        (b"#version: 0.2\ne n\n", "a merges.txt"),
        (b'{"a": 0, "b": 1}', "a vocab.json"),
    ],
)
def test_the_tokenizer_of_another_library_is_named(dolma: Dolma, tmp_path: Path, data: bytes, what: str) -> None:
    write_rows(tmp_path / "documents/a.jsonl", [{"id": "1", "text": "a"}])
    (tmp_path / "t").write_bytes(data)
    arguments = ["--documents", tmp_path / "documents/*", "--destination", tmp_path / "tokens"]
    tokenizer = ["--tokenizer.name_or_path", tmp_path / "t", "--tokenizer.eos_token_id", 0]
    err = dolma("tokens", *arguments, *tokenizer, code=2).err
    assert f"which is {what}" in err
    assert "hint: " in err
    (tmp_path / "model").mkdir()
    (tmp_path / "model/tokenizer.model").write_bytes(data)
    tokenizer[1] = tmp_path / "model"
    assert "has tokenizer.model but no tokenizer.json" in dolma("tokens", *arguments, *tokenizer, code=2).err


def test_ignore_existing_rewrites_shards(corpus: Path, tokenizer_path: Path, dolma: Dolma) -> None:
    call = [
        "tokens",
        "--documents",
        "documents/**/*",
        "--destination",
        "out",
        "--tokenizer.name_or_path",
        tokenizer_path,
    ]
    call += ["--tokenizer.eos_token_id", "0"]
    dolma(*call)
    before = artifact_hashes(corpus / "out")
    other = dolma(*call, "--seed", "1", code=2)
    assert "made with other settings" in other.err
    dolma(*call, "--seed", "1", "--ignore_existing")
    assert artifact_hashes(corpus / "out") != before
    dolma(*call, "--ignore_existing")
    assert artifact_hashes(corpus / "out") == before
    # files of another tool are not removed
    (corpus / "foreign").mkdir()
    (corpus / "foreign/part-0.npy").write_bytes(b"12")
    foreign = [word if word != "out" else "foreign" for word in call]
    assert "did not write" in dolma(*foreign, "--ignore_existing", code=2).err
    assert (corpus / "foreign/part-0.npy").read_bytes() == b"12"

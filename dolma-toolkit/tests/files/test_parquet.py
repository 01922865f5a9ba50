"""Documents in Parquet files, in and out, beside the same documents as JSON lines; pyarrow is the other side."""

import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from dolma_corpus import Dolma, artifact_hashes, make_rows, read_rows, write_rows

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ROWS = [{**row, "metadata": {"url": f"https://example.com/{row['id']}", "n": 1}} for row in make_rows(300)]


def write_parquet(path: Path, rows: list[dict[str, Any]], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.Table.from_pylist(rows), path, **options)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same documents, as columns below ``columns`` and as lines below ``lines``."""
    monkeypatch.chdir(tmp_path)
    write_parquet(tmp_path / "columns/documents/a.parquet", ROWS[:100], row_group_size=17)
    write_parquet(tmp_path / "columns/documents/b/c.parquet", ROWS[100:], compression="zstd")
    write_rows(tmp_path / "lines/documents/a.jsonl.gz", ROWS[:100])
    write_rows(tmp_path / "lines/documents/b/c.jsonl.gz", ROWS[100:])
    return tmp_path


def test_attributes_are_those_of_the_same_documents_as_lines(dolma: Dolma, places: Path) -> None:
    for place in ("lines", "columns"):
        documents = f"{place}/documents/**/*.*"
        dolma("tag", "--documents", documents, "--taggers", "gopher_v2", "char_length_v1", "--experiment", "e")
        filter = ["--bloom_filter.file", f"{place}/filter.bin", "--bloom_filter.size_in_bytes", 100_000]
        dolma("dedupe", "--documents", documents, "--dedupe.documents.attribute_name", "d",
              "--dedupe.documents.key", "$.text", *filter)  # fmt: skip
    for name in ("e", "d"):
        for file in ("a", "b/c"):
            lines = read_rows(places / f"lines/attributes/{name}/{file}.jsonl.gz")
            assert read_rows(places / f"columns/attributes/{name}/{file}.parquet.jsonl.gz") == lines
    assert any(row["attributes"].get("d") for row in read_rows(places / "lines/attributes/d/b/c.jsonl.gz"))


def test_mixed_rows_go_from_columns_to_columns(dolma: Dolma, places: Path) -> None:
    for place in ("lines", "columns"):
        dolma("tag", "--documents", f"{place}/documents/**/*.*", "--taggers", "char_length_v1", "--experiment", "e")
    exclude = "$.attributes[?(@.e__char_length_v1__length && @.e__char_length_v1__length[0][2] < 40)]"
    for place, form, out in [
        ("lines", "jsonl", "1"), ("columns", "jsonl", "2"), ("lines", "parquet", "3"), ("columns", "parquet", "4"),
    ]:  # fmt: skip
        output = {"path": out, "format": form, "max_size_in_bytes": 1}
        stream = {"name": "s", "documents": [f"{place}/documents/**/*.*"], "attributes": ["e"], "output": output}
        config = places / f"{out}.json"
        config.write_text(json.dumps({"streams": [{**stream, "filter": {"exclude": [exclude]}}], "processes": 2}))
        dolma("-c", config, "mix")
    expected = [rows_without_provenance(read_rows(places / f"1/s-000{shard}.jsonl.gz")) for shard in (0, 1)]
    assert 0 < len(expected[0]) < 100
    for shard in (0, 1):
        assert rows_without_provenance(read_rows(places / f"2/s-000{shard}.jsonl.gz")) == expected[shard]
        for out in ("3", "4"):
            rows = parquet.read_table(places / out / f"s-000{shard}.parquet").to_pylist()
            assert [row["text"] for row in rows] == [row["text"] for row in expected[shard]]
            assert [json.loads(row["attributes"]) for row in rows] == [row["attributes"] for row in expected[shard]]
    assert "documents" in dolma("-c", places / "4.json", "mix").err
    hashes = artifact_hashes(places / "4")
    config = json.loads((places / "4.json").read_text())
    config["processes"] = 1
    config["streams"][0]["output"]["path"] = "5"
    (places / "5.json").write_text(json.dumps(config))
    dolma("-c", places / "5.json", "mix")
    assert {name: digest for name, digest in artifact_hashes(places / "5").items() if name != "manifest.json"} == {
        name: digest for name, digest in hashes.items() if name != "manifest.json"
    }


def rows_without_provenance(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in rows:
        assert row["metadata"].pop("provenance")
    return rows


def test_what_is_written_is_read_by_every_command_and_the_validator(
    dolma: Dolma, places: Path, tokenizer_path: Path
) -> None:
    from dolma.formats import attributes, document

    stream = {
        "name": "s",
        "documents": ["lines/documents/**/*.gz"],
        "output": {"path": "out/documents", "format": "parquet"},
    }
    (places / "mix.json").write_text(json.dumps({"streams": [stream]}))
    dolma("-c", places / "mix.json", "mix")
    dolma("tag", "--documents", "out/documents/*.parquet", "--taggers", "char_length_v1", "--experiment", "e")
    for rows in (document.dump(places / "out/documents"), attributes.dump(places / "out/attributes/e")):
        assert [isinstance(row, dict) for row in rows] == [True] * 300
    tokenizer = ["--tokenizer.name_or_path", tokenizer_path, "--tokenizer.eos_token_id", 0]
    dolma("tokens", "--documents", "out/documents/*.parquet", "--destination", "tokens", *tokenizer)
    counts = json.loads((places / "tokens/manifest.json").read_text())["counts"]
    assert counts["documents"] == sum(bool(row["text"].strip()) for row in ROWS)


def test_without_shuffle_each_input_keeps_its_kind_unless_told(dolma: Dolma, places: Path) -> None:
    for form, names in [
        (None, ["a.parquet", "b/c.parquet"]), ("jsonl", ["a.jsonl.gz", "b/c.jsonl.gz"]),
        ("parquet", ["a.parquet", "b/c.parquet"]),
    ]:  # fmt: skip
        stream = {
            "name": "s",
            "documents": ["columns/documents/**/*.*"],
            "output": {"path": f"o-{form}", "format": form},
        }
        (places / "mix.json").write_text(json.dumps({"streams": [stream], "shuffle": False}))
        dolma("-c", places / "mix.json", "mix")
        found = json.loads((places / f"o-{form}/documents/manifest.json").read_text())["files"]
        assert [file["path"] for file in found] == names
    stream["compression"] = {"output": "gz"}
    (places / "mix.json").write_text(json.dumps({"streams": [stream]}))
    assert "packs by itself" in dolma("-c", places / "mix.json", "mix", code=2).err


def test_columns_of_every_kind_become_fields(dolma: Dolma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    when = datetime.datetime(2024, 2, 29, 23, 59, 59, 1, tzinfo=datetime.UTC)
    row = {
        "id": "1", "text": "é😀\u0000\r\n", "source": None, "created": when, "metadata": '{"a":\n [1, 2.50]}',
        "score": 0.1, "labels": ["x", None], "nested": {"deep": {"n": None, "m": 1}}, "raw": b"bytes", "flag": True,
    }  # fmt: skip
    write_parquet(tmp_path / "documents/a.parquet", [row])
    stream = {"name": "s", "documents": ["documents/*"], "output": {"path": "out"}}
    (tmp_path / "mix.json").write_text(json.dumps({"streams": [stream]}))
    dolma("-c", tmp_path / "mix.json", "mix")
    (found,) = read_rows(tmp_path / "out/s-0000.jsonl.gz")
    assert found == {
        "id": "1", "text": row["text"], "created": "2024-02-29T23:59:59.000001Z", "score": 0.1, "labels": ["x", None],
        "metadata": {"a": [1, 2.5], "provenance": "a.parquet:1"}, "nested": {"deep": {"m": 1}}, "raw": "bytes",
        "flag": True,
    }  # fmt: skip


def test_a_damaged_or_foreign_file_is_told_and_leaves_no_result(dolma: Dolma, places: Path) -> None:
    path = places / "columns/documents/a.parquet"
    whole = path.read_bytes()
    arguments = ["tag", "--documents", path, "--taggers", "char_length_v1", "--experiment", "e"]
    for data in (b"", whole[: len(whole) // 2], whole[:-1], whole[:100] + b"\xff" * 400 + whole[500:], b"PAR1" * 9):
        path.write_bytes(data)
        result = dolma(*arguments, code=1)
        assert "a.parquet: the Parquet file is damaged" in result.err
        assert "panicked" not in result.err
        assert not list(places.rglob("attributes/e/*.gz"))
        assert not list(places.rglob("*.partial"))
    path.write_bytes(whole)
    dolma(*arguments)
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(whole).digest()
    write_parquet(path, [{"id": 1, "text": "a"}])
    assert '"id" is a number; expected a string' in dolma(*arguments, code=1).err


def test_unused_columns_are_not_read(dolma: Dolma, places: Path, tokenizer_path: Path) -> None:
    table = arrow.table(
        {
            "id": ["1", "2"], "text": ["a b", "c"], "digest": arrow.array([b"\xff", None], arrow.binary()),
            "score": [float("nan"), 1.0], "span": arrow.array([1, 2], arrow.duration("s")),
        }
    )  # fmt: skip
    parquet.write_table(table, places / "columns/documents/a.parquet")
    one = "columns/documents/a.parquet"
    dolma("tag", "--documents", one, "--taggers", "char_length_v1", "--experiment", "x")
    filter = ["--bloom_filter.file", "f.bin", "--bloom_filter.size_in_bytes", 100_000]
    keys = ["--dedupe.documents.attribute_name", "d", "--dedupe.documents.key"]
    dolma("dedupe", "--documents", one, *keys, "$.text", *filter)
    tokenizer = ["--tokenizer.name_or_path", tokenizer_path, "--tokenizer.eos_token_id", 0]
    dolma("tokens", "--documents", one, "--destination", "tokens", *tokenizer)
    # a column that is read is named, with its row
    filter[1] = "g.bin"
    keyed = ["dedupe", "--documents", one, *keys, "$.digest", *filter, "--dedupe.name", "other"]
    assert 'a.parquet:1: column "digest" has bytes that are not UTF-8' in dolma(*keyed, code=1).err
    stream = {"name": "s", "documents": [one], "output": {"path": "out"}}
    (places / "mix.json").write_text(json.dumps({"streams": [stream]}))
    assert 'a.parquet:1: column "' in dolma("-c", "mix.json", "mix", code=1).err


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("column", ["score", "metadata"])
def test_a_number_that_is_not_finite_does_not_become_null(
    dolma: Dolma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, value: float
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": str(n), "text": "a", column: {"deep": [n if n else value]} if column == "metadata" else value}
        for n in (1, 0)
    ]
    write_parquet(tmp_path / "documents/a.parquet", rows)
    stream = {"name": "s", "documents": ["documents/*"], "output": {"path": "out"}}
    (tmp_path / "mix.json").write_text(json.dumps({"streams": [stream]}))
    err = dolma("-c", "mix.json", "mix", code=1).err
    assert f'column "{column}" is ' in err
    assert "expected a finite number or null" in err
    assert ("a.parquet:2: " if column == "metadata" else "a.parquet:1: ") in err


def test_times_keep_their_zone_and_stay_without_one(
    dolma: Dolma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    columns = {"id": arrow.array(["1"]), "text": arrow.array(["a"])}
    for unit in ("ms", "us", "ns"):
        for zone in (None, "UTC", "Europe/Paris"):
            columns[f"{unit} {zone}"] = arrow.array([1], arrow.timestamp(unit, zone))
    columns["inside"] = arrow.array([[{"at": 1}]], arrow.list_(arrow.struct([("at", arrow.timestamp("us"))])))
    columns["map"] = arrow.array([[("k", 1)]], arrow.map_(arrow.string(), arrow.timestamp("ns", "UTC")))
    columns["time"] = arrow.array([1], arrow.time64("ns"))
    columns["day"] = arrow.array([1], arrow.date32())
    columns["large"] = arrow.array([2**64 - 1], arrow.uint64())
    columns["exact"] = arrow.array(["12.50"]).cast(arrow.decimal128(10, 2))
    parquet.write_table(arrow.table(columns), "a.parquet")
    (tmp_path / "documents").mkdir()
    (tmp_path / "a.parquet").rename(tmp_path / "documents/a.parquet")
    stream = {"name": "s", "documents": ["documents/*"], "output": {"path": "out"}}
    (tmp_path / "mix.json").write_text(json.dumps({"streams": [stream]}))
    dolma("-c", "mix.json", "mix")
    (found,) = read_rows(tmp_path / "out/s-0000.jsonl.gz")
    digits = {"ms": "001", "us": "000001", "ns": "000000001"}
    for unit in digits:
        assert found[f"{unit} None"] == f"1970-01-01T00:00:00.{digits[unit]}"
        assert found[f"{unit} UTC"] == found[f"{unit} Europe/Paris"] == f"1970-01-01T00:00:00.{digits[unit]}Z"
    assert found["inside"] == [{"at": "1970-01-01T00:00:00.000001"}]
    assert found["map"] == {"k": "1970-01-01T00:00:00.000000001Z"}
    assert (found["time"], found["day"], found["large"]) == ("00:00:00.000000001", "1970-01-02", 2**64 - 1)
    assert '"exact":12.50' in read_text(tmp_path / "out/s-0000.jsonl.gz")


def read_text(path: Path) -> str:
    import gzip

    return gzip.decompress(path.read_bytes()).decode()

"""Every command on ``s3://``, against a server that speaks S3."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dolma_corpus import Dolma, artifact_hashes, make_rows, write_rows

if importlib.util.find_spec("moto") is None or importlib.util.find_spec("boto3") is None:
    pytest.skip("moto[server] and boto3 are not installed", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parent))
from s3_server import DroppingProxy, free_port, make_bucket, moto_server

FILES = ("a.jsonl.gz", "web/b.jsonl.gz", "web/deep/c.jsonl")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with moto_server() as address:
        yield address


@pytest.fixture
def bucket(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Any]:
    """A bucket with three document files in a tree; the same files are in the current directory."""
    from dolma.files.remote import store_of

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    store_of.cache_clear()
    made = make_bucket(server, monkeypatch, request.node.name)
    for index, file in enumerate(FILES):
        write_rows(tmp_path / "documents" / file, make_rows(60, 1000 * index))
        made.upload_file(str(tmp_path / "documents" / file), f"src/documents/{file}")
    yield made
    store_of.cache_clear()


def keys(bucket: Any, prefix: str = "") -> list[str]:
    return [item.key for item in bucket.objects.filter(Prefix=prefix)]


def body(bucket: Any, key: str) -> bytes:
    data: bytes = bucket.Object(key).get()["Body"].read()
    return data


def test_patterns_have_any_number_of_wildcards(bucket: Any) -> None:
    from dolma.files.remote import find

    bucket.put_object(Key="src/documents/.hidden/x.jsonl", Body=b"")
    bucket.put_object(Key="src/documents/folder/", Body=b"")

    def found(pattern: str) -> list[str]:
        return [entry.url.partition("/documents/")[2] for entry in find(f"s3://{bucket.name}/{pattern}")]

    assert found("src/documents/*.gz") == ["a.jsonl.gz"]
    assert found("src/documents/**/*.gz") == ["a.jsonl.gz", "web/b.jsonl.gz"]
    assert found("src/documents/**") == list(FILES)
    assert found("*/documents/*/*/?.jsonl") == ["web/deep/c.jsonl"]
    assert found("**/deep/**/c.json*") == ["web/deep/c.jsonl"]
    assert found("src/documents/web") == ["web/b.jsonl.gz"]
    assert found("src/documents/web/") == ["web/b.jsonl.gz"]
    assert found("src/documents/[ab].jsonl.gz") == ["a.jsonl.gz"]
    assert found("src/documents/web/b.jsonl.gz") == ["web/b.jsonl.gz"]
    assert found("src/nothing/*") == []


def pipeline(dolma: Dolma, root: str, out: str, tokenizer_path: Path, directory: Path) -> None:
    """Tag, dedupe, mix and tokens, as the configurations of dolma 1.x have them."""
    directory.mkdir(parents=True, exist_ok=True)

    def run(command: str, **settings: Any) -> None:
        path = directory / f"{command}.json"
        path.write_text(json.dumps(settings))
        dolma("-c", path, command)

    documents = [f"{root}/documents/**/*.gz", f"{root}/documents/web/deep/*"]
    run("tag", documents=documents, experiment="rules", taggers=["gopher_v1", "char_length_v1"], processes=2)
    run(
        "dedupe",
        documents=documents,
        dedupe={"name": "para", "skip_empty": True, "paragraphs": {"attribute_name": "dup"}},
        bloom_filter={"file": f"{out}/bloom.bin", "estimated_doc_count": 5000, "desired_false_positive_rate": 1e-6},
    )
    stream = {
        "name": "web",
        "documents": documents,
        "attributes": ["rules", "para"],
        "output": {"path": f"{out}/mixed/documents", "max_size_in_bytes": 4000, "discard_fields": ["attributes"]},
        "filter": {"include": [], "exclude": ["$.attributes[?(@.rules__char_length_v1__length[0][2] < 100)]"]},
        "span_replacement": [{"span": "$.attributes.dup", "min_score": 0.5, "replacement": ""}],
    }
    run("mix", streams=[stream], processes=2)
    tokenizer = {"name_or_path": str(tokenizer_path), "eos_token_id": 0}
    run("tokens", documents=[f"{out}/mixed/documents/*"], destination=f"{out}/tokens", tokenizer=tokenizer)


def test_commands_on_s3_give_the_bytes_that_they_give_on_a_disk(
    dolma: Dolma, bucket: Any, tmp_path: Path, tokenizer_path: Path
) -> None:
    pipeline(dolma, ".", "out", tokenizer_path, tmp_path / "local")
    root = f"s3://{bucket.name}/src"
    pipeline(dolma, root, f"{root}/out", tokenizer_path, tmp_path / "remote")
    local = {}
    for directory in ("attributes/rules", "attributes/para", "out/mixed/documents", "out/tokens"):
        hashes = artifact_hashes(tmp_path / directory)
        local.update({f"src/{directory}/{name}": sha256 for name, sha256 in hashes.items() if name[-4:] != "json"})
    assert len(local) >= 3 + 3 + 2 + 2
    for key, sha256 in local.items():
        if not key.endswith(".csv.gz"):  # these name the documents' files
            assert hashlib.sha256(body(bucket, key)).hexdigest() == sha256, key
    rows = json.loads(body(bucket, "src/out/tokens/manifest.json"))["inputs"]
    assert all(row["path"].startswith(f"{root}/out/mixed") for row in rows if row["role"] == "documents")
    # what names no bucket is the same text: paths between artifacts of one bucket are relative
    for name in ("attributes/para", "out/mixed/documents"):
        remote = json.loads(body(bucket, f"src/{name}/manifest.json"))
        here = json.loads((tmp_path / name / "manifest.json").read_text())
        assert remote["counts"] == here["counts"]
        assert ".dolma-remote" not in json.dumps(remote)
    settings = body(bucket, "src/attributes/rules/.dolma/config.yaml").decode()
    assert f"{root}/documents/**/*.gz" in settings
    assert ".dolma-remote" not in settings


def test_what_is_there_is_not_uploaded_again(dolma: Dolma, bucket: Any, tmp_path: Path, tokenizer_path: Path) -> None:
    root = f"s3://{bucket.name}/src"
    pipeline(dolma, root, f"{root}/out", tokenizer_path, tmp_path / "first")
    result_keys = [key for key in keys(bucket) if "/documents/" not in key.removeprefix("src/out/")]
    # `metrics.ndjson` has the time of the run, the records are in the order in which threads finished
    result_keys = [key for key in result_keys if not key.endswith(("metrics.ndjson", "progress.ndjson"))]
    before = {key: bucket.Object(key).last_modified for key in result_keys}
    hashes = {key: body(bucket, key) for key in result_keys}
    bucket.Object("src/attributes/rules/manifest.json").delete()  # as if the upload had been cut off before its end
    settings = tmp_path / "first/tag.json"
    result = dolma("-c", settings, "tag")
    # the manifest, and of the records and numbers what differs; what matters is that results stay, below
    assert re.search(r"uploaded \d+ of \d+ files", result.err)
    assert {key: body(bucket, key) for key in hashes} == hashes
    for key in before:
        if key.endswith((".jsonl.gz", ".jsonl")):
            assert bucket.Object(key).last_modified == before[key], key
    # the whole artifact is there: it is found, not made
    assert "3 were finished before" in dolma("-c", settings, "tag").err


def test_shards_of_an_earlier_run_do_not_stay_beside_the_new_ones(dolma: Dolma, bucket: Any, tmp_path: Path) -> None:
    root = f"s3://{bucket.name}/src"

    def mixed(max_size_bytes: int) -> set[str]:
        output = {"path": f"{root}/mixed", "max_size_in_bytes": max_size_bytes}
        stream = {"name": "all", "documents": [f"{root}/documents/**"], "output": output}
        (tmp_path / "mix.json").write_text(json.dumps({"streams": [stream]}))
        dolma("-c", tmp_path / "mix.json", "mix")
        listed = {entry["path"] for entry in json.loads(body(bucket, "src/mixed/manifest.json"))["files"]}
        shards = {key.removeprefix("src/mixed/") for key in keys(bucket, "src/mixed/all-")}
        assert shards <= listed
        return shards

    assert len(mixed(10)) == 3
    assert len(mixed(10_000_000)) == 1


def test_dropped_connections_are_taken_up_where_they_broke(
    dolma: Dolma, bucket: Any, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dolma.files.remote import store_of

    rows = make_rows(12_000)
    write_rows(tmp_path / "documents/big.jsonl", rows)
    bucket.upload_file(str(tmp_path / "documents/big.jsonl"), "src/documents/big.jsonl")
    proxy = DroppingProxy(server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
    store_of.cache_clear()
    proxy.limits = [9000, 0, 70_000, 300_000]
    name = f"s3://{bucket.name}/src/documents/big.jsonl"
    result = dolma("tag", "--documents", name, "--taggers", "char_length_v1", "--destination", "remote")
    assert proxy.dropped == 4
    assert "trying again" in result.err
    dolma("tag", "--documents", "documents/big.jsonl", "--taggers", "char_length_v1", "--destination", "local")
    assert (tmp_path / "remote/big.jsonl").read_bytes() == (tmp_path / "local/big.jsonl").read_bytes()
    # a server that never answers in full is given up, and nothing is left that could be taken for a copy
    proxy.limits, proxy.forever = [0], True
    arguments = ["tag", "--documents", name, "--taggers", "char_length_v1", "--destination", "never"]
    result = dolma(*arguments, "--work_dir.input", "copies", code=1)
    assert f"{name}: cannot be read: " in result.err
    assert "after 6 tries" in result.err
    assert [path for path in (tmp_path / "copies").rglob("*") if path.is_file()] == []
    assert [path.name for path in (tmp_path / "never").iterdir()] == [".dolma"]  # no results, no manifest
    proxy.close()


def test_a_file_that_changes_while_it_is_copied_is_an_error(bucket: Any, tmp_path: Path) -> None:
    from dolma.files.remote import RemoteError, fetch, head

    entry = head(f"s3://{bucket.name}/src/documents/a.jsonl.gz")
    assert entry is not None
    assert entry.md5 is not None
    bucket.put_object(Key="src/documents/a.jsonl.gz", Body=b"other")
    with pytest.raises(RemoteError, match="has changed while it was read"):
        fetch(entry, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    now = head(entry.url)
    assert now is not None
    assert fetch(now, tmp_path / "copy")
    assert not fetch(now, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"other"


def test_what_cannot_be_had_exits_2_and_names_it(dolma: Dolma, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from dolma.files.remote import store_of

    arguments = ["tag", "--taggers", "char_length_v1", "--documents"]
    assert "matches no file" in dolma(*arguments, f"s3://{bucket.name}/none/documents/*.gz", code=2).err
    assert "not found" in dolma(*arguments, f"s3://{bucket.name}/none.gz", code=2).err
    assert "NoSuchBucket" in dolma(*arguments, "s3://no-such-bucket/documents/*.gz", code=2).err
    assert "names no bucket" in dolma(*arguments, "s3://*/documents/*.gz", code=2).err
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    store_of.cache_clear()
    result = dolma(*arguments, f"s3://{bucket.name}/src/documents/*.gz", code=2)
    assert "cannot be listed: EndpointConnectionError" in result.err


def test_a_dry_run_copies_and_writes_nothing(dolma: Dolma, bucket: Any, tmp_path: Path) -> None:
    before = keys(bucket)
    documents = f"s3://{bucket.name}/src/documents/*.gz"
    result = dolma("tag", "--documents", documents, "--taggers", "char_length_v1", "--dryrun")
    assert documents in result.out
    assert keys(bucket) == before


def test_wrong_rows_are_told_with_the_name_of_the_remote_file(dolma: Dolma, bucket: Any) -> None:
    bucket.put_object(Key="src/documents/bad.jsonl", Body=b'{"id":"1","text":"x"}\n{"id":"2"}\n')
    name = f"s3://{bucket.name}/src/documents/bad.jsonl"
    result = dolma("tag", "--documents", name, "--taggers", "char_length_v1", "--experiment", "e", code=1)
    assert f"{name}:2" in result.err
    assert ".dolma-remote" not in result.err
    rows = body(bucket, "src/attributes/e/.dolma/errors.ndjson").decode()
    assert '"line": 2' in rows
    assert "src/attributes/e/manifest.json" not in keys(bucket)


def test_token_shards_on_s3_are_merged_packed_and_exported(
    dolma: Dolma, bucket: Any, tmp_path: Path, tokenizer_path: Path
) -> None:
    known = ["--tokenizer.name_or_path", tokenizer_path, "--tokenizer.eos_token_id", 0, "--max_size", 3000]
    root = f"s3://{bucket.name}"
    dolma("tokens", "--documents", "documents/**/*", "--destination", "tokens", *known)
    for path in (tmp_path / "tokens").glob("[!.]*"):
        bucket.upload_file(str(path), f"tokens/{path.name}")
    for command in (
        ["reshard", "--max_num_files", 2, "--destination_prefix"],
        ["tokens", "pack", "--sequence_length", 64, "--pad_token_id", 0, "--destination"],
        ["tokens", "export", "--destination"],
    ):
        name = str(command[1]).lstrip("-")
        dolma(*command, f"{root}/{name}", "--sources", f"{root}/tokens")
        dolma(*command, name, "--sources", "tokens")
        wanted = artifact_hashes(tmp_path / name)
        del wanted["manifest.json"]  # names its sources as they were given
        found = {key: hashlib.sha256(body(bucket, f"{name}/{key}")).hexdigest() for key in wanted}
        assert found == wanted
        counts = json.loads((tmp_path / name / "manifest.json").read_text())["counts"]
        assert json.loads(body(bucket, f"{name}/manifest.json"))["counts"] == counts

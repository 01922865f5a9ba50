"""``gs://`` with Google's own client, against a server on loopback."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dolma_corpus import Dolma

if importlib.util.find_spec("google") is None or importlib.util.find_spec("google.cloud.storage") is None:
    pytest.skip("google-cloud-storage is not installed", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parent))
from bucket_runs import FILES, Measured, comparable, largest_bytes, of_disk, pipeline, write_documents
from gcs_server import Gcs, gcs_server

ROOT = "gs://bucket/corpus"


@pytest.fixture
def gcs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gcs]:
    """A bucket with documents below ``corpus``; the current directory is a ``corpus`` with the same."""
    from dolma.files.remote import store_of

    (tmp_path / "corpus").mkdir()
    monkeypatch.chdir(tmp_path / "corpus")
    write_documents(Path("documents"))
    with gcs_server() as server:
        for path in Path("documents").rglob("*.jsonl"):
            server.put("bucket", f"corpus/{path}", path.read_bytes())
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.address)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr("dolma.files.remote.FIRST_PAUSE_S", 0.01)
        store_of.cache_clear()
        yield server
        store_of.cache_clear()


def of_bucket(gcs: Gcs) -> dict[str, str]:
    """Hashes of what is in the bucket besides documents and records of runs."""
    return {
        name.removeprefix("corpus/"): hashlib.sha256(found.data).hexdigest()
        for (_, name), found in gcs.objects.items()
        if not name.startswith("corpus/documents/") and ".dolma/" not in name
    }


def test_a_run_from_bucket_to_bucket_gives_the_same_bytes(dolma: Dolma, gcs: Gcs, tokenizer_path: Path) -> None:
    limit = largest_bytes()
    assert sum(path.stat().st_size for path in Path("documents").rglob("*.jsonl")) > 9 * limit
    run = pipeline(ROOT, tokenizer_path, keep=True, work_dir={"output": "work", "max_bytes": limit})
    with Measured(Path("work")) as measured:
        dolma("run", run)
    assert measured.most_bytes <= limit + 3 * largest_bytes()
    dolma("run", pipeline(".", tokenizer_path, keep=True))
    found = of_bucket(gcs)
    assert comparable(found) == comparable(of_disk("attributes", "mixed", "tokens", "filter.bin"))
    assert {"attributes/q/manifest.json", "mixed/manifest.json", "tokens/manifest.json"} <= found.keys()
    before = len(gcs.requests)
    dolma("run", run)
    assert [name for _, name in gcs.requests[before:] if name.endswith(".jsonl")] == []


def tag(*more: object) -> list[object]:
    return ["tag", "--taggers", "char_length_v1", "--documents", f"{ROOT}/documents/**", "--experiment", "e", *more]


def test_transfers_are_repeated_after_refusals(dolma: Dolma, gcs: Gcs) -> None:
    gcs.refused = {"GET": 3, "POST": 2}
    dolma(*tag())
    assert gcs.refused == {"GET": 0, "POST": 0}
    dolma("tag", "--taggers", "char_length_v1", "--documents", "documents/**", "--experiment", "e")
    assert comparable(of_bucket(gcs)) == comparable(of_disk("attributes"))


def test_only_replaced_documents_are_read_again(dolma: Dolma, gcs: Gcs) -> None:
    dolma(*tag())
    name = "corpus/documents/0/00.jsonl"
    gcs.put("bucket", name, gcs.objects["bucket", name].data)  # the same bytes, another generation
    before = len(gcs.requests)
    assert f"{FILES} were finished before" in dolma(*tag()).err
    read = [asked for method, asked in gcs.requests[before:] if method == "GET" and asked.startswith("corpus/doc")]
    assert set(read) == {name}


def test_a_large_file_is_transferred_in_pieces(gcs: Gcs) -> None:
    from dolma.files.remote import fetch_url, upload

    data = bytes(range(256)) * 40_000
    assert len(data) > 8 << 20
    Path("large.bin").write_bytes(data)
    assert upload(Path("large.bin"), f"{ROOT}/copy.bin")
    assert gcs.objects["bucket", "corpus/copy.bin"].data == data
    assert not upload(Path("large.bin"), f"{ROOT}/copy.bin")
    before = len(gcs.counted("GET", "copy.bin"))
    assert fetch_url(f"{ROOT}/copy.bin", Path("fetched")).read_bytes() == data
    assert len(gcs.counted("GET", "copy.bin")) == before + 3  # what it is, and two pieces


def test_what_is_not_there_exits_2(dolma: Dolma, gcs: Gcs) -> None:
    result = dolma("tag", "--taggers", "char_length_v1", "--documents", f"{ROOT}/nothing/*.gz", code=2)
    assert "matches no file" in result.err

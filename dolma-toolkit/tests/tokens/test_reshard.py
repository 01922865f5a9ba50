"""``dolma reshard``: shards merged, cut, sampled and repeated, with their tables."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from dolma_corpus import Dolma, artifact_hashes
from oracle import there
from token_shards import options, read_shards

from dolma.formats.__main__ import main as formats

Documents = Counter[tuple[str, str, str, tuple[int, ...]]]


@pytest.fixture
def shards(dolma: Dolma, corpus: Path, tokenizer_path: Path) -> Path:
    """``tokens/``: more than eight shards of 360 documents."""
    dolma(*options(tokenizer_path, "tokens", max_size=1500))
    assert len(list((corpus / "tokens").glob("*.npy"))) > 8
    return corpus / "tokens"


def documents(directory: Path) -> Documents:
    return Counter((row["id"], row["src"], row["loc"], tuple(ids)) for row, ids in read_shards(directory))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.npy"))


def test_merged_shards_hold_every_document_once(dolma: Dolma, shards: Path, corpus: Path) -> None:
    result = dolma("reshard", "--sources", "tokens", "--destination_prefix", "out", "--max_size_bytes", 6000)
    assert documents(corpus / "out") == documents(shards)
    assert len(names(corpus / "out")) < len(names(shards))
    assert names(corpus / "out")[0] == "000000.npy"
    assert all(path.stat().st_size <= 6000 for path in (corpus / "out").glob("*.npy"))
    assert formats(["validate", "tokens", "out"]) == 0
    manifest = json.loads((corpus / "out/manifest.json").read_text())
    counted = json.loads((shards / "manifest.json").read_text())["counts"]
    assert manifest["counts"] == {name: counted[name] for name in ("documents", "tokens")}
    assert [entry["role"] for entry in manifest["inputs"]] == ["tokens"]
    assert (corpus / "out/tokenizer.json").read_bytes() == (shards / "tokenizer.json").read_bytes()
    assert "shards (0 were finished before)" in result.err


def test_shards_are_cut_between_documents(dolma: Dolma, shards: Path, corpus: Path) -> None:
    dolma("reshard", "--sources", "tokens", "--destination_prefix", "out", "--max_size_bytes", 700)
    assert documents(corpus / "out") == documents(shards)
    assert all(path.stat().st_size <= 700 for path in (corpus / "out").glob("*.npy"))
    assert formats(["validate", "tokens", "out"]) == 0
    result = dolma("reshard", "--sources", "tokens", "--destination_prefix", "o", "--max_size_bytes", 20, code=1)
    assert "expected at most 10, as max_size_bytes allows" in result.err
    assert not (corpus / "o/manifest.json").exists()


def test_number_of_shards_and_rates(dolma: Dolma, shards: Path, corpus: Path, tokenizer_path: Path) -> None:
    dolma(*options(tokenizer_path, "more", documents="documents/a.jsonl.gz", max_size=1000))
    settings = corpus / "reshard.yaml"
    rates = {"tokens": 2, "more": 0.5}
    prefixes = [{"prefix": prefix, "sample_rate": rate} for prefix, rate in rates.items()]
    settings.write_text(json.dumps({"source_prefixes": prefixes, "destination_prefix": "out", "max_num_files": 3}))
    dolma("-c", settings, "reshard")
    assert len(names(corpus / "out")) == 3
    taken = documents(corpus / "out") - documents(shards) - documents(shards)
    files: dict[str, Documents] = {}
    for row, ids in read_shards(corpus / "more"):
        one = (row["id"], row["src"], row["loc"], tuple(ids))
        files.setdefault(row["file"], Counter())[one] += 1
    whole = [name for name, held in files.items() if not held - taken]
    assert len(whole) == round(len(files) / 2)
    assert sum(sum(files[name].values()) for name in whole) == sum(taken.values())
    dolma("reshard", "--config", settings, "--destination_prefix", "other", "--random_seed", 7)
    assert documents(corpus / "other") != documents(corpus / "out") or names(corpus / "other") == names(corpus / "out")
    assert artifact_hashes(corpus / "other") != artifact_hashes(corpus / "out")
    settings.write_text(json.dumps({"source_prefixes": [{"prefix": "tokens", "sample_rate": 4}], "max_num_files": 3}))
    result = dolma("-c", settings, "reshard", "--destination_prefix", "o", code=2)
    assert "max_num_files: is 3; expected at least 4" in result.err


def test_bytes_do_not_depend_on_threads_and_finished_shards_are_kept(dolma: Dolma, shards: Path, corpus: Path) -> None:
    found = []
    for workers in (1, 2, 8):
        arguments = ["reshard", "--sources", "tokens", "--max_size_bytes", 5000, "--max_workers", workers]
        dolma(*arguments, "--destination_prefix", f"out{workers}")
        found.append(artifact_hashes(corpus / f"out{workers}"))
    assert found[0] == found[1] == found[2]
    out = corpus / "out8"
    (out / "manifest.json").unlink()
    (out / "000001.npy").unlink()
    (out / ".000001.npy.partial").write_bytes(b"half")
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.npy")}
    result = dolma(*arguments, "--destination_prefix", "out8")
    assert f"({len(times)} were finished before)" in result.err
    assert artifact_hashes(out) == found[0]
    assert {name: (out / name).stat().st_mtime_ns for name in times} == times
    assert not list(out.glob(".*.partial"))
    result = dolma(*arguments[:-3], 4000, "--destination_prefix", "out8", code=2)
    assert "made with other settings" in result.err


def test_what_cannot_be_merged_is_refused(dolma: Dolma, shards: Path, corpus: Path, tokenizer_path: Path) -> None:
    dolma(*options(tokenizer_path, "wide", dtype="uint32"))
    arguments = ["reshard", "--destination_prefix", "out", "--max_num_files", 1, "--sources"]
    assert "has dtype" in dolma(*arguments, "tokens", "wide", code=2).err
    assert "has no shard" in dolma(*arguments, "documents", code=2).err
    assert "which was not found" in dolma(*arguments, "nothing", code=2).err
    (corpus / "wide/manifest.json").unlink()
    assert "which is not finished" in dolma(*arguments, "wide", code=2).err
    (corpus / "wide/.dolma/progress.ndjson").unlink()
    assert "tokenizer_name_or_path: is missing" in dolma(*arguments, "wide", code=2).err
    known = ["--tokenizer_name_or_path", tokenizer_path, "--eos_token_id", 0]
    assert "bad_boundary" in _codes(dolma(*arguments, "wide", *known, code=1).err, corpus)
    dolma(*arguments, "wide", *known, "--dtype", "uint32")
    assert formats(["validate", "tokens", "out"]) == 0
    first = shards / names(shards)[0]
    first.write_bytes(b"\7\0" + first.read_bytes()[2:])
    moved = [*arguments[:2], "damaged", *arguments[3:]]
    assert "the sha256 is another" in dolma(*moved, "tokens", code=1).err
    assert not (corpus / "damaged/manifest.json").exists()


def _codes(err: str, corpus: Path) -> set[str]:
    assert "error: " in err
    return {json.loads(line)["code"] for line in (corpus / "out/.dolma/errors.ndjson").read_text().splitlines()}


def test_old_call_and_dry_run(dolma: Dolma, shards: Path, corpus: Path) -> None:
    settings = {"source_prefixes": [{"prefix": "tokens", "sample_rate": 1.0}], "destination_prefix": "old"}
    text = json.dumps(settings | {"max_size_bytes": 9000, "max_workers": 1, "local_tempdir": "mine"})
    (corpus / "mine").mkdir()
    call = [sys.executable, "-m", "dolma.tokenizer.reshard"]
    subprocess.run([*call, "-"], input=text, text=True, check=True, capture_output=True)
    assert documents(corpus / "old") == documents(shards)
    # 1.2.1 removes the directory that it was given
    assert (corpus / "mine").is_dir()
    result = dolma("reshard", "--sources", "tokens", "--destination_prefix", "n", "--max_num_files", 1, "--dryrun")
    assert "max_num_files: 1" in result.out
    assert not (corpus / "n").exists()


SCRIPT = """
import os, sys, json
from dolma.tokenizer import reshard
walk = os.walk
def ordered(top):
    for root, directories, files in walk(top):
        directories.sort()
        yield root, directories, sorted(files)
os.walk = ordered
given = json.loads(sys.argv[1])
sources = [reshard.ReshardingPrefixConfig(**source) for source in given.pop("source_prefixes")]
reshard.reshard(reshard.ReshardingConfig(source_prefixes=sources, **given))
"""


@pytest.mark.parametrize("limit", [{"max_size_bytes": 6000}, {"max_num_files": 4}], ids=["size", "number"])
@pytest.mark.oracle
def test_shards_are_those_of_dolma(
    dolma: Dolma, shards: Path, corpus: Path, tokenizer_path: Path, limit: dict[str, int]
) -> None:
    dolma(*options(tokenizer_path, "more", documents="documents/a.jsonl.gz", max_size=1000))
    prefixes = [{"prefix": "tokens", "sample_rate": 1.3}, {"prefix": "more", "sample_rate": 2.5}]
    settings = {"source_prefixes": prefixes, **limit, "max_workers": 2}
    # its `tokenizers` reads merges in the old form alone
    tokenizer = json.loads(tokenizer_path.read_text())
    tokenizer["model"]["merges"] = [" ".join(merge) for merge in tokenizer["model"]["merges"]]
    (corpus / "old.json").write_text(json.dumps(tokenizer))
    theirs = {"destination_prefix": "theirs", "local_tempdir": "t", "tokenizer_name_or_path": "old.json"}
    done = there([json.dumps(settings | theirs)], SCRIPT)
    assert done.returncode == 0, done.stderr
    (corpus / "reshard.yaml").write_text(json.dumps(settings | {"destination_prefix": "ours"}))
    dolma("-c", "reshard.yaml", "reshard")
    assert names(corpus / "ours") == names(corpus / "theirs")
    assert len(names(corpus / "ours")) > 3
    for name in names(corpus / "ours"):
        assert (corpus / "ours" / name).read_bytes() == (corpus / "theirs" / name).read_bytes()
    assert read_shards(corpus / "ours") == read_shards(corpus / "theirs")

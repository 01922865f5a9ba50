"""From a crawl to shards with one file: the same bytes for any number of processes, killed or not."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from dolma_corpus import Dolma, artifact_hashes, find_shared_data
from web_archives import pages, write_gzip

pytest.importorskip("resiliparse")


def stages(tokenizer: Path) -> list[dict[str, Any]]:
    """Extraction, quality, deduplication, a mix, shards."""
    bloom_filter = {"file": "filter.bin", "estimated_doc_count": 10_000, "desired_false_positive_rate": 1e-9}
    dedupe = {"name": "dup", "documents": {"attribute_name": "dup", "key": "$.text"}}
    exclude = ["$.attributes[?(@.q__gopher_v2__word_count[0][2] < 5)]", "$@.attributes[?(@.dup[0][2] >= 1)]"]
    stream = {"name": "web", "attributes": ["q", "dup"], "filter": {"exclude": exclude}, "output": {"path": "mixed"}}
    tokens = {"destination": "tokens", "tokenizer": {"name_or_path": str(tokenizer), "eos_token_id": 0}}
    return [
        {"extract": {"source_name": "web", "destination": ["crawled/documents"], "pre": {"taggers": ["cc_re"]}}},
        {"tag": {"experiment": "q", "taggers": ["gopher_v2"]}},
        {"dedupe": {"dedupe": dedupe, "bloom_filter": bloom_filter}},
        {"mix": {"streams": [stream]}},
        {"tokens": tokens},
    ]


def shards(place: Path) -> dict[str, str]:
    return artifact_hashes(place / "tokens")


def write_run(place: Path, tokenizer: Path, documents: list[str]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    settings = {"documents": documents, "stages": stages(tokenizer)}
    (place / "run.yaml").write_text(yaml.safe_dump(settings), "utf-8")


def test_archives_become_shards(
    dolma: Dolma, tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for processes in (1, 3):
        place = tmp_path / str(processes) / "corpus"
        write_run(place, tokenizer_path, ["../crawl/*"])
        write_gzip(place.parent / "crawl" / "a.warc.gz", pages(40))
        write_gzip(place.parent / "crawl" / "b.warc.gz", [*pages(20, 30), b"WARC/1.0\r\n\r\n"])
        monkeypatch.chdir(place)
        assert "# barrier: the documents that were extracted are read" in dolma("run", "run.yaml", "--dryrun").out
        said = dolma("run", "run.yaml", "--processes", processes).err
        assert "skipped 1 records (wrong_length 1)" in said
        assert "50 of 60 documents kept" in said
        # what only later stages read is gone
        assert not (place / "crawled").exists()
        assert "nothing to do" in dolma("run", "run.yaml").err
        found.append(shards(place))
    assert found[0] == found[1]


def test_shards_of_a_run_give_the_same(
    dolma: Dolma, tokenizer_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("alone", "divided"):
        place = tmp_path / name / "corpus"
        write_run(place, tokenizer_path, ["../crawl/*"])
        for index in range(3):
            write_gzip(place.parent / "crawl" / f"{index}.warc.gz", pages(10, 7 * index))
    monkeypatch.chdir(tmp_path / "alone" / "corpus")
    dolma("run", "run.yaml")
    monkeypatch.chdir(tmp_path / "divided" / "corpus")
    assert 'not finished "rows"' in dolma("run", "run.yaml", "--merge", 2, code=2).err
    for _ in range(9):
        said = [dolma("run", "run.yaml", "--shard", f"{index}/2").err for index in (1, 0)]
        if all("is done" in one for one in said):
            break
    dolma("run", "run.yaml", "--merge", 2)
    assert shards(tmp_path / "divided" / "corpus") == shards(tmp_path / "alone" / "corpus")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2, 8])
def test_real_captures_killed_five_times(tokenizer_path: Path, tmp_path: Path, processes: int) -> None:
    captures = find_shared_data() / "web" / "warc"
    places = [tmp_path / name / "corpus" for name in ("whole", "killed")]
    for place in places:
        write_run(place, tokenizer_path, ["../warc/*"])
        shutil.copytree(captures, place.parent / "warc")
    command = [sys.executable, "-m", "dolma", "run", "run.yaml", "--processes"]
    start = time.monotonic()
    done = subprocess.run([*command, "1"], cwd=places[0], check=True, capture_output=True, text=True)
    whole_s = time.monotonic() - start
    assert "unknown_format 1" in done.stderr  # the list of paths is no archive
    draw = random.Random(processes)
    kills = 0
    while kills < 5:
        process = subprocess.Popen([*command, str(processes)], cwd=places[1], stderr=subprocess.PIPE)
        try:
            process.communicate(timeout=draw.uniform(0.3, 0.9) * whole_s)
            # it was faster than the kill: a finished run left its shards and its filter
            shutil.rmtree(places[1] / "tokens")
            (places[1] / "filter.bin").unlink()
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    last = subprocess.run([*command, str(processes)], cwd=places[1], capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert shards(places[1]) == shards(places[0])
    assert not list(places[1].glob("**/*.partial"))

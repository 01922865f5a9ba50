"""``dolma run --shard``: any number of shards, in any order, write what one run writes."""

from __future__ import annotations

import copy
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from dolma_corpus import Dolma, artifact_hashes, make_rows, write_rows

TAG = {"experiment": "q", "taggers": ["gopher_v2", "random_number_v1"]}
DEDUPE = {
    "dedupe": {"name": "dup", "paragraphs": {"attribute_name": "dup"}, "skip_empty": True},
    "bloom_filter": {"file": "filter.bin", "estimated_doc_count": 10_000, "desired_false_positive_rate": 1e-6},
}


def mix(*attributes: str, **changes: Any) -> dict[str, Any]:
    stream = {
        "name": "all",
        "attributes": [*attributes],
        "span_replacement": [{"span": "$.attributes.dup", "min_score": 0.5, "replacement": ""}] * ("dup" in attributes),
        "output": {"path": "mixed", "max_size_in_bytes": 3_000},
    }
    shuffled = {"shuffle_documents": changes.pop("shuffle_documents")} if "shuffle_documents" in changes else {}
    return {"streams": [{**stream, **copy.deepcopy(changes)}], **shuffled}


@pytest.fixture
def tokens(tokenizer_path: Path) -> dict[str, Any]:
    name = str(tokenizer_path)
    return {"destination": "tokens", "tokenizer": {"name_or_path": name, "eos_token_id": 0, "pad_token_id": 1}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eleven files of documents with repeated paragraphs."""
    root = tmp_path / "one" / "corpus"
    for index in range(11):
        rows = make_rows(20 + 7 * index, 300 * index)
        for row in rows[::4]:
            row["text"] = f"{rows[0]['text']}\n{row['text']}\nthe same line in many documents"
        write_rows(root / "documents" / f"{index:02d}.jsonl.gz", rows)
    monkeypatch.chdir(root)
    return root


def write(stages: list[dict[str, Any]], place: Path) -> None:
    settings = {"documents": ["documents/*"], "stages": stages}
    (place / "run.yaml").write_text(yaml.safe_dump(settings), "utf-8")


def written(place: Path) -> dict[str, Any]:
    """The bytes of all artifacts, and of the filter."""
    found: dict[str, Any] = {
        str(path.parent.relative_to(place)): artifact_hashes(path.parent) for path in place.glob("**/manifest.json")
    }
    if (place / "filter.bin").exists():
        found["filter.bin"] = (place / "filter.bin").read_bytes()
    return found


def once(dolma: Dolma, folder: Path, stages: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What one run writes, in a place of its own."""
    place = folder.parents[1] / "two" / folder.name
    shutil.copytree(folder / "documents", place / "documents")
    write(stages, place)
    with monkeypatch.context() as patch:
        patch.chdir(place)
        dolma("run", "run.yaml")
    return written(place)


def rounds(dolma: Dolma, count: int, seed: int = 0) -> int:
    """Runs all shards, in a random order, until none waits. Says how often."""
    draw = random.Random(seed)
    for number in range(1, 12):
        order = list(range(count))
        draw.shuffle(order)
        said = [dolma("run", "run.yaml", "--shard", f"{index}/{count}").err for index in order]
        if not any("has to wait" in text for text in said):
            return number
    raise AssertionError(said)


PIPELINES = {
    "tag": lambda tokens: [{"tag": TAG}],
    "mix": lambda tokens: [{"mix": mix()}],
    "tag, mix, tokens": lambda tokens: [{"tag": TAG}, {"mix": mix("q")}, {"tokens": tokens}],
    "kept": lambda tokens: [{"tag": TAG, "keep": True}, {"mix": mix("q"), "keep": True}, {"tokens": tokens}],
    "shuffled": lambda tokens: [{"tag": TAG}, {"mix": mix("q", shuffle_documents={"seed": 5})}, {"tokens": tokens}],
    "budget": lambda tokens: [{"tag": TAG}, {"mix": mix("q", budget={"documents": 150})}, {"tokens": tokens}],
    "after a mix": lambda tokens: [
        {"mix": mix(output={"path": "first/documents", "max_size_in_bytes": 3_000})},
        {"tag": TAG},
        {"mix": mix("q")},
    ],
}


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("name", PIPELINES)
def test_shards_write_what_one_run_writes(
    dolma: Dolma, folder: Path, tokens: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str, count: int
) -> None:
    stages = PIPELINES[name](tokens)
    expected = once(dolma, folder, stages, monkeypatch)
    write(stages, folder)
    rounds(dolma, count, seed=count)
    final = {"tag": "attributes/q", "mix": "mixed"}.get(name, "mixed" if name == "after a mix" else "tokens")
    assert not (folder / final / "manifest.json").exists()
    dolma("run", "run.yaml")
    assert written(folder) == expected
    assert not list(folder.glob("**/*.partial"))
    assert not list(folder.glob("**/progress-*"))
    assert name == "tag" or "nothing to do" in dolma("run", "run.yaml").err


@pytest.mark.parametrize("name", ["tag, mix, tokens", "shuffled", "budget"])
def test_a_merge_does_what_missing_shards_left(
    dolma: Dolma, folder: Path, tokens: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stages = PIPELINES[name](tokens)
    expected = once(dolma, folder, stages, monkeypatch)
    write(stages, folder)
    dolma("run", "run.yaml", "--shard", "2/3")
    dolma("run", "run.yaml", "--shard", "0/3")
    dolma("run", "run.yaml")
    assert written(folder) == expected


def test_each_shard_does_its_part_alone(dolma: Dolma, folder: Path) -> None:
    write([{"tag": TAG}], folder)
    for index in range(3):
        dolma("run", "run.yaml", "--shard", f"{index}/3")
        found = sorted(int(path.name[:2]) for path in (folder / "attributes" / "q").glob("*.gz"))
        assert found == [number for number in range(11) if number % 3 <= index]


@contextmanager
def stopped(folder: Path, *arguments: str, once: str) -> Iterator[None]:
    """A run that stops, without ending, when a file of this name is there."""
    command = [sys.executable, "-m", "dolma", "run", "run.yaml", *arguments]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: list(folder.glob(once)))
            process.send_signal(signal.SIGSTOP)
            yield
        finally:
            process.kill()


@pytest.fixture
def large(folder: Path) -> Path:
    """Enough documents to find a run at work."""
    for path in (folder / "documents").iterdir():
        write_rows(path, make_rows(4_000))
    return folder


def test_runs_that_write_to_one_output_are_refused(large: Path, dolma: Dolma) -> None:
    write([{"tag": TAG}, {"mix": mix("q")}], large)
    with stopped(large, once="mixed/.*.partial"):
        refusal = "mixed: is being written by another run; expected one run at a time"
        assert refusal in dolma("run", "run.yaml", code=2).err
        write([{"tag": {**TAG, "taggers": ["char_length_v1"]}}, {"mix": mix("q")}], large)
        assert refusal in dolma("run", "run.yaml", code=2).err
    dolma("run", "run.yaml")


def test_shards_of_different_runs_are_refused(large: Path, dolma: Dolma) -> None:
    write([{"tag": TAG}], large)
    with stopped(large, "--shard", "1/2", once="attributes/q/.*.partial"):
        assert "another number of shards" in dolma("run", "run.yaml", "--shard", "1/3", code=2).err
        assert "attributes/q: is being written by another run" in dolma("run", "run.yaml", code=2).err
        dolma("run", "run.yaml", "--shard", "0/2")
    dolma("run", "run.yaml", "--shard", "1/2")
    dolma("run", "run.yaml")
    assert len(json.loads((large / "attributes/q/manifest.json").read_text())["files"]) == 11


def wait_for(happens: Any) -> None:
    end = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize("shard", ["3", "3/3", "-1/3", "a/b"])
def test_a_shard_is_one_of_several(folder: Path, dolma: Dolma, shard: str) -> None:
    write([{"tag": TAG}], folder)
    assert "expected I/N with I from 0 to N - 1, like 0/8" in dolma("run", "run.yaml", f"--shard={shard}", code=2).err

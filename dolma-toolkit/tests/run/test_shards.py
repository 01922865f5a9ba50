"""``dolma run --shard``: any number of shards, in any order, write what one run writes."""

from __future__ import annotations

import copy
import json
import os
import random
import re
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
from dolma_corpus import Dolma, artifact_hashes, find_shared_data, make_rows, write_rows

TAG = {"experiment": "q", "taggers": ["gopher_v2", "random_number_v1"]}


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


def write(stages: list[dict[str, Any]], place: Path, **changes: Any) -> None:
    settings = {"documents": ["documents/*"], "stages": stages, **changes}
    (place / "run.yaml").write_text(yaml.safe_dump(settings), "utf-8")


def written(place: Path) -> dict[str, Any]:
    """The bytes of all artifacts, and of the filter."""
    found: dict[str, Any] = {
        str(path.parent.relative_to(place)): artifact_hashes(path.parent) for path in place.glob("**/manifest.json")
    }
    if (place / "filter.bin").exists():
        found["filter.bin"] = (place / "filter.bin").read_bytes()
    return found


def once(
    dolma: Dolma, folder: Path, stages: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> dict[str, Any]:
    """What one run writes, in a place of its own."""
    place = folder.parents[1] / "two" / folder.name
    shutil.copytree(folder / "documents", place / "documents")
    write(stages, place, **changes)
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
        if not any("waits to begin" in text for text in said):
            return number
    raise AssertionError(said)


def dedupe(unit: dict[str, Any], keys: int = 10_000, rate: float = 1e-6) -> dict[str, Any]:
    size = {"estimated_doc_count": keys, "desired_false_positive_rate": rate}
    return {"dedupe": {"name": "dup", "skip_empty": True, **unit}, "bloom_filter": {"file": "filter.bin", **size}}


def again(**changes: Any) -> dict[str, Any]:
    stage = dedupe({"name": "again", "paragraphs": {"attribute_name": "again"}})
    return {**stage, "bloom_filter": {**stage["bloom_filter"], **changes}}


OWN = """
from dolma import add_tagger, BaseTagger
from dolma.core.data_types import DocResult, Span

@add_tagger('own_v1')
class Own(BaseTagger):
    def predict(self, doc):
        return DocResult(doc=doc, spans=[Span(0, len(doc.text), 'length', len(doc.text) % 7)])
"""
PARAGRAPHS = {"paragraphs": {"attribute_name": "dup"}}
DOCUMENTS = {"documents": {"attribute_name": "dup", "key": "$.text"}}
NGRAMS = {"paragraphs": {"attribute_name": "dup", "by_ngram": {"ngram_length": 3, "overlap_threshold": 0.1}}}

PIPELINES = {
    "tag": lambda tokens: [{"tag": TAG}],
    "mix": lambda tokens: [{"mix": mix()}],
    "tag, mix, tokens": lambda tokens: [{"tag": TAG}, {"mix": mix("q")}, {"tokens": tokens}],
    "kept": lambda tokens: [{"tag": TAG, "keep": True}, {"mix": mix("q"), "keep": True}, {"tokens": tokens}],
    "shuffled": lambda tokens: [{"tag": TAG}, {"mix": mix("q", shuffle_documents={"seed": 5})}, {"tokens": tokens}],
    "budget": lambda tokens: [{"tag": TAG}, {"mix": mix("q", budget={"documents": 150})}, {"tokens": tokens}],
    "documents": lambda tokens: [{"dedupe": dedupe(DOCUMENTS)}],
    "paragraphs": lambda tokens: [{"dedupe": dedupe(PARAGRAPHS)}],
    "n-grams": lambda tokens: [{"dedupe": dedupe(NGRAMS, 100_000, 1e-3)}],
    "two blocks": lambda tokens: [{"dedupe": dedupe(NGRAMS, 100_000, 1e-9)}],
    "wrong answers": lambda tokens: [{"dedupe": dedupe(NGRAMS, 5_000, 0.3)}],
    "grows": lambda tokens: [{"dedupe": dedupe(NGRAMS, 50)}],
    "all": lambda tokens: [{"tag": TAG}, {"dedupe": dedupe(PARAGRAPHS)}, {"mix": mix("q", "dup")}, {"tokens": tokens}],
    "two filters": lambda tokens: [
        {"dedupe": dedupe(PARAGRAPHS), "keep": True},
        {"dedupe": again(read_only=True)},
        {"mix": mix("dup", "again")},
    ],
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
    [final] = [stage for stage in ("tokens", "mixed", "attributes/dup", "attributes/q") if stage in expected][:1]
    assert not (folder / final / "manifest.json").exists()
    assert name == "two filters" or not (folder / "filter.bin").exists()
    dolma("run", "run.yaml", "--merge", count)
    assert written(folder) == expected
    assert not list(folder.glob("**/*.partial"))
    assert not list(folder.glob("**/progress-*"))
    assert not list(folder.glob(".*"))
    assert name == "tag" or "nothing to do" in dolma("run", "run.yaml").err


@pytest.mark.processes
def test_shards_of_real_documents(
    dolma: Dolma, folder: Path, tokens: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (find_shared_data() / "corpus").glob("[cw]*/documents/*.gz"):
        shutil.copy(path, folder / "documents" / path.name)
    mixed = mix("q", "dup", output={"path": "mixed", "max_size_in_bytes": 2_000_000})
    stages = [{"tag": TAG}, {"dedupe": dedupe(PARAGRAPHS, 500_000)}, {"mix": mixed}, {"tokens": tokens}]
    expected = once(dolma, folder, stages, monkeypatch)
    write(stages, folder)
    rounds(dolma, 2)
    merged = dolma("run", "run.yaml", "--merge", 2)
    assert " 0 documents" not in merged.err
    assert "0 of 0" not in merged.err
    assert written(folder) == expected


def test_bad_rows_are_skipped(dolma: Dolma, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [make_rows(1, number)[0] for number in range(40, 43)]
    for index, row in enumerate(rows):
        write_rows(folder / "documents" / f"bad{index}.jsonl", [row, {**row, "text": index}, row])
    stages = [{"dedupe": dedupe(PARAGRAPHS), "keep": True}, {"mix": mix("dup")}]
    expected = once(dolma, folder, stages, monkeypatch, skip_bad_rows=3)
    write(stages, folder, skip_bad_rows=3)
    rounds(dolma, 3)
    dolma("run", "run.yaml", "--merge", 3)
    assert written(folder) == expected
    write(stages, folder, skip_bad_rows=0)
    (folder / "filter.bin").unlink()
    shutil.rmtree(folder / "attributes")
    assert "error: documents/bad0.jsonl:2: " in dolma("run", "run.yaml", "--shard", "0/1", code=1).err


@pytest.mark.parametrize("rounds", [1, 2, 4])
@pytest.mark.parametrize("name", ["tag, mix, tokens", "shuffled", "budget", "n-grams", "all"])
def test_a_run_does_what_shards_left(
    dolma: Dolma, folder: Path, tokens: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str, rounds: int
) -> None:
    stages = PIPELINES[name](tokens)
    expected = once(dolma, folder, stages, monkeypatch)
    write(stages, folder)
    for number in range(rounds):
        # shard 1 does not come to its last round
        for index in (2, 1, 0) if number + 1 < rounds else (2, 0):
            dolma("run", "run.yaml", "--shard", f"{index}/3")
    dolma("run", "run.yaml")
    assert written(folder) == expected


@pytest.mark.slow
def test_shards_that_are_killed(folder: Path, dolma: Dolma, monkeypatch: pytest.MonkeyPatch, tokens: Any) -> None:
    for number, path in enumerate(sorted((folder / "documents").iterdir())):
        write_rows(path, make_rows(600, 100 * number))
    stages = PIPELINES["all"](tokens)
    expected = once(dolma, folder, stages, monkeypatch)
    write(stages, folder)
    draw = random.Random(4)
    for _ in range(6):
        commands = [[sys.executable, "-m", "dolma", "run", "run.yaml", "--shard", f"{index}/3"] for index in range(3)]
        running = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
        time.sleep(draw.uniform(0.3, 1.5))
        killed = draw.choice(running)
        killed.kill()
        for process in running:
            assert process.wait() == 0 or process is killed
    dolma("run", "run.yaml")
    assert written(folder) == expected


@pytest.mark.processes
@pytest.mark.parametrize("name", ["all", "after a mix", "shuffled"])
def test_a_script_for_slurm(
    dolma: Dolma, folder: Path, tokens: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stages = PIPELINES[name](tokens)
    expected = once(dolma, folder, stages, monkeypatch)
    write(stages, folder)
    (folder / "submit.sh").write_text(dolma("run", "run.yaml", "--slurm", 3).out)
    (folder / "bin").mkdir()
    (folder / "bin" / "sbatch").write_text(SBATCH)
    (folder / "bin" / "dolma").write_text(f'#!/bin/bash\nexec {sys.executable} -m dolma "$@"\n')
    for path in (folder / "bin").iterdir():
        path.chmod(0o755)
    path = f"{folder}/bin:{os.environ['PATH']}"
    subprocess.run(["bash", "-n", "submit.sh"], check=True)
    result = subprocess.run(["bash", "submit.sh"], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"the last job is {(folder / 'jobs').read_text().count('job')}\n"
    assert written(folder) == expected


SBATCH = """#!/bin/bash
# runs the jobs at once, those of an array side by side
set -e
echo job >> jobs
jobs=$(wc -l < jobs)
for option in "$@"; do
  case $option in
    --array=0-*) last=${option#--array=0-} ;;
    --wrap=*) command=${option#--wrap=} ;;
    --dependency=afterok:*) test "${option#--dependency=afterok:}" = $((jobs - 1)) ;;
  esac
done
running=
for task in $(seq 0 ${last:-0}); do
  SLURM_ARRAY_TASK_ID=$task bash -c "$command" >&2 & running="$running $!"
done
for process in $running; do wait $process; done
echo $jobs
"""


MISSING = {
    "all": [
        "shards 0, 1, 2: keys",
        "shard 1: keys",
        "shards 0, 2: filter",
        "shards 0, 1: answers",
        "shard 0: answers",
        "shard 1: rows",
    ],
    "budget": [
        "shards 0, 1, 2: rows",
        "shard 1: rows",
        "shards 0, 1, 2: survey",
        "shard 1: survey",
        "shards 0, 2: rows",
    ],
    "shuffled": ["shards 0, 1, 2: rows", "shard 1: rows", "shards 0, 2: shuffle"],
    "mix": ["shards 0, 1, 2: rows", "shard 1: rows"],
}
"""What a merge asks for before the first shard, and when shards 0 and 2 and shard 1 have run in turn."""


@pytest.mark.parametrize("name", MISSING)
def test_a_merge_names_the_shards_that_are_not_done(
    dolma: Dolma, folder: Path, tokens: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stages = PIPELINES[name](tokens)
    expected = once(dolma, folder, stages, monkeypatch)
    write(stages, folder)
    missing = []
    for shards in [(), (0, 2), (1,), (0, 2), (1,), (0, 2), (1,), (0, 2), (1,)]:
        for index in shards:
            dolma("run", "run.yaml", "--shard", f"{index}/3")
        merge = dolma("run", "run.yaml", "--merge", 3, code=None)
        if merge.code == 0:
            break
        assert merge.code == 2
        assert not list(folder.glob("tokens/manifest.json"))
        found = re.search('error: merge: (.*) of 3 ha(ve|s) not finished "(.*)"; expected all shards', merge.err)
        assert found is not None, merge.err
        assert "hint: run --shard" in merge.err
        missing.append(f"{found[1]}: {found[3]}")
    assert missing == MISSING[name]
    assert written(folder) == expected


@pytest.mark.processes
def test_a_tagger_in_python(folder: Path) -> None:
    place = folder.parents[1] / "two" / folder.name
    shutil.copytree(folder / "documents", place / "documents")
    for root in (folder, place):
        (root / "own.py").write_text(OWN)
        write([{"tag": {**TAG, "taggers": ["own_v1"], "tagger_modules": ["own.py"]}}, {"mix": mix("q")}], root)

    def run(root: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "dolma", "run", "run.yaml", *arguments]
        subprocess.run(command, cwd=root, check=True, capture_output=True)

    run(place)
    for shard in ("1/2", "0/2"):
        run(folder, "--shard", shard)
    run(folder, "--merge", "2")
    assert written(folder) == written(place)
    assert not list(folder.glob("**/*spool*"))


@pytest.mark.processes
def test_a_shard_that_is_started_twice(
    dolma: Dolma, large: Path, tokens: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = PIPELINES["tag, mix, tokens"](tokens)
    expected = once(dolma, large, stages, monkeypatch)
    write(stages, large)
    command = [sys.executable, "-m", "dolma", "run", "run.yaml", "--shard", "0/2"]
    running = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
    dolma("run", "run.yaml", "--shard", "1/2")
    assert [process.wait() for process in running] == [0, 0]
    dolma("run", "run.yaml", "--merge", 2)
    assert written(large) == expected


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
        assert "attributes/q: is being written by another run" in dolma("run", "run.yaml", "--merge", 2, code=2).err
        write([{"tag": {**TAG, "taggers": ["char_length_v1"]}}], large)
        found = dolma("run", "run.yaml", "--shard", "0/2", code=2).err
        assert "attributes/q: is being written by shards of a run with other settings" in found
        write([{"tag": TAG}], large)
        dolma("run", "run.yaml", "--shard", "0/2")
    write([{"tag": {**TAG, "taggers": ["char_length_v1"]}}], large)
    found = dolma("run", "run.yaml", "--shard", "1/2", code=2).err
    assert "was made with other settings or by another tool (and 5 more)" in found
    write([{"tag": TAG}], large)
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

"""``dolma mix``: samples, budgets, splits and shuffles are seeded, exact, and the same for any number of threads."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from dolma_corpus import Dolma, artifact_hashes, read_rows, write_rows

import dolma

KEEP = "$.attributes[?(@.e__t__score && @.e__t__score[0][2] < 0.2)]"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four files of 150 documents with a score and a number of tokens each."""
    monkeypatch.chdir(tmp_path)
    randomness = random.Random(5)
    for name in "abcd":
        documents, attributes = [], []
        for number in range(150):
            text = " ".join(randomness.choices(["stone", "naïve", "東京", "light"], k=randomness.randrange(1, 60)))
            spans = {
                "e__t__score": [[0, len(text), round(randomness.random(), 2)]],
                "e__t__tokens": [[0, len(text), text.count(" ") + 1]],
            }
            documents.append({"id": f"{name}{number}", "text": text, "source": "web"})
            attributes.append({"id": f"{name}{number}", "attributes": spans})
        write_rows(tmp_path / "documents" / f"{name}.jsonl.gz", documents)
        write_rows(tmp_path / "attributes" / "e" / f"{name}.jsonl.gz", attributes)
    return tmp_path


def stream(**changes: Any) -> dict[str, Any]:
    output = {"path": "out", **changes.pop("output", {})}
    return {"name": "s", "documents": ["documents/*.gz"], "attributes": ["e"], "output": output, **changes}


def rows_of(directory: Path | str) -> list[dict[str, Any]]:
    return [row for file in sorted(Path(directory).rglob("*.gz")) for row in read_rows(file)]


def mix(part: dict[str, Any], **changes: Any) -> list[dict[str, Any]]:
    dolma.mixer({"streams": [part], **changes})
    return rows_of(part["output"]["path"])


def funnel(path: str = "out") -> dict[str, Any]:
    [found] = read_rows(Path(path, ".dolma/funnel.ndjson"))
    return dict(found)


def score(row: dict[str, Any]) -> float:
    return float(row["attributes"]["e__t__score"][0][2])


def tokens(row: dict[str, Any]) -> int:
    return int(row["attributes"]["e__t__tokens"][0][2])


def test_a_sample_is_a_part_of_a_larger_one(folder: Path) -> None:
    sizes, before = [], set[str]()
    for rate in (0.1, 0.5, 0.9, 1.0):
        ids = [row["id"] for row in mix(stream(sample={"rate": rate}, output={"path": f"out-{rate}"}))]
        assert len(set(ids)) == len(ids)
        assert before <= set(ids)
        before = set(ids)
        sizes.append(len(ids))
    # four standard deviations around the mean of 600 draws
    assert abs(sizes[0] - 60) < 30
    assert abs(sizes[1] - 300) < 49
    assert sizes[3] == 600
    other = mix(stream(sample={"rate": 0.5, "seed": 1}, output={"path": "other"}))
    assert {row["id"] for row in other} != {row["id"] for row in rows_of("out-0.5")}


def test_copies_are_numbered(folder: Path) -> None:
    rows = mix(stream(sample={"rate": 2.5}))
    copies = Counter(row["id"] for row in rows)
    assert set(copies.values()) == {2, 3}
    assert len(copies) == 600
    assert abs(len(rows) - 1500) < 49
    assert all(
        [row["metadata"]["copy"] for row in rows if row["id"] == name] == [str(n) for n in range(copies[name])]
        for name in ("a0", "b7", "d149")
    )
    assert funnel()["documents_out"] == len(rows)
    assert funnel()["bytes_out"] == sum(len(row["text"].encode()) for row in rows)


@pytest.mark.parametrize("unit", ["documents", "bytes", "tokens"])
def test_a_budget_is_used_up_and_never_exceeded(folder: Path, unit: str) -> None:
    def cost(row: dict[str, Any]) -> int:
        return {"documents": 1, "bytes": len(row["text"].encode()), "tokens": tokens(row)}[unit]

    whole = mix(stream(filter={"exclude": [KEEP]}, output={"path": "whole"}))
    limit = sum(map(cost, whole)) // 3
    budget = {unit: limit, "seed": 4, **({"attribute": "e__t__tokens"} if unit == "tokens" else {})}
    rows = mix(stream(filter={"exclude": [KEEP]}, budget=budget, output={"keep_dropped": "dropped"}))
    spent = sum(map(cost, rows))
    assert limit - max(map(cost, whole)) < spent <= limit
    # from the whole stream, not its beginning
    files = Counter(row["id"][0] for row in rows)
    assert min(files.values()) > len(rows) / 8
    [_, rule] = funnel()["rules"]
    assert (rule["kind"], rule["rule"]) == ("budget", f"{limit} {unit}")
    assert rule["documents_in_order"] == rule["documents_alone"] == len(whole) - len(rows)
    reasons = Counter(row["metadata"]["dropped_by"].split(":")[0] for row in rows_of("dropped"))
    assert reasons == {"excluded": 600 - len(whole), "over budget": len(whole) - len(rows)}
    larger = mix(stream(filter={"exclude": [KEEP]}, budget={**budget, unit: 2 * limit}, output={"path": "larger"}))
    assert {row["id"] for row in rows} < {row["id"] for row in larger}


def test_a_budget_that_holds_everything_drops_nothing(folder: Path) -> None:
    assert len(mix(stream(budget={"documents": 600}))) == 600
    assert mix(stream(budget={"documents": 0}, output={"path": "none"})) == []


def test_sample_and_budget_count_copies(folder: Path) -> None:
    rows = mix(stream(sample={"rate": 3}, budget={"documents": 100}))
    assert 97 < len(rows) <= 100
    assert set(Counter(row["id"] for row in rows).values()) == {3}


def test_a_split_by_ranges(folder: Path) -> None:
    mix(stream(split={"attribute": "e__t__score", "ranges": [0.25, 0.5]}))
    parts = [rows_of(f"out/part-0{part}") for part in range(3)]
    assert sum(map(len, parts)) == 600
    assert all(score(row) < 0.25 for row in parts[0])
    assert all(0.25 <= score(row) < 0.5 for row in parts[1])
    assert all(score(row) >= 0.5 for row in parts[2])
    found = funnel("out/part-01")["parts"]
    assert [(part["from"], part["to"], part["documents_out"]) for part in found] == [
        (None, 0.25, len(parts[0])),
        (0.25, 0.5, len(parts[1])),
        (0.5, None, len(parts[2])),
    ]
    assert [len(artifact_hashes(folder / f"out/part-0{part}")) for part in range(3)] == [2, 2, 2]


@pytest.mark.parametrize("weight", [None, "e__t__tokens"])
def test_a_split_by_percentiles(folder: Path, weight: str | None) -> None:
    def mass(rows: list[dict[str, Any]]) -> int:
        return sum(tokens(row) for row in rows) if weight else len(rows)

    mix(stream(split={"attribute": "e__t__score", "percentiles": [20, 90], "weight": weight}))
    parts = [rows_of(f"out/part-0{part}") for part in range(3)]
    everything = sorted((row for part in parts for row in part), key=score)
    assert len(everything) == 600
    for percentile, below, above in ((20, parts[0], parts[1]), (90, parts[0] + parts[1], parts[2])):
        edge = min(map(score, above))
        assert max(map(score, below)) < edge
        target = mass(everything) * percentile / 100
        assert mass(below) <= target < mass([row for row in everything if score(row) <= edge])


def test_documents_without_the_score(folder: Path, dolma: Dolma) -> None:
    file = folder / "attributes/e/b.jsonl.gz"
    rows = read_rows(file)
    del rows[6]["attributes"]["e__t__score"]
    write_rows(file, rows)
    split = {"attribute": "e__t__score", "ranges": [0.5]}
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump({"streams": [stream(split=split)]}))
    assert 'b.jsonl.gz:7: has no span of "e__t__score"; expected one' in dolma("-c", path, "mix", code=1).err
    mix(stream(split={**split, "missing": 0}))
    assert "b6" in {row["id"] for row in rows_of("out/part-00")}


def test_a_shuffle_mixes_files(folder: Path) -> None:
    plain = mix(stream(output={"path": "plain", "max_size_in_bytes": 1}))
    rows = mix(stream(output={"max_size_in_bytes": 1}), shuffle_documents={"seed": 1})
    assert sorted(row["id"] for row in rows) == sorted(row["id"] for row in plain)
    assert {row["id"]: row for row in rows} == {row["id"]: row for row in plain}
    files = sorted((folder / "out").glob("*.gz"))
    assert [file.name for file in files] == [f"s-000{n}.jsonl.gz" for n in range(4)]
    for file in files:
        assert set(Counter(row["id"][0] for row in read_rows(file))) == set("abcd")
        assert 100 < len(read_rows(file)) < 200
    neighbours = sum(one["id"][0] == two["id"][0] for one, two in pairwise(rows))
    assert abs(neighbours - 150) < 45
    one_file = mix(stream(output={"path": "one"}), shuffle_documents={"seed": 1})
    assert one_file == rows, "the order depends on the seed alone"
    assert mix(stream(output={"path": "other"}), shuffle_documents={"seed": 2}) != rows
    assert funnel()["documents_out"] == 600


ALL: dict[str, Any] = {
    "filter": {"exclude": [KEEP]},
    "sample": {"rate": 1.5, "seed": 1},
    "budget": {"bytes": 60_000, "seed": 2},
    "split": {"attribute": "e__t__score", "percentiles": [50]},
}
PARTS = ("out/part-00", "out/part-01", "dropped")


def hashes(folder: Path) -> list[Any]:
    return [(artifact_hashes(folder / part), sorted(file.name for file in (folder / part).iterdir())) for part in PARTS]


@pytest.mark.parametrize("shuffled", [False, True])
def test_threads_change_nothing(folder: Path, shuffled: bool) -> None:
    found = []
    for processes in (1, 2, 8):
        changes = {"shuffle_documents": {"seed": 3}} if shuffled else {}
        root = folder / f"at-{processes}"
        root.mkdir()
        for name in ("documents", "attributes"):
            (root / name).symlink_to(folder / name)
        part = stream(**ALL, output={"path": f"at-{processes}/out", "max_size_in_bytes": 1})
        part["documents"] = [f"at-{processes}/documents/*.gz"]
        part["output"]["keep_dropped"] = f"at-{processes}/dropped"
        assert mix(part, processes=processes, **changes)
        found.append(hashes(root))
        assert {file.name for file in root.glob("out/*/.*")} == {".dolma"}
    assert found[0] == found[1] == found[2]


def killed_and_continued(folder: Path, fraction: float, whole_s: float, command: list[str], expected: Any) -> None:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (folder / "out").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(fraction * whole_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=60)
    assert hashes(folder) == expected
    assert {file.name for file in folder.rglob(".*")} == {".dolma"}


@pytest.mark.processes
@pytest.mark.parametrize("count", [3, pytest.param(22, marks=pytest.mark.slow)])
def test_killed_and_continued(folder: Path, count: int) -> None:
    """The process is killed at random moments between the first file and the end."""
    for number in range(20):
        for kind in ("documents", "attributes/e"):
            (folder / kind / f"more-{number}.jsonl.gz").write_bytes((folder / kind / "a.jsonl.gz").read_bytes())
    part = stream(**ALL, output={"max_size_in_bytes": 20_000, "keep_dropped": "dropped"})
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump({"streams": [part], "processes": 2, "shuffle_documents": {"seed": 3}}))
    command = [sys.executable, "-m", "dolma", "-c", str(path), "mix"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=60)
    expected = hashes(folder)
    seconds = json.loads((folder / "out/part-00/.dolma/metrics.ndjson").read_text().splitlines()[-1])["time_s"]
    randomness = random.Random(count)
    for _ in range(count):
        shutil.rmtree(folder / "out")
        shutil.rmtree(folder / "dropped")
        killed_and_continued(folder, randomness.random() * 1.2, seconds, command, expected)


@pytest.mark.parametrize(
    ("part", "top", "words"),
    [
        ({"sample": {"rate": -1}}, {}, "streams.0.sample.rate: is -1.0; expected 0 to 1000"),
        ({"sample": {"rate": 1, "seed": -1}}, {}, "streams.0.sample.seed: is -1; expected"),
        ({"budget": {"bytes": 1, "documents": 2}}, {}, "streams.0.budget: gives bytes and documents of"),
        ({"budget": {}}, {}, "streams.0.budget: gives none of"),
        ({"budget": {"tokens": 5}}, {}, "streams.0.budget.attribute: is missing"),
        ({"budget": {"tokens": 5, "attribute": "e__t__token"}}, {}, 'did you mean "e__t__tokens"?'),
        ({"split": {"attribute": "e__t__score"}}, {}, "streams.0.split: gives neither"),
        ({"split": {"attribute": "e__t__score", "ranges": [2, 1]}}, {}, "expected rising numbers"),
        ({"split": {"attribute": "e__t__score", "percentiles": [100]}}, {}, "expected numbers between 0 and 100"),
        ({}, {"shuffle": False, "shuffle_documents": {"seed": 1}}, "shuffle: is false; expected true"),
    ],
)
def test_requests_that_cannot_be_met(
    folder: Path, dolma: Dolma, part: dict[str, Any], top: dict[str, Any], words: str
) -> None:
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump({"streams": [stream(**part)], **top}))
    result = dolma("-c", path, "mix", code=None)
    assert words in result.err
    assert not (folder / "out").exists()

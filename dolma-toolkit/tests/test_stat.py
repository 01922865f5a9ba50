"""``dolma stat``: the distributions of dolma 1.2.1, of any number of files, and quantiles."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dolma_corpus import Dolma, artifact_hashes, read_rows, write_rows
from oracle import theirs


@pytest.fixture
def attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    randomness = random.Random(4)
    for name in ("a", "b"):
        rows = []
        for number in range(1500):
            spans: dict[str, Any] = {
                "many": [[0, randomness.randrange(5000), randomness.gauss(0, 3)]],
                "few": [[0, 1, float(number % 3)]],
                "x____label__y": [[0, 4, 1.00001]],
            }
            if number % 4 == 0:
                spans["empty"] = []
            rows.append({"id": f"{name}{number}", "attributes": spans})
        write_rows(tmp_path / "attributes" / "e" / f"{name}.jsonl.gz", rows)
    return tmp_path


def summaries(folder: Path) -> dict[str, Any]:
    return {row["name"]: row for row in read_rows(folder / "report" / "summaries.jsonl.gz")}


@pytest.mark.parametrize("bins", [7])
@pytest.mark.oracle
def test_one_file_gives_the_reference_summaries(attributes: Path, dolma: Dolma, bins: int) -> None:
    path = f"{attributes}/attributes/e/a.jsonl.gz"
    config = {"attributes": [path], "report": f"{attributes}/theirs/report", "bins": bins}
    assert theirs("stat", config, attributes).returncode == 0
    dolma("stat", "--attributes", path, "--report", "report", "--bins", bins)
    expected, found = summaries(attributes / "theirs"), summaries(attributes)
    assert found.keys() == expected.keys()
    for name, row in found.items():
        assert row["counts"] == expected[name]["counts"], name
        if len(row["counts"]) < bins:
            assert row["bins"] == pytest.approx(expected[name]["bins"], rel=1e-12, abs=1e-12)
        else:
            # 1.2.1 makes the histogram of a histogram: its edges end below the last value
            assert row["bins"][0] == expected[name]["bins"][0]
            assert row["bins"][-1] > expected[name]["bins"][-1]
        assert (row["total"], row["sum"]) == (expected[name]["total"], pytest.approx(expected[name]["sum"], rel=1e-12))


def test_bins_of_equal_width_are_those_of_numpy(attributes: Path, dolma: Dolma) -> None:
    dolma("stat", "--attributes", "attributes/e/a.jsonl.gz", "--report", "report", "--bins", 20)
    rows = read_rows(attributes / "attributes" / "e" / "a.jsonl.gz")
    buckets = [bucket(row["attributes"]["many"][0][2]) for row in rows]
    counts, edges = np.histogram(buckets, bins=20)
    found = summaries(attributes)["many/score"]
    assert found["counts"] == counts.tolist()
    assert found["bins"] == pytest.approx(edges.tolist(), rel=1e-12)


def bucket(value: float) -> float:
    """The lower end of the value's bucket: five digits of the mantissa."""
    mantissa, exponent = math.frexp(value)
    return math.floor(mantissa * 10**5) / 10**5 * 2.0**exponent


def test_threads_change_nothing(attributes: Path, dolma: Dolma) -> None:
    found = []
    for processes in (1, 2, 4):
        out = dolma("stat", "--attributes", "attributes/e/*.gz", "--report", "report", "--processes", processes).out
        found.append((out, artifact_hashes(attributes / "report")))
    assert found[0] == found[1] == found[2]
    assert summaries(attributes)["few/score"]["counts"] == [1000, 1000, 1000]


def test_the_table(attributes: Path, dolma: Dolma) -> None:
    out = dolma("stat", "--attributes", "attributes/e/*.gz", "--regex", "few|empty", "--total").out
    blocks = dict(block.split("\n", 1) for block in out.strip().split("\n\n"))
    assert blocks.keys() == {"few/score", "few/length", "empty/score", "empty/length"}
    assert "values 3,000  sum 3000" in blocks["few/score"]
    assert "least 0  1% 0  5% 0  25% 0  50% 1  75% 2  95% 2  99% 2  most 2" in blocks["few/score"]
    assert "1,000   33.33%" in blocks["few/score"]
    assert "values 750" in blocks["empty/score"]


def test_mistakes(attributes: Path, dolma: Dolma) -> None:
    assert "matches no file" in dolma("stat", "--attributes", "nothing/*.gz", code=2).err
    assert "which is not a regular expression" in dolma("stat", "--attributes", "x", "--regex", "(", code=2).err
    write_rows(attributes / "bad.jsonl.gz", [{"id": "1", "attributes": {}}, {"id": "1", "attributes": [3]}])
    result = dolma("stat", "--attributes", "bad.jsonl.gz", "--report", "report", code=1)
    assert "bad.jsonl.gz:2: " in result.err
    assert not (attributes / "report").exists()

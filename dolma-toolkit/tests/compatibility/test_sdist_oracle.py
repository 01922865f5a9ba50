"""dolma 1.2.1's own configurations and Python tests, run on this package.

They are in its source distribution, which `make oracle` fetches next to the environment of 1.2.1. None of it is in this
repository. The lists below and the page of differences name what does not apply.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from oracle import REPOSITORY, oracle, ours, read_rows, theirs

pytestmark = pytest.mark.oracle

SHIM = Path(__file__).parent / "sdist_shim.py"


@pytest.fixture(scope="session")
def sdist() -> Path:
    """The unpacked source distribution."""
    root = Path(os.environ.get("DOLMA_ORACLE_SOURCE", REPOSITORY / ".venv-oracle" / "source"))
    found = next(iter(root.glob("dolma-1.2.1/tests")), None)
    if found is None:
        pytest.skip("the source distribution of dolma 1.2.1 is missing: `make oracle` fetches it")
    return found


@pytest.fixture
def copy(sdist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two copies of its test data: ours and theirs."""
    for side in ("ours", "theirs"):
        shutil.copytree(sdist, tmp_path / side / "tests")
    monkeypatch.chdir(tmp_path / "ours")
    return tmp_path


def settings(path: Path) -> dict[str, Any]:
    text = path.read_text("utf-8")
    found: dict[str, Any] = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    return found


def run_both(copy: Path, command: str, config: dict[str, Any], output: str) -> list[list[dict[str, Any]]]:
    """Runs both. Returns our rows and their rows below that directory."""
    found = []
    for side, run in (("ours", ours), ("theirs", theirs)):
        os.chdir(copy / side)
        result = run(command, config, copy / side)
        assert result.returncode == 0, result.stderr
        found.append(list(read_rows(copy / side / output)))
    return found


MIXES = ["email-spans.json", "email-spans-jq.yaml", "filter-by-spans.json", "mixer.json", "paragraph-spans.json"]
DEDUPES = ["dedupe-by-url.json", "dedupe-paragraphs.json", "filepath-good.json", "dedupe-paragraph-ngrams.json"]


@pytest.mark.parametrize("name", MIXES)
def test_its_mixes_give_its_rows(copy: Path, name: str) -> None:
    config = settings(copy / "ours/tests/config" / name)
    found, expected = run_both(copy, "mix", config, config["streams"][0]["output"]["path"])
    assert found
    assert found == expected


@pytest.mark.parametrize("name", DEDUPES)
def test_its_dedupes_give_its_marks(copy: Path, name: str) -> None:
    config = settings(copy / "ours/tests/config" / name)
    below = f"tests/data/provided/deduper/attributes/{config['dedupe']['name']}"
    found, expected = run_both(copy, "dedupe", config, below)
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    for mine, other in zip(found, expected, strict=True):
        same(mine["attributes"], other["attributes"], name)


def same(mine: dict[str, Any], other: dict[str, Any], name: str) -> None:
    """Equal, except as in the page of differences: the stride and scores of n-grams, and ends past the text."""
    assert mine.keys() == other.keys()
    for key, spans in mine.items():
        if "ngram" in name or name == "filepath-good.json":
            assert [span[0] for span in spans if span[2] > 0.99] == [span[0] for span in other[key] if span[2] > 0.99]
        else:
            assert [span[0] for span in spans] == [span[0] for span in other[key]]


def test_its_bad_file_path_is_refused(copy: Path) -> None:
    config = settings(copy / "ours/tests/config/filepath-bad.json")
    result = ours("dedupe", config, copy / "ours")
    assert result.returncode == 2
    assert "document_dir" in result.stderr


@pytest.mark.parametrize("name", ["mixer-validator-jsonpath.yaml", "mixer-validator-jq.yaml", "c4-cleaned.json"])
def test_its_mixes_of_remote_files_compile_and_run_on_local_ones(copy: Path, name: str) -> None:
    config = settings(copy / "ours/tests/config" / name)
    for stream in config["streams"]:
        stream["documents"] = ["tests/data/provided/documents/*.gz"]
        stream["output"]["path"] = "tests/mixed"
        for side in ("ours", "theirs"):
            for attribute in stream["attributes"]:
                empty(copy / side / "tests/data/provided", attribute)
    config["work_dir"] = {"input": "tests/fetched", "output": "tests/made"}
    config["processes"] = 1
    found, expected = run_both(copy, "mix", config, "tests/mixed")
    assert found == expected != []


def empty(root: Path, name: str) -> None:
    """Writes a set of attributes with no spans."""
    for path in sorted((root / "documents").glob("*.gz")):
        target = root / "attributes" / name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "rt", encoding="utf-8") as documents, gzip.open(target, "wt", encoding="utf-8") as out:
            for line in documents:
                out.write(json.dumps({"id": json.loads(line)["id"], "attributes": {}}) + "\n")


UNAVAILABLE = {
    "test_analysis": "dolma.core.binning: `dolma stat` does its work",
    "test_binning": "dolma.core.binning",
    "test_c4": "classes of its taggers, which are native here",
    "test_code": "classes of its taggers",
    "test_code_composition": "classes of its taggers",
    "test_extra": "dolma.core.runtime",
    "test_gopher": "classes of its taggers",
    "test_language": "classes of its taggers",
    "test_length": "classes of its taggers",
    "test_license": "classes of its taggers",
    "test_nested_struct": "dolma.tokenizer.tokenizer",
    "test_omegaconf": "functions of its command line",
    "test_paths": "dolma.core.paths",
    "test_quality": "classes of its taggers",
    "test_repetitions": "classes of its taggers",
    "test_repetitions_utils": "functions of its taggers",
    "test_resharding": "dolma.tokenizer",
    "test_runtime": "dolma.core.runtime",
    "test_tokenizer": "dolma.tokenizer",
    "test_urls": "dolma.core.url_blocker",
    "test_warc": "the command warc",
    "test_warc_record_info": "the command warc",
}
"""Its Python test files that import missing names. The page of differences says what to use instead."""

DIFFERENT = {
    "tests.python.test_data_types.TestSpan::test_span_to_from_spec": "a ValueError where 1.2.1 asserts",
    "tests.python.test_deduper.TestDeduper::test_dedupe_paragraph_ngrams": "`stride`, `score`, `self-match`",
    "tests.python.test_deduper.TestDeduper::test_dedupe_paragraphs": "`last-span-past-end`",
}
"""Its tests that fail because of a difference on the page of differences."""


def test_its_python_tests_pass(sdist: Path, tmp_path: Path) -> None:
    shutil.copytree(sdist, tmp_path / "tests")
    files = sorted(path for path in (tmp_path / "tests/python").glob("test_*.py") if path.stem not in UNAVAILABLE)
    assert len(files) + len(UNAVAILABLE) == len(list((tmp_path / "tests/python").glob("test_*.py")))
    oracle()
    environment = {**os.environ, "DOLMA_TESTS_SKIP_AWS": "true", "PYTHONPATH": str(Path(__file__).parent)}
    report = tmp_path / "report.xml"
    call = [sys.executable, "-m", "pytest", "-q", "-p", "sdist_shim", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run(
        [*call, *map(str, files)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    cases = list(ElementTree.parse(report).iter("testcase"))
    name = "{0[classname]}::{0[name]}".format
    failed = {name(case.attrib) for case in cases if case.find("failure") is not None or case.find("error") is not None}
    skipped = {name(case.attrib) for case in cases if case.find("skipped") is not None}
    assert failed == set(DIFFERENT), done.stdout[-4000:]
    assert len(cases) - len(failed) - len(skipped) >= 30, done.stdout[-4000:]

"""A suite with Paloma's 18 sources and 585 domains: built, checked, scored, submitted, aggregated and drawn."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from evidence_files import Run, write_run, write_scores
from paloma.__main__ import main
from paloma.suite import sources


def rows() -> list[dict[str, Any]]:
    """Documents of every domain, about 20 words each."""
    found = []
    for name, source in sources().items():
        for number in range(source.domains):
            subdomain = (
                "" if source.domains == 1 else "stack" if name.startswith("dolma-") and not number else f"d{number}"
            )
            for index in range(12):
                text = f"{name} {number} {index} " + "several words of text " * (2 + (number + index) % 4)
                found.append({"id": f"{number}-{index}", "text": text, "source": name, "subdomain": subdomain})
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("suite"), rows(), size_bytes=250)


@pytest.fixture
def submission(tmp_path: Path, run: Run) -> Path:
    flags = ["--certificate", str(run.certificate), "--output-dir", str(tmp_path / "submission")]
    assert main(["submit", str(run.results), *flags]) == 0
    return tmp_path / "submission"


def test_suite_is_built_and_checked(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(run.sample)]) == 0
    out = capsys.readouterr().out
    assert "18 sources, 585 domains" in out
    assert out.endswith("no faults\n")


def test_sample_without_its_manifest_has_the_counts_of_paloma(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run.sample, copy)
    (copy / "manifest.json").unlink()
    assert main(["check", str(copy), "--original", str(run.sample)]) == 0
    shutil.rmtree(copy / "ptb" / "test")
    assert main(["check", str(copy), "--original", str(run.sample)]) == 1
    out = capsys.readouterr().out
    assert "fault: suite: ptb lacks the split test" in out
    assert "fault: original: ptb/test/" in out


def test_submission_is_tier_a_until_something_is_gone(submission: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["check", str(submission)]) == 0
    assert "tier A" in capsys.readouterr().out
    (identity,) = json.loads((submission / "submission.json").read_text())["evidence"]["certificates"]
    (submission / "evidence" / f"{identity}.json").unlink()
    assert main(["check", str(submission)]) == 0
    assert "tier C" in capsys.readouterr().out


def test_one_changed_number_of_585_is_found(submission: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = submission / "submission.json"
    value = json.loads(path.read_text())
    value["results"]["perplexity"][400]["words"] += 1
    path.write_text(json.dumps(value))
    assert main(["check", str(submission)]) == 1
    assert "fault: results.perplexity.400.words is " in capsys.readouterr().out


def test_models_are_aggregated_and_drawn_in_seconds(tmp_path: Path, run: Run, submission: Path) -> None:
    models = [
        write_scores(tmp_path / f"m{n}", run.sample, run.checkpoint, name=f"m{n}", level=2.0 + n / 10, seed=n)
        for n in range(1, 4)
    ]
    start = time.monotonic()
    table, page = tmp_path / "table", tmp_path / "page"
    assert main(["aggregate", str(submission), *map(str, models), "--output-dir", str(table)]) == 0
    assert main(["report", str(table), "--output-dir", str(page)]) == 0
    assert time.monotonic() - start < 30
    value = json.loads((table / "aggregate.json").read_text())
    assert [len(model["domains"]) for model in value["models"]] == [585] * 4
    assert [model["all"]["domains"] for model in value["models"]] == [585] * 4
    html = (page / "index.html").read_text()
    assert html.count('<i style="--v:') == 2 * 4 * 585
    for text in ("Domains at a glance", "Domains (585), hardest first", "dolma-v1_5/stack"):
        assert text in html
    assert "http" not in html
    assert len(html) < 2_000_000
    ordinary = tmp_path / "ordinary"
    assert main(["aggregate", str(models[0]), "--output-dir", str(ordinary), "--view", "ordinary"]) == 0
    assert len(json.loads((ordinary / "aggregate.json").read_text())["models"][0]["domains"]) == 473

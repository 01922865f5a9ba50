"""The tier for each guideline, and the submission with its declaration."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from paloma.__main__ import main
from paloma.controls import PALOMA_VOCABULARY_SHA256, Controls, judge, read_submission
from paloma.settings import load
from results_files import domain, results, write_results

FULL: dict[str, Any] = {
    "suite": {"name": "paloma", "version": "1", "split": "test", "subsample": "official"},
    "training": {
        "tokens_seen": 10**9,
        "schedule_fraction": 1.0,
        "decontamination": "full",
        "decontamination_filter_sha256": "f" * 64,
        "removal_rate": 0.0006,
        "order_fixed": True,
    },
}


def verdict(tmp_path: Path, declared: dict[str, Any] | None, tokenizer: str = PALOMA_VOCABULARY_SHA256) -> Any:
    folder = write_results(tmp_path / "results", results(domain("a"), tokenizer=tokenizer))
    path = None
    if declared is not None:
        path = tmp_path / "controls.yaml"
        path.write_text(yaml.safe_dump(declared))
    return judge(read_submission(folder, path))


def without(part: str, **changes: Any) -> dict[str, Any]:
    return FULL | {part: FULL[part] | changes}


@pytest.mark.parametrize(
    ("declared", "tokenizer", "tier", "metrics"),
    [
        (FULL, PALOMA_VOCABULARY_SHA256, "A", 2),
        (without("training", order_fixed=False), PALOMA_VOCABULARY_SHA256, "B", 2),
        (without("training", decontamination="partial"), PALOMA_VOCABULARY_SHA256, "C", 2),
        (FULL, "0" * 64, "C", 1),
        (without("suite", vocabulary_sha256="0" * 64), "0" * 64, "A", 2),
        (without("suite", vocabulary_sha256=None), "0" * 64, "C", 1),
        (without("suite", subsample="custom"), PALOMA_VOCABULARY_SHA256, "D", 2),
        (without("suite", documents_sha256="1" * 64), PALOMA_VOCABULARY_SHA256, "D", 2),
        (None, PALOMA_VOCABULARY_SHA256, "D", 2),
    ],
    ids=[
        "all",
        "order",
        "decontamination",
        "vocabulary",
        "own vocabulary",
        "none fixed",
        "sample",
        "other data",
        "none",
    ],
)
def test_tier(tmp_path: Path, declared: dict[str, Any] | None, tokenizer: str, tier: str, metrics: int) -> None:
    found = verdict(tmp_path, declared, tokenizer)
    assert found.tier == tier
    assert len(found.metrics) == metrics
    assert len(found.findings) == 5
    assert bool(found.notes) == (declared is None)


def test_numbers_with_exponents_are_read(tmp_path: Path) -> None:
    path = tmp_path / "controls.yaml"
    path.write_text("training: {removal_rate: 6e-4, tokens_seen: 1_000_000, schedule_fraction: 1}\n")
    training = load(Controls, path).training
    assert (training.removal_rate, training.tokens_seen, training.schedule_fraction) == (0.0006, 10**6, 1.0)


def test_intermediate_checkpoint_is_noted(tmp_path: Path) -> None:
    found = verdict(tmp_path, without("training", schedule_fraction=0.25))
    assert found.notes == ("intermediate checkpoint: compare only at 0.25 of the schedule",)


def test_official_sample_is_checked_against_the_inputs(tmp_path: Path) -> None:
    vectors = Path(__file__).parents[2] / "docs" / "formats" / "vectors" / "results" / "v1" / "valid" / "full" / "data"
    manifest = json.loads((vectors / "manifest.json").read_text())
    identity = manifest["inputs"][0]["manifest_sha256"]
    folder = tmp_path / "results"
    folder.mkdir()
    for path in vectors.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    manifest["inputs"] = [{"role": "documents", "path": "../documents", "manifest_sha256": identity}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    controls = tmp_path / "controls.yaml"
    for declared, holds in ((identity, True), ("1" * 64, False)):
        controls.write_text(yaml.safe_dump(without("suite", documents_sha256=declared)))
        finding = judge(read_submission(folder, controls)).findings[2]
        assert (finding.guideline, finding.holds) == ("subsample", holds)
        assert identity[:12] in finding.reason


def test_submission_keeps_the_declaration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_results(tmp_path / "results", results(domain("a"), tokenizer=PALOMA_VOCABULARY_SHA256))
    controls = tmp_path / "controls.yaml"
    controls.write_text(yaml.safe_dump(FULL))
    submission = tmp_path / "submission"
    assert main(["check", str(folder), "--controls", str(controls), "--output-dir", str(submission)]) == 0
    assert "model: tier A, every guideline holds" in capsys.readouterr().out
    assert "tier" not in (submission / "submission.json").read_text()  # judged again by every reader
    assert main(["aggregate", str(submission), "--output-dir", str(tmp_path / "table")]) == 0
    assert json.loads((tmp_path / "table" / "aggregate.json").read_text())["models"][0]["tier"] == "A"

"""Tiers follow from evidence and fall without it, submissions that were tampered with are found, claims do nothing."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from evidence_files import Run, export, write_run, write_scores
from paloma.__main__ import main
from paloma.controls import PALOMA_VOCABULARY_SHA256, Controls
from paloma.evidence import Evidence
from paloma.settings import load
from paloma.submission import Submission, read_submission
from paloma.suite import sources
from paloma.tiers import judge
from results_files import domain, results, write_results

CLAIMS: dict[str, Any] = {
    "suite": {"name": "mine", "version": "1", "split": "val", "subsample": "official"},
    "training": {"tokens_seen": 5000, "schedule_fraction": 1.0, "decontamination": "full", "order_fixed": True},
}


def mini_suite(domains: int = 6) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{d}-{n}",
            "text": f"domain {d} has text {n} with some words",
            "source": "ab"[d % 2],
            "subdomain": f"d{d}",
        }
        for d in range(domains)
        for n in range(30)
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("run"), mini_suite())


@pytest.fixture
def controls(tmp_path: Path) -> Path:
    path = tmp_path / "controls.yaml"
    path.write_text(yaml.safe_dump(CLAIMS))
    return path


@pytest.fixture
def submission(tmp_path: Path, run: Run, controls: Path) -> Path:
    output = tmp_path / "submission"
    flags = ["--controls", str(controls), "--certificate", str(run.certificate), "--output-dir", str(output)]
    assert main(["submit", str(run.results), *flags]) == 0
    return output


def tier(submission: Submission) -> str:
    return judge(submission).tier


def test_complete_evidence_is_tier_a(submission: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert '"tier"' not in (submission / "submission.json").read_text()  # judged again by every reader
    for path in (submission, submission / "submission.json"):
        assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.count("model: tier A, every guideline holds") == 2
    assert "1 of 20 training documents removed (5.000%)" in out
    table = submission.parent / "table"
    assert main(["aggregate", str(submission), "--output-dir", str(table)]) == 0
    assert json.loads((table / "aggregate.json").read_text())["models"][0]["tier"] == "A"


def test_claims_alone_are_tier_d(tmp_path: Path, controls: Path) -> None:
    folder = write_results(tmp_path / "results", results(domain("a"), tokenizer=PALOMA_VOCABULARY_SHA256))
    verdict = judge(read_submission(folder, controls))
    assert verdict.tier == "D"
    assert not any(finding.holds for finding in verdict.findings)
    assert judge(read_submission(folder)).notes == ("nothing is declared: give --controls",)


def part(submission: Path, kind: str) -> Path:
    """The file of a submission's evidence of some format; `sample` is the manifest of the evaluation documents."""
    for path in sorted((submission / "evidence").glob("*.json")):
        value = json.loads(path.read_text())
        if value.get("format") == kind or (kind == "sample" and "splits" in value.get("config", {})):
            return path
    raise AssertionError(kind)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("decontamination", "C"),
        ("attributes", "C"),
        ("tokens", "C"),
        ("checkpoint", "C"),
        ("sample", "D"),
        ("results", "D"),
    ],
)
def test_tier_falls_without_its_evidence(
    submission: Path, capsys: pytest.CaptureFixture[str], kind: str, expected: str
) -> None:
    part(submission, kind).unlink()
    capsys.readouterr()
    assert main(["check", str(submission)]) == 0
    out = capsys.readouterr().out
    assert f"tier {expected}" in out
    assert "missing evidence: " in out


def test_tier_falls_without_the_sums_of_documents(submission: Path) -> None:
    (rows,) = (submission / "evidence").glob("*.jsonl.gz")
    rows.unlink()
    assert tier(read_submission(submission)) == "D"


def test_tier_falls_without_certificate_or_table(run: Run, controls: Path) -> None:
    assert tier(read_submission(run.results, controls)) == "C"
    complete = read_submission(run.results, controls, [run.certificate])
    assert tier(complete) == "A"
    files = {key: path for key, path in complete.evidence.files.items() if path.name != "domains.csv"}
    evidence = Evidence(root=complete.evidence.root, files=files, certificates=complete.evidence.certificates)
    without = Submission(
        results=complete.results, controls=complete.controls, declared=True, evidence=evidence, raw=complete.raw
    )
    assert tier(without) == "D"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda v: v["results"]["perplexity"][3].update(nll_nats=1.0), "results.perplexity.3.nll_nats is 1.0"),
        (lambda v: v["results"]["model"].update(parameters=7), "results.model.parameters is 7"),
        (lambda v: v["results"]["inference"].update(windowing="paloma-reference"), "results.inference.windowing is"),
        (lambda v: v["results"]["perplexity"].pop(), "results.perplexity is 5 entries; results.json has 6 entries"),
        (lambda v: v["controls"]["suite"].update(version="2"), "{path} has the sha256 "),
        (lambda v: v["controls"]["training"].update(tokens_seen=9), "controls.training.tokens_seen is 9"),
        (lambda v: v["controls"]["training"].update(removal_rate=0.5), "controls.training.removal_rate is 0.5"),
        (
            lambda v: v["controls"]["training"].update(decontamination_filter_sha256="f" * 64),
            "controls.training.decontamination_filter_sha256 is ffffffffffff",
        ),
    ],
    ids=["loss", "parameters", "windows", "domain", "version", "tokens", "rate", "filter"],
)
def test_tampered_field_is_found(
    submission: Path, capsys: pytest.CaptureFixture[str], change: Callable[[dict[str, Any]], object], expected: str
) -> None:
    path = submission / "submission.json"
    value = json.loads(path.read_text())
    change(value)
    for row in value["results"]["perplexity"]:  # with the ratio that follows
        row["bits_per_byte"]["value"] = row["nll_nats"] / (row["bytes"] * 0.6931471805599453)
    path.write_text(json.dumps(value))
    capsys.readouterr()
    assert main(["check", str(submission)]) == 1
    out = capsys.readouterr().out
    assert f"fault: {expected.replace('{path}', str(path))}" in out
    assert "no tier, since the submission contradicts itself" in out
    assert main(["aggregate", str(submission), "--output-dir", str(submission.parent / "table")]) == 1


@pytest.mark.parametrize("kind", ["results", "attributes", "checkpoint", "decontamination"])
def test_tampered_evidence_is_found(submission: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    path = part(submission, kind)
    path.write_text(path.read_text().replace("1", "2", 1))
    assert main(["check", str(submission)]) == 1
    assert f"{path} has the sha256 " in capsys.readouterr().out


def test_sums_are_those_of_the_documents(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_scores(tmp_path / "results", run.sample, run.checkpoint)
    rows = folder / "perplexity.jsonl.gz"
    other = write_scores(tmp_path / "other", run.sample, run.checkpoint, level=2.5)
    rows.write_bytes((other / "perplexity.jsonl.gz").read_bytes())
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][0] = json.loads((other / "manifest.json").read_text())["files"][0]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert main(["check", str(folder)]) == 1
    assert "a/d0: nll_nats is " in capsys.readouterr().out
    assert main(["submit", str(folder), "--output-dir", str(tmp_path / "submission")]) == 1
    assert not (tmp_path / "submission").exists()


@pytest.mark.parametrize(
    ("part", "changes", "expected"),
    [
        ("suite", {"split": "test"}, "D"),
        ("suite", {"documents_sha256": "1" * 64}, "D"),
        ("suite", {"vocabulary_sha256": "0" * 64}, "C"),
        ("suite", {"vocabulary_sha256": None}, "C"),
        ("training", {"order_fixed": False, "decontamination": "none"}, "A"),  # the evidence shows them
    ],
    ids=["split", "documents", "vocabulary", "none fixed", "modest"],
)
def test_what_the_suite_fixes_is_compared(
    run: Run, controls: Path, part: str, changes: dict[str, Any], expected: str
) -> None:
    controls.write_text(yaml.safe_dump(CLAIMS | {part: CLAIMS[part] | changes}))
    assert tier(read_submission(run.results, controls, [run.certificate])) == expected


def test_order_needs_a_seed(tmp_path: Path) -> None:
    run = write_run(tmp_path, mini_suite(2))
    manifest = run.checkpoint / "manifest.json"
    value = json.loads(manifest.read_text())
    del value["config"]["seed"]
    value["details"]["step"] = 5
    manifest.write_text(json.dumps(value))
    write_scores(run.results, run.sample, run.checkpoint)
    verdict = judge(read_submission(run.results, None, [run.certificate]))
    assert verdict.tier == "B"
    assert "intermediate checkpoint: compare only at 0.5 of the schedule" in verdict.notes


def test_later_mix_needs_certificates_for_all_of_it(tmp_path: Path) -> None:
    alone = write_run(tmp_path / "alone", mini_suite(2), mixed_with=[])
    assert tier(read_submission(alone.results, None, [alone.certificate])) == "A"
    others = [alone.sample, *(tmp_path / "alone" / "in").iterdir()]  # with a manifest and without
    for number, other in enumerate(others):
        run = write_run(tmp_path / str(number), mini_suite(2), mixed_with=[other])
        assert tier(read_submission(run.results, None, [run.certificate])) == "C"


def test_exported_checkpoint_is_followed_to_its_run(tmp_path: Path) -> None:
    run = write_run(tmp_path, mini_suite(2))
    write_scores(run.results, run.sample, export(run, tmp_path / "export"))
    submission = read_submission(run.results, None, [run.certificate])
    assert tier(submission) == "A"
    assert submission.tokens_seen == 5000
    (run.checkpoint / "manifest.json").unlink()
    assert tier(read_submission(run.results, None, [run.certificate])) == "C"


def test_filter_has_to_contain_every_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, mini_suite())
    flags = ["--documents", str(tmp_path / "in"), "--output-dir", str(run.sample), "--bytes-per-domain", "300"]
    assert main(["build", *flags, "--overwrite"]) == 0
    flags = [
        "--documents",
        str(run.sample),
        "--result",
        str(tmp_path / "training"),
        "--output-dir",
        str(tmp_path / "c"),
    ]
    assert main(["decontaminate", *flags]) == 1
    assert "the filter does not contain a/test/" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
    write_scores(run.results, run.sample, run.checkpoint)  # the old certificate is for another sample
    assert tier(read_submission(run.results, None, [run.certificate])) == "C"


def test_every_document_has_to_be_scored(tmp_path: Path, run: Run) -> None:
    folder = write_scores(tmp_path / "results", run.sample, run.checkpoint, documents_found=1000)
    verdict = judge(read_submission(folder, None, [run.certificate]))
    assert verdict.tier == "D"
    assert verdict.findings[2].reason.endswith("of 1000 documents were scored")


def test_paloma_without_a_manifest_is_recognized_by_its_counts(tmp_path: Path, run: Run) -> None:
    rows = [
        domain(name, f"d{n}" if source.domains > 1 else "", tokens=(source.tokens or 0) // 2 // source.domains)
        for name, source in sources().items()
        if source.rehosted
        for n in range(source.domains)
    ]
    for found, holds in ((rows, True), (rows[:-1], False), ([*rows, domain("c4_en", "x")], False)):
        folder = tmp_path / f"{len(found)}"
        write_results(folder, results(*found, tokenizer=PALOMA_VOCABULARY_SHA256))
        manifest = json.loads((run.results / "manifest.json").read_text())
        manifest["files"], manifest["inputs"], manifest["details"] = [], [], {}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        assert judge(read_submission(folder)).findings[2].holds == holds


def test_numbers_with_exponents_are_read(tmp_path: Path) -> None:
    path = tmp_path / "controls.yaml"
    path.write_text("training: {removal_rate: 6e-4, tokens_seen: 1_000_000, schedule_fraction: 1}\n")
    training = load(Controls, path).training
    assert (training.removal_rate, training.tokens_seen, training.schedule_fraction) == (0.0006, 10**6, 1.0)


@pytest.mark.parametrize(
    ("change", "accepted"),
    [
        (lambda v: None, True),
        (lambda v: v.update(version=3), False),
        (lambda v: v["evidence"]["files"].update({"f" * 64: "../x.json"}), False),
        (lambda v: v["evidence"].update(certificates=["x"]), False),
        (lambda v: v["results"]["perplexity"][0].update(nll_nats=-1.0), False),
        (lambda v: v["results"]["inference"].update(windowing="sliding"), False),
        (lambda v: v["controls"]["training"].update(removal_rate=2), False),
    ],
)
def test_schema_agrees_with_the_reader(submission: Path, change: Callable[[Any], object], accepted: bool) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(files("paloma").joinpath("submission-v2.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    value = json.loads((submission / "submission.json").read_text())
    change(value)
    assert jsonschema.Draft202012Validator(schema).is_valid(value) == accepted
    (submission / "submission.json").write_text(json.dumps(value))
    (submission / "manifest.json").unlink()  # which has the hash of the former file
    assert (main(["check", str(submission)]) == 0) == accepted


def test_former_submission_is_read(tmp_path: Path) -> None:
    value = {"format": "submission", "version": 1, "controls": CLAIMS, "evidence": {"documents_sha256": []}}
    path = tmp_path / "submission.json"
    path.write_text(json.dumps(value | {"results": results(domain("a"))}))
    assert tier(read_submission(path)) == "D"

"""The suite's sums, its views, and `paloma check` on documents: sound ones, and every kind of fault."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from paloma.__main__ import main
from paloma.suite import in_view, sources
from results_files import write_documents


def test_sums_are_those_of_the_papers() -> None:
    every = sources().values()
    assert len(every) == 18
    assert sum(source.domains for source in every) == 585
    assert sum(source.domains for source in every if source.rehosted) == 546
    assert sum(source.tokens or 0 for source in every) == 123_683_201
    assert sum(source.olmo for source in every) == 11


@pytest.mark.parametrize(
    ("view", "names", "domains"),
    [
        ("all", 18, "585 domains (546 rehostable), 123,683,201 tokens"),
        ("rehostable", 16, "546 domains, 123,683,201 tokens"),
        ("olmo", 11, "433 domains"),
        ("without-fringe", 15, "574 domains (535 rehostable)"),
        ("ordinary", 14, "473 domains (434 rehostable)"),
    ],
)
def test_views(capsys: pytest.CaptureFixture[str], view: str, names: int, domains: str) -> None:
    assert main(["suite", "--view", view]) == 0
    out = capsys.readouterr().out
    assert f"{names} sources, {domains}" in out


def test_ordinary_view_leaves_out_the_domain_of_code() -> None:
    ordinary = in_view("ordinary")
    assert ordinary("dolma-v1_5", "wiki")
    assert not ordinary("dolma-v1_5", "stack_uniform")
    assert not ordinary("dolma_100_programing_languages", "00_text")
    assert not ordinary("gab", "")
    assert in_view("all")("mine", "")
    assert not in_view("olmo")("mine", "")


def row(source: str, subdomain: str, split: str, number: int) -> dict[str, Any]:
    text = f"{source} {subdomain} {split} {number}"
    return {"id": f"{subdomain}-{split}-{number}", "text": text, "source": source, "subdomain": subdomain}


def write_suite(root: Path, source_domains: dict[str, int]) -> Path:
    """A directory in Paloma's layout without a manifest."""
    for source, domains in source_domains.items():
        for split in ("val", "test"):
            rows = [row(source, f"d{n}" if domains > 1 else "", split, i) for n in range(domains) for i in range(2)]
            write_documents(root / source / split / f"{source}.jsonl.gz", rows)
    return root


OFFICIAL = {name: source.domains for name, source in sources().items() if source.rehosted}


def test_directory_with_the_counts_of_paloma_is_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_suite(tmp_path / "paloma", OFFICIAL)
    assert main(["check", str(root)]) == 0
    out = capsys.readouterr().out
    assert "16 sources, 546 domains" in out
    assert "note: pile (22 domains) not found" in out
    assert out.endswith("no faults\n")
    everything = {name: source.domains for name, source in sources().items()}
    assert main(["check", str(write_suite(tmp_path / "both", everything)), "--original", str(root)]) == 1
    assert "pile/d0-test-0 is not in the original" not in (out := capsys.readouterr().out)
    assert "18 sources, 585 domains" in out
    assert "fault: original: ice_fixed/test/d0-test-0 is not in the original" in out


def test_other_sources_are_not_compared_with_paloma(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_suite(tmp_path / "mine", {"gab": 1, "news": 3})
    assert main(["check", str(root)]) == 0
    assert "note: news is not a source of Paloma" in capsys.readouterr().out
    assert main(["check", str(root), "--suite", "paloma"]) == 1
    assert "fault: suite: news is not a source of Paloma" in capsys.readouterr().out
    assert main(["check", str(write_suite(tmp_path / "gab", {"gab": 1})), "--suite", "none"]) == 0


def edit(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    rows = [json.loads(line) for line in gzip.open(path, "rt", encoding="utf-8")]
    change(rows)
    write_documents(path, rows)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda rows: rows.append(rows[0] | {"text": "other"}),
            'fault: id: .*"d0-val-0" appears twice in redpajama/val',
        ),
        (lambda rows: rows[0].update(text="redpajama d0 test 0"), "fault: split: .*is in redpajama/"),
        (lambda rows: rows[0].update(text=""), 'fault: empty: .*"d0-val-0" has no text'),
        (lambda rows: rows[0].update(id=7), 'fault: row: .*"id" is a number; expected a string'),
        (lambda rows: rows.__delitem__(slice(0, 2)), "fault: split: redpajama/d0 is not in val"),
        (lambda rows: [r.update(subdomain="d0") for r in rows], "fault: split: redpajama/d1 is not in val"),
        (
            lambda rows: [r.update(metadata={"truncated_portion": "x"}) for r in rows],
            "fault: cut: redpajama/d0/val has 2 cut documents",
        ),
        (
            lambda rows: rows.append(row("redpajama", "d9", "val", 0)),
            "fault: suite: redpajama has 8 domains; expected 7",
        ),
    ],
)
def test_fault_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[list[dict[str, Any]]], object], expected: str
) -> None:
    root = write_suite(tmp_path / "paloma", {"redpajama": 7, "gab": 1})
    edit(root / "redpajama" / "val" / "redpajama.jsonl.gz", change)
    assert main(["check", str(root)]) == 1
    out = capsys.readouterr().out
    assert re.search(expected, out), out


def build(tmp_path: Path, *flags: str) -> Path:
    rows = [
        {"id": f"{source}-{n}", "text": f"{source} text {n} " * 3, "source": source, "subdomain": f"d{n % domains}"}
        for source, domains in (("a", 1), ("b", 4))
        for n in range(60)
    ]
    documents = write_documents(tmp_path / "in" / "d.jsonl.gz", rows)
    output = tmp_path / "out"
    assert main(["build", "--documents", str(documents), "--output-dir", str(output), *flags]) == 0
    return output


def sizes(output: Path) -> dict[str, int]:
    lines = (output / "domains.csv").read_text().splitlines()[1:]
    found: dict[str, int] = {}
    for line in lines:
        source, _, split, _, _, size, *_ = line.split(",")
        if split == "val":
            found[source] = max(found.get(source, 0), int(size))
    return found


def test_targets_of_sources_and_domains(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    output = build(tmp_path, "--bytes-per-source", "400", "--bytes-per-domain", "50")
    assert sizes(output) == {"a": 400, "b": 100}
    assert main(["check", str(output)]) == 0
    output = build(tmp_path, "--bytes-per-domain", "120", "--domain-targets", "b=60", "--overwrite")
    assert sizes(output) == {"a": 120, "b": 60}
    assert "below their target" not in caplog.text
    output = build(tmp_path, "--bytes-per-domain", "100000", "--overwrite")
    assert "domains below their target, with all of their documents: a/d0/" in caplog.text
    assert len(json.loads((output / "manifest.json").read_text())["details"]["short_domains"]) == 10


def test_changed_sample_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = build(tmp_path, "--bytes-per-domain", "100")
    edit(output / "b" / "val" / "b_00000000.jsonl.gz", lambda rows: rows[0].update(text="changed"))
    assert main(["check", str(output)]) == 1
    out = capsys.readouterr().out
    assert "fault: manifest: " in out
    assert "domains.csv: b/d0/val has " in out


def test_other_artifacts_are_not_taken_for_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "unfinished"
    folder.mkdir()
    manifest = {"format": "results", "version": 1, "writer": {"name": "x", "version": "1"}, "config": {}, "counts": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"details": {}, "files": [], "inputs": []}))
    assert main(["check", str(folder)]) == 1
    assert "results.json" in capsys.readouterr().err


def test_wrong_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_suite(tmp_path / "paloma", {"gab": 1})
    assert main(["check", str(root), "--original", str(tmp_path / "none")]) == 2
    assert main(["check", str(root), "--output-dir", str(tmp_path / "x")]) == 2
    assert "contains documents" in capsys.readouterr().err

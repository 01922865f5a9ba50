"""Clean and contaminated items, from dolma's marks of the tasks' documents."""

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from catwalk.__main__ import main
from catwalk.formats.__main__ import main as formats_main
from catwalk.results import load_all, read_rows_by_task
from catwalk.rows import row_metrics
from catwalk.statistics import paired_difference, unpaired_difference
from conftest import write_jsonl, write_task_data

Build = Callable[[str], Path]


@pytest.fixture(scope="module")
def scored(build_checkpoint: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two models, and the documents of one of their tasks."""
    root = tmp_path_factory.mktemp("contamination")
    data = write_task_data(root / "data")
    models = [f"{kind}={build_checkpoint(kind)}" for kind in ("olmo", "olmo2")]
    arguments = ["run", "--models", *models, "--tasks", "copa", "copa@1", "sciq", "--data", str(data)]
    assert main([*arguments, "--device", "cpu", "--output-dir", str(root / "runs")]) == 0
    assert main(["documents", "--tasks", "copa", "--data", str(data), "--output-dir", str(root / "texts")]) == 0
    return root


def _mark(root: Path, output: Path, *, skip: int = 0) -> set[str]:
    """Attributes with a span for every third document; returns the ids of these items."""
    with gzip.open(root / "texts/documents/copa.jsonl.gz", "rt", encoding="utf-8") as file:
        ids = [json.loads(line)["id"] for line in file]
    rows = [
        {"id": id, "attributes": {"seen": [[0, 5, 1.0]] if n % 3 == 0 else [], "other": []}}
        for n, id in enumerate(ids[skip:])
    ]
    write_jsonl(output / "copa.jsonl.gz", rows)
    return {row["id"].removeprefix("copa-") for row in rows if row["attributes"]["seen"]}


def _cells(text: str, heading: str, first: str) -> list[str]:
    section = text.split(f"## {heading}", 1)[1].split("\n## ", 1)[0]
    line = next(line for line in section.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_numbers_on_clean_and_contaminated_items(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marked = _mark(scored, tmp_path / "attributes/seen")
    assert len(marked) == 4
    arguments = ["report", str(scored / "runs"), "--contamination", str(tmp_path / "attributes/seen")]
    assert main([*arguments, "--output-dir", str(tmp_path / "page")]) == 0
    text = capsys.readouterr().out
    assert formats_main(["validate", "manifest", str(tmp_path / "page")]) == 0
    clean: dict[str, dict[str, float]] = {}
    for model in load_all([scored / "runs"]):
        values = {row["id"]: row_metrics(row)["acc_raw"] for row in read_rows_by_task(model.directory)["copa"]}
        sides = [[value for id, value in values.items() if (id in marked) is side] for side in (False, True)]
        clean[model.label] = {id: value for id, value in values.items() if id not in marked}
        cells = _cells(text, f"Contamination: {model.label}", "copa")
        assert cells[1:4] == ["acc_raw", "8", "4"]
        means = [100 * math.fsum(side) / len(side) for side in (sides[0] + sides[1], *sides)]
        assert [cell.split(" ")[0] for cell in cells[4:7]] == [f"{mean:.1f}" for mean in means]
        gap = unpaired_difference(*sides)
        assert gap.stderr is not None
        ends = [100 * (gap.difference + sign * 1.959963984540054 * gap.stderr) for sign in (-1, 1)]
        assert cells[7] == f"{100 * gap.difference:+.1f} [{ends[0]:+.1f}, {ends[1]:+.1f}]"
        assert _cells(text, f"Contamination: {model.label}", "copa@1")[2:4] == ["8", "4"]  # the same documents
    assert "Without marks: sciq." in text
    first, second = (list(clean[name].values()) for name in ("olmo", "olmo2"))
    paired = paired_difference(first, second, binary=True)
    cells = _cells(text, "Paired differences on clean items: olmo2 − olmo", "copa")
    assert cells[2] == "8"
    assert cells[3].split(" ")[0] == f"{100 * paired.difference:+.1f}"
    assert cells[4] == f"{paired.p:.4f}"


def test_marks_that_do_not_fit_are_refused(scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _mark(scored, tmp_path / "short", skip=1)
    write_jsonl(tmp_path / "others/a.jsonl.gz", [{"id": "a", "attributes": {}}])
    cases = {
        tmp_path / "short": "1 of 12 items of copa have no mark",
        tmp_path / "others": "no document is named after an item of copa",
        scored / "texts/documents": "expected dolma's attributes",
    }
    for path, message in cases.items():
        assert main(["report", str(scored / "runs"), "--contamination", str(path)]) == 2
        assert message in capsys.readouterr().err


def test_marks_of_dolma(scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dolma = pytest.importorskip("dolma.cli.__main__")
    root = tmp_path / "evaluation"
    (root / "documents").mkdir(parents=True)
    source = scored / "texts/documents/copa.jsonl.gz"
    (root / "documents/copa.jsonl.gz").write_bytes(source.read_bytes())
    with gzip.open(source, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    write_jsonl(tmp_path / "training/documents/a.jsonl.gz", [{"id": "t", "text": rows[5]["text"], "source": "web"}])
    for documents, read_only in ((tmp_path / "training", False), (root, True)):
        settings = {
            "documents": [f"{documents}/documents/*.gz"],
            "dedupe": {"name": "seen", "documents": {"key": "$.text", "attribute_name": "seen"}},
            "bloom_filter": {
                "file": str(tmp_path / "filter.bin"),
                "read_only": read_only,
                "estimated_doc_count": 1000,
                "desired_false_positive_rate": 1e-9,
            },
            "processes": 1,
        }
        file = tmp_path / f"{read_only}.json"
        file.write_text(json.dumps(settings), encoding="utf-8")
        assert dolma.main(["-c", str(file), "dedupe"]) in (0, None)
    capsys.readouterr()
    assert main(["report", str(scored / "runs"), "--contamination", str(root / "attributes/seen")]) == 0
    assert _cells(capsys.readouterr().out, "Contamination: olmo", "copa")[2:4] == ["11", "1"]


def test_items_that_dolma_found(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    dolma = pytest.importorskip("dolma.cli.__main__")
    pytest.importorskip("dolma.commands.decontaminate")
    items = scored / "texts/documents/copa.jsonl.gz"
    with gzip.open(items, "rt", encoding="utf-8") as file:
        text = [json.loads(line)["text"] for line in file][5]
    write_jsonl(tmp_path / "training/documents/a.jsonl.gz", [{"id": "t", "text": f"so {text}!", "source": "web"}])
    arguments = ["decontaminate", "--documents", f"{tmp_path}/training/documents/*", "--evaluation", str(items)]
    assert dolma.main([*arguments, "--destination", f"{tmp_path}/found", "--min_length", "4"]) in (0, None)
    capsys.readouterr()
    assert main(["report", str(scored / "runs"), "--contamination", f"{tmp_path}/found"]) == 0
    assert _cells(capsys.readouterr().out, "Contamination: olmo", "copa")[2:4] == ["11", "1"]
    assert "too short" not in caplog.text

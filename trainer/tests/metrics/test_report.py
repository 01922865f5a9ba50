"""The page of a run has its curves and its mishaps, and is the same for the same files."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import settings, write_config
from olmo_trainer.line_chart import line_chart
from test_run import olmo


def test_report_of_a_run(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings(made, tmp_path / "run", train__steps=6, logging__statistics_every_steps=3)
    config["energy"] = {"declared_watts": 50.0, "pue": 1.1, "grid_kg_per_kwh": 0.61}
    assert olmo("train", write_config(tmp_path / "c.yaml", config)) == 0
    capsys.readouterr()
    assert olmo("report", tmp_path / "run") == 0
    page = tmp_path / "run" / "report.html"
    assert capsys.readouterr().out.strip() == str(page)
    text = page.read_text(encoding="utf-8")
    for part in (
        "eval/s/n0/bpb",
        "Learning rate",
        "kg CO₂e",
        "checkpoint  parameters=",
        "tokens: tokens ",
        "learning_rate: 0.01",
    ):
        assert part in text, part
    assert "What went wrong" not in text
    assert ">step</text>" in text
    assert '<td>tokens</td><td class="n">384</td>' in text
    assert "<script" not in text
    assert olmo("report", tmp_path / "run", "--output", tmp_path / "again.html") == 0
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for row in rows[4:]:
        row |= {"optim/skipped_steps": 1, "stability/rewinds": 1, "stability/left_out_first": 8}
        row["stability/left_out_last"] = 11
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert olmo("report", tmp_path / "run") == 0
    assert "step 4: rewound to before it; positions 8 to 11" in page.read_text(encoding="utf-8")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 7, "ti')  # a row that is being written
    before = page.read_bytes()
    assert olmo("report", tmp_path / "run") == 0
    assert page.read_bytes() == before
    assert olmo("report", tmp_path / "nowhere") == 2


def test_a_chart_loses_no_spike() -> None:
    points = [(step, 100.0 if step == 5001 else 2.0) for step in range(10_000)]
    svg = _svg(line_chart("spike & more", [("a", points), ("b", [(0, 1.0)])], "step", marks=[(7, "skipped & more")]))
    lines = svg.findall(".//polyline")
    heights = [float(pair.split(",")[1]) for pair in lines[0].get("points", "").split()]
    assert len(heights) <= 900
    assert min(heights) == pytest.approx(100 * 0.06 / 1.12, abs=0.01)  # of the range, extended by 6 % at each end
    assert svg.find("line[@class='mark']/title").text == "step 7: skipped & more"  # type: ignore[union-attr]
    assert line_chart("empty", [("nothing", []), ("infinite", [(1, float("inf"))])], "step") == ""
    svg = _svg(line_chart("many", [(f"block {n}", [(1, n), (9, n)]) for n in range(24)], "step"))
    assert len({line.get("stroke") for line in svg.findall(".//polyline")}) == 24
    assert "polyline" in line_chart("flat", [("flat", [(1, 0.0)])], "step")


def _svg(figure: str) -> ElementTree.Element:
    return ElementTree.fromstring(figure).find("svg")  # type: ignore[return-value]

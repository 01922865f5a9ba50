"""The page of a run has its curves and its mishaps, and is the same for the same files."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import settings, write_config
from olmo_trainer.metrics.report import chart
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
    assert "<td>tokens</td><td>384</td>" in text
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
    drawn = chart([("a", points), ("b", [(0, 1.0)])], [(7, "skipped & more")])
    svg = ElementTree.fromstring(drawn[: drawn.index("</svg>") + 6])
    lines = svg.findall("polyline")
    heights = [float(pair.split(",")[1]) for pair in lines[0].get("points", "").split()]
    assert len(heights) <= 900
    assert min(heights) == 10.0
    assert svg.find("line[@class='mark']/title").text == "step 7: skipped & more"  # type: ignore[union-attr]
    assert chart([("nothing", [])]) == ""
    many = chart([(f"block {number}", [(1, number), (9, number)]) for number in range(24)])
    svg = ElementTree.fromstring(many[: many.index("</svg>") + 6])
    assert len({line.get("stroke") for line in svg.findall("polyline")}) == 24
    (end,) = (text for text in svg.findall("text") if text.text == "9")
    assert float(end.get("x", "900")) < 880  # the last label is not cut off
    assert "polyline" in chart([("flat", [(1, 0.0)])])

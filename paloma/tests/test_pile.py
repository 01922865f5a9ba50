"""The table of The Pile's components: published numbers, Δ, and components under other spellings."""

import csv
import math
from pathlib import Path

import pytest
from paloma.__main__ import main
from paloma.pile import delta, published
from paloma.suite import sources
from results_files import domain, results, write_results


def write_pile(folder: Path, levels: dict[str, float], source: str = "pile") -> Path:
    rows = [domain(source, name, bytes=40, nll_nats=level * 40 * math.log(2)) for name, level in levels.items()]
    return write_results(folder, results(*rows, name=folder.name))


def test_published_numbers_are_of_all_components() -> None:
    assert len(published()) == sources()["pile"].domains == 22
    assert all(len(row) == 9 for row in published().values())
    # figure 3 of the paper: Books3 is close to zero, academic text and code are far above
    columns = ("gpt3_davinci", "gpt2_pile")
    row = {name: {component: values[name] for component, values in published().items()} for name in columns}
    found = delta(row["gpt3_davinci"], row["gpt2_pile"])
    assert found["OpenWebText2"] == 0
    assert abs(found["Books3"]) < 0.01
    assert min(found[name] for name in ("DM Mathematics", "Github", "PubMed Central")) > 0.3


def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_pile(tmp_path / "mine", {"openwebtext2": 1.0, "ArXiv": 1.5, "USPTO_Backgrounds": 0.9, "other": 1.0})
    output = tmp_path / "out"
    assert main(["pile", str(folder), "--output-dir", str(output)]) == 0
    out = capsys.readouterr().out
    assert "Δ mine" in out
    rows = {row["component"]: row for row in csv.DictReader((output / "pile.csv").read_text().splitlines())}
    assert list(rows) == ["OpenWebText2", "ArXiv", "USPTO Backgrounds"]
    assert float(rows["ArXiv"]["bits_per_byte mine"]) == pytest.approx(1.5)
    assert float(rows["ArXiv"]["delta mine"]) == pytest.approx((1.5 - 1.0) - (0.7945 - 0.9938))
    assert float(rows["ArXiv"]["delta gpt3_davinci"]) == pytest.approx((0.7702 - 0.6242) - (0.7945 - 0.9938))
    reference = write_pile(tmp_path / "reference", {"openwebtext2": 0.8, "ArXiv": 1.0})
    assert main(["pile", str(folder), "--reference", str(reference)]) == 0
    assert "+0.300" in capsys.readouterr().out  # (1.5 − 1.0) − (1.0 − 0.8)


def test_without_openwebtext2_and_without_components(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_pile(tmp_path / "mine", {"ArXiv": 1.5}, source="The Pile")
    assert main(["pile", str(folder), "--source", "The Pile"]) == 0
    assert "No Δ: OpenWebText2 was not scored." in capsys.readouterr().out
    assert main(["pile", str(folder)]) == 2
    assert "hint: name the source of The Pile's documents with --source" in capsys.readouterr().err

"""`paloma aggregate` and `report` on one model and on several, and wrong requests."""

import csv
import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from paloma.__main__ import main
from paloma.formats.__main__ import main as formats
from results_files import domain, results, write_results


def run(tmp_path: Path, *values: dict[str, Any], flags: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    folders = [str(write_results(tmp_path / f"results-{n}", value)) for n, value in enumerate(values)]
    status = main(["aggregate", *folders, "--output-dir", str(tmp_path / "out"), *flags])
    path = tmp_path / "out" / "aggregate.json"
    return status, json.loads(path.read_text()) if path.exists() else {}


def test_numbers_and_tables_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    domains = [domain("a", f"d{n}", nll_nats=10.0 + n, bytes=20 + n, stderr=0.1) for n in range(5)] + [domain("b")]
    status, value = run(tmp_path, results(*domains))
    assert status == 0
    (model,) = value["models"]
    a, b = model["sources"]
    assert (a["source"], a["domains"], b["domains"]) == ("a", 5, 1)
    expected = sum(d["nll_nats"] for d in domains[:5]) / sum(d["bytes"] for d in domains[:5]) / math.log(2)
    assert a["pooled"]["bits_per_byte"]["value"] == pytest.approx(expected)
    assert value["ranking"] is None
    out = capsys.readouterr().out
    assert f"{expected:.3f}" in out
    assert "**all**" in out
    with (tmp_path / "out" / "sources.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == ["a", "b", "*"]
    assert float(rows[0]["pooled_bits_per_byte"]) == a["pooled"]["bits_per_byte"]["value"]
    with (tmp_path / "out" / "domains.csv").open(newline="", encoding="utf-8") as file:
        flat = list(csv.DictReader(file))
    assert math.fsum(float(row["nll_nats"]) for row in flat) == pytest.approx(model["all"]["nll_nats"])
    assert formats(["validate", "manifest", str(tmp_path / "out")]) == 0
    assert formats(["lineage", str(tmp_path / "out")]) == 0


def test_better_model_is_ranked_first_and_the_difference_is_paired_by_domain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 40 bytes each: the second model has 8 and 4 bits less, 0.2 and 0.1 per byte, and 1 bit more in the third domain
    bits = {"worse": (40, 40, 40), "better": (32, 36, 41)}
    values = [
        results(*(domain("a", f"d{n}", nll_nats=b * math.log(2)) for n, b in enumerate(row)), name=name)
        for name, row in bits.items()
    ]
    _, value = run(tmp_path, *values)
    assert value["ranking"]["models"] == ["better", "worse"]
    assert value["comparable"]["perplexity"]["allowed"]
    (difference,) = value["ranking"]["differences"]
    assert difference["mean"] == pytest.approx((0.2 + 0.1 - 0.025) / 3)
    deviations = [gap - difference["mean"] for gap in (0.2, 0.1, -0.025)]
    assert difference["stderr"] == pytest.approx(math.sqrt(sum(d * d for d in deviations) / 2 / 3))
    assert (difference["domains_better"], difference["domains"]) == (2, 3)
    assert "worse is 0.0917 ± 0.065 above better" in capsys.readouterr().out


def test_perplexity_is_not_ranked_across_tokenizers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = results(domain("a"), name="x"), results(domain("a"), name="y", tokenizer="b" * 64)
    status, _ = run(tmp_path / "ppl", *pair, flags=("--rank-by", "ppl"))
    assert status == 2
    assert not (tmp_path / "ppl" / "out").exists()
    captured = capsys.readouterr()
    assert "x and y have different tokenizers" in captured.err
    assert "hint: use --rank-by bpb" in captured.err
    status, value = run(tmp_path / "bpb", *pair)
    assert status == 0
    assert value["ranking"]["by"] == "macro bits_per_byte"
    assert value["ranking"]["differences"][0]["stderr"] is None  # one domain
    out = capsys.readouterr().out
    assert "ppl" not in out.split("±")[0]
    assert "perplexity is not compared" in out


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (results(domain("a", bytes=41), name="y"), "different texts in 1 domains"),
        (results(domain("a"), domain("b"), name="y"), "different texts in 1 domains"),
        (
            results(domain("a"), name="y", windowing="paloma-reference"),
            "windowing strict-disjoint and paloma-reference",
        ),
        (results(domain("a"), name="y", max_length_tokens=128), "max_length_tokens 64 and 128"),
    ],
    ids=["other bytes", "more domains", "other windows", "other length"],
)
def test_differently_scored_models_are_not_ranked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: dict[str, Any], reason: str
) -> None:
    status, value = run(tmp_path, results(domain("a"), name="x"), other)
    assert status == 0
    assert value["ranking"] is None
    assert reason in capsys.readouterr().out


def test_equal_names_get_different_labels_and_output_is_deterministic(tmp_path: Path) -> None:
    value = results(domain("a"))
    _, first = run(tmp_path / "1", value, value)
    _, second = run(tmp_path / "2", value, value)
    assert [model["label"] for model in first["models"]] == ["model (1)", "model (2)"]
    assert first == second
    one, two = ((tmp_path / n / "out" / "manifest.json").read_bytes() for n in "12")
    assert one == two


class Page(HTMLParser):
    """Counts tags, collects text, and lists whatever the page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_report_is_one_self_contained_page(tmp_path: Path) -> None:
    small = results(domain("a", "<b>&"), domain("b", nll_nats=99.0), name="small <1>")
    large = results(domain("a", "<b>&", nll_nats=20.0), domain("b", nll_nats=80.0), name="large")
    large["model"]["parameters"] = 5000
    status, _ = run(tmp_path, small, large)
    assert status == 0
    output = tmp_path / "page"
    assert main(["report", str(tmp_path / "out"), "--output-dir", str(output), "--title", "T & U"]) == 0
    page = Page()
    page.feed((output / "index.html").read_text(encoding="utf-8"))
    assert page.fetched == []
    assert page.tags.count("svg") == 1
    assert page.tags.count("circle") == 2
    assert "a/<b>&" in page.text
    assert "small <1>" in page.text
    assert page.text.index("b", page.text.index("hardest first")) < page.text.index("a/<b>&")
    assert "b" not in [tag for tag in page.tags if tag == "b"]
    assert formats(["validate", "manifest", str(output)]) == 0


def test_report_draws_no_chart_of_incomparable_models(tmp_path: Path) -> None:
    run(tmp_path / "x", results(domain("a"), name="x"))
    run(tmp_path / "y", results(domain("a"), name="y", max_length_tokens=9))
    folders = [str(tmp_path / name / "out") for name in "xy"]
    assert main(["report", *folders, "--output-dir", str(tmp_path / "page")]) == 0
    text = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "<svg" not in text
    assert "bits_per_byte is not to be compared: x and y were scored with max_length_tokens 64 and 9" in text


def test_labels_are_unique(tmp_path: Path) -> None:
    names = ("m", "m", "m (1)", "n")
    _, value = run(tmp_path, *(results(domain("a"), name=name) for name in names))
    labels = [model["label"] for model in value["models"]]
    assert len(set(labels)) == 4
    assert labels[2:] == ["m (1)", "n"]


def test_same_results_under_two_paths_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_results(tmp_path / "r", results(domain("a")))
    again = str(folder / ".." / "r")
    assert main(["aggregate", str(folder), again, "--output-dir", str(tmp_path / "out")]) == 2
    assert "r: is listed 2 times; expected different results" in capsys.readouterr().err


def test_splits_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, value = run(tmp_path, results(domain("a"), name="x", split="val"), results(domain("a"), name="y", split="test"))
    assert value["ranking"] is None
    assert "x and y were scored with split val and test" in capsys.readouterr().out
    controls = tmp_path / "c.yaml"
    controls.write_text("suite: {split: test, subsample: official}\n")
    assert main(["check", str(tmp_path / "results-0"), "--controls", str(controls)]) == 0
    assert "declared the split test, but the results are for val" in capsys.readouterr().out


def test_reasons_not_to_compare_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [
        write_results(tmp_path / f"m{n}", results(domain("a"), name=f"m{n}", max_length_tokens=n + 1)) for n in range(8)
    ]
    assert main(["aggregate", *map(str, folders), "--output-dir", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert out.count("bits_per_byte is not compared") == 11
    assert "bits_per_byte is not compared: 18 more reasons." in out
    assert main(["report", str(tmp_path / "out"), "--output-dir", str(tmp_path / "page")]) == 0
    assert "bits_per_byte is not to be compared: 18 more reasons." in (tmp_path / "page" / "index.html").read_text()

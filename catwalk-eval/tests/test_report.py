"""The report on one model and on two."""

import json
import math
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from catwalk.__main__ import main
from catwalk.formats.__main__ import main as formats_main
from catwalk.formats.contract import read_object
from catwalk.formats.results import read_results
from catwalk.metrics import item_metrics
from catwalk.page import Axis
from catwalk.results import LoadedResults, load_all, read_document_rows, read_item_scores
from catwalk.rows import task_row
from catwalk.statistics import block_bootstrap, mann_kendall, wilson
from catwalk.tables import build_tables, is_lower_better
from conftest import write_documents, write_jsonl, write_task_data
from hypothesis import given
from hypothesis import strategies as st

Build = Callable[[str], Path]


@pytest.fixture(scope="module")
def scored(build_checkpoint: Build, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Results of two models on the same items and documents. Tests change copies of them."""
    root = tmp_path_factory.mktemp("scored")
    data, documents = write_task_data(root / "data"), write_documents(root / "documents")
    outputs = []
    for kind in ("olmo", "olmo2"):
        outputs.append(root / kind)
        arguments = ["run", "--model", str(build_checkpoint(kind)), "--name", f"tiny <{kind}>", "--device", "cpu"]
        arguments += ["--tasks", "copa", "sciq", "winogrande", "--data", str(data)]
        assert main([*arguments, "--documents", str(documents), "--output-dir", str(outputs[-1])]) == 0
    return outputs


@pytest.fixture
def two(scored: list[Path], tmp_path: Path) -> list[Path]:
    """Copies of `scored`."""
    return [Path(shutil.copytree(path, tmp_path / path.name)) for path in scored]


_ABOUT = {"inference": {"dtype": "float32", "max_length_tokens": 1, "windowing": "", "prefix": "eos"}} | {
    "model": dict.fromkeys(("name", "architecture", "dtype"), "m")
    | {"parameters": 1, "vocab_size": 1, "manifest_sha256": None, "tokenizer_sha256": None}
}


def _cells(text: str, heading: str, first: str) -> list[str]:
    section = text.split(f"## {heading}", 1)[1].split("\n## ", 1)[0]
    line = next(line for line in section.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_headline_is_the_primary_metric_with_its_interval(two: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(two[0])]) == 0
    text = capsys.readouterr().out
    hits = [item_metrics(score)["acc_raw"] for score in read_item_scores(two[0])["copa"]]
    share = sum(hits) / len(hits)
    low, high = wilson(share, len(hits))
    expected = f"{100 * share:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    assert _cells(text, "Tasks", "copa") == ["copa", "acc_raw", "12", "50.0", expected]
    assert "Paired" not in text


def test_paired_differences_are_those_of_the_items(two: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *map(str, two)]) == 0
    text = capsys.readouterr().out
    hits = [[item_metrics(score)["acc_raw"] for score in read_item_scores(path)["sciq"]] for path in two]
    difference = 100 * (sum(hits[1]) - sum(hits[0])) / len(hits[0])
    cells = _cells(text, "Paired differences on tasks", "sciq")
    assert cells[2] == "12"
    assert cells[3].split(" ")[0] == f"{difference:+.1f}"
    first, second = (read_results(path)["perplexity"] for path in two)
    code = [next(domain for domain in side if domain["source"] == "code") for side in (first, second)]
    gap = code[1]["bits_per_byte"]["value"] - code[0]["bits_per_byte"]["value"]
    assert _cells(text, "Paired differences on documents", "code")[2].startswith(f"{gap:+.4f}")


@given(st.floats(-1e4, 1e4), st.floats(1e-6, 1e4))
def test_ticks_are_few_and_within_the_limits(least: float, span: float) -> None:
    ticks = Axis([least, least + span]).ticks()
    assert 2 <= len(ticks) <= 7
    assert all(-0.01 <= position <= 100.01 for position, _ in ticks)


@pytest.mark.parametrize(
    ("values", "log", "labels"),
    [
        ([0, 700], False, ["0", "200", "400", "600"]),
        ([0, 0.0043], False, ["0", "0.001", "0.002", "0.003", "0.004"]),
        ([1, 3], False, ["1", "2", "3"]),
        ([-0.00002, 0.00002], False, ["−2e−5", "−1e−5", "0", "1e−5", "2e−5"]),
        ([6500, 11_800], False, ["7k", "8k", "9k", "10k", "11k"]),
        ([190e6, 7e9], True, ["200M", "500M", "1B", "2B", "5B"]),
        ([1e6, 70e9], True, ["1M", "10M", "100M", "1B", "10B"]),
        ([7, 7], False, ["4", "6", "8", "10"]),
    ],
)
def test_ticks_are_round(values: list[float], log: bool, labels: list[str]) -> None:
    assert [label for _, label in Axis(values, log=log).ticks()] == labels


class _Reader(HTMLParser):
    """Counts tables, checks that tags close, and lists tags that fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.tables = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open."""
        self.tables += tag == "table"
        if tag in ("script", "link", "img", "iframe") or any(name in ("src", "href") for name, _ in attrs):
            self.fetched.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Nothing stays open."""

    def handle_endtag(self, tag: str) -> None:
        """Close."""
        assert self.open.pop() == tag


def test_page_is_complete_self_contained_and_escaped(two: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "report"
    assert main(["report", *map(str, two), "--output-dir", str(output)]) == 0
    page = (output / "report.html").read_text(encoding="utf-8")
    reader = _Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.fetched == []
    assert "url(" not in page
    assert "tiny <olmo>" not in page
    assert "tiny &lt;olmo&gt;" in page
    places = [float(value) for value in re.findall(r' cx="([\d.]+)%"', page)]
    tables = build_tables(load_all(two))
    assert len(places) == sum(len(points) for table in tables for _, points in table.plot)
    assert all(0 <= place <= 100 for place in places)
    assert reader.tables == len(tables)


def test_report_is_an_artifact_with_its_lineage(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        assert main(["report", *map(str, two), "--output-dir", str(tmp_path / name)]) == 0
    assert (tmp_path / "one" / "manifest.json").read_bytes() == (tmp_path / "two" / "manifest.json").read_bytes()
    assert formats_main(["validate", "manifest", str(tmp_path / "one")]) == 0
    capsys.readouterr()
    assert formats_main(["lineage", str(tmp_path / "one")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith("  results: results") for line in lines].count(True) == 2
    assert main(["report", str(two[0]), "--output-dir", str(two[1])]) == 2


def test_mean_is_blank_if_a_task_is_missing(
    two: list[Path], build_checkpoint: Build, data_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--model", str(build_checkpoint("llama")), "--tasks", "copa", "--data", str(data_directory)]
    assert main([*arguments, "--device", "cpu", "--output-dir", str(tmp_path / "third"), "--name", "third"]) == 0
    capsys.readouterr()
    assert main(["report", str(two[0]), str(tmp_path / "third")]) == 0
    text = capsys.readouterr().out
    assert _cells(text, "Tasks", "sciq")[-1] == "–"
    assert _cells(text, "Tasks", "mean")[-1] == "–"
    assert re.match(r"\d+\.\d \[", _cells(text, "Tasks", "mean")[-2])
    assert "| – |" in text.split("## Perplexity by source")[1]


def test_trends_over_checkpoints_are_mann_kendalls(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five copies of results as steps of a run, with falling bits per byte; a sixth is of another run."""
    paths = []
    for number, step in enumerate((100, 20, 1000, 50, 500)):
        path = Path(shutil.copytree(two[0], tmp_path / f"copy{number}"))
        results = read_object(path / "results.json")
        results["model"]["name"] = f"run/step-{step}"
        for domain in results["perplexity"]:
            domain["nll_nats"] *= 10 / math.log(step)
            if domain["bytes"]:
                domain["bits_per_byte"]["value"] = domain["nll_nats"] / (domain["bytes"] * math.log(2))
        (path / "results.json").write_text(json.dumps(results), encoding="utf-8")
        (path / "manifest.json").unlink()
        paths.append(str(path))
    assert main(["report", *paths, str(two[1])]) == 0
    text = capsys.readouterr().out
    cells = _cells(text, "Trend over checkpoints: run/step", "prose")
    assert cells[1] == "bits_per_byte"
    assert cells[4] == "-1.00"
    assert cells[5] == f"{mann_kendall([5.0, 4.0, 3.0, 2.0, 1.0])[1]:.4f}"
    assert float(cells[2]) > float(cells[3])
    assert _cells(text, "Trend over checkpoints: run/step", "copa")[4:6] == ["+0.00", "1.0000"]
    assert "Steps 20, 50, 100, 500, 1000." in text
    assert main(["report", *paths[:2]]) == 0
    assert "Trend" not in capsys.readouterr().out


def test_predicted_choices_are_counted_and_a_constant_one_is_named(tmp_path: Path) -> None:
    rows = [
        {
            "task": "t",
            "id": str(n),
            "label": n % 2,
            "predicted": {"acc_raw": 1},
            "choices": [
                {"sum_logprob": value, "tokens": 1, "chars": 2, "bytes": 2, "sum_logprob_unconditional": None}
                for value in (-2.0, -1.0)
            ],
        }
        for n in range(24)
    ]
    write_jsonl(tmp_path / "predictions.jsonl.gz", rows)
    task = task_row("t", "test", "acc_raw", rows)
    results = {"tasks": [task], "perplexity": [], "model": {"name": "m"}}
    (table,) = [
        one
        for one in build_tables([LoadedResults(label="m", directory=tmp_path, results=results | _ABOUT, details={})])
        if one.title.startswith("Predicted")
    ]
    assert table.rows == [["t", "24", "0 24", "12 12", "always 1"]]


def test_source_intervals_are_those_of_the_block_bootstrap(two: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(two[0])]) == 0
    found = [one for one in read_document_rows(two[0]) if one.source == "prose"]
    low, high = block_bootstrap([one.nll_nats / math.log(2) for one in found], [one.bytes for one in found]) or (0, 0)
    cells = _cells(capsys.readouterr().out, "Perplexity by source", "prose")
    assert cells[-1].endswith(f"[{low:.4f}, {high:.4f}]")


def test_note_names_the_tasks_that_are_in_no_mean(two: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    results = read_object(two[0] / "results.json")
    results["tasks"][1]["primary_metric"] = "bits_per_byte_gold"
    results["tasks"][2]["num_shots"] = 5
    (two[0] / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (two[0] / "manifest.json").unlink()
    assert main(["report", *map(str, two)]) == 0
    text = capsys.readouterr().out
    assert "Not in the mean, since their metric is in its own unit and no share: sciq." in text
    assert "different numbers of examples: winogrande (0, 5). Do not compare them." in text


def test_results_with_equal_names_get_different_labels(two: list[Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(two[0], tmp_path / "copy"))
    assert len({model.label for model in load_all([two[0], copy])}) == 2
    assert main(["report", str(two[0]), str(two[0])]) == 2


def test_results_without_a_manifest_are_reported(two: list[Path], tmp_path: Path) -> None:
    (two[0] / "manifest.json").unlink()
    assert main(["report", str(two[0]), "--output-dir", str(tmp_path / "report")]) == 0
    inputs = read_object(tmp_path / "report" / "manifest.json")["inputs"]
    assert [Path(entry["path"]).name for entry in inputs] == [
        "perplexity.jsonl.gz",
        "predictions.jsonl.gz",
        "results.json",
    ]


def test_lm_eval_json_has_the_expected_layout(two: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "lm.json"
    assert main(["report", str(two[0]), "--lm-eval-json", str(file)]) == 0
    value = read_object(file)
    assert {"results", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "config"} <= set(value)
    assert value["n-samples"]["copa"] == {"original": 12, "effective": 12}
    stored = read_results(two[0])["tasks"][0]["metrics"]["acc_raw"]
    assert value["results"]["copa"]["acc,none"] == pytest.approx(stored["value"])
    assert value["results"]["copa"]["acc_stderr,none"] == pytest.approx(stored["stderr"])
    assert main(["report", *map(str, two), "--lm-eval-json", str(file)]) == 2


def test_report_warns_of_different_ways_of_scoring(
    build_checkpoint: Build, documents_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["run", "--model", str(build_checkpoint("olmo")), "--device", "cpu"]
    base += ["--documents", str(documents_directory)]
    for name, prefix in (("a", "eos"), ("b", "bos")):
        assert main([*base, "--name", name, "--prefix", prefix, "--output-dir", str(tmp_path / name)]) == 0
    capsys.readouterr()
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "scored with different prefix (eos, bos): do not compare them" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "a")]) == 0
    assert "do not compare" not in capsys.readouterr().out
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b" / ".." / "a")]) == 2
    assert "listed twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        *(("bits_per_byte", True), ("nats_per_token", True), ("toxic", True), ("over_refused", True)),
        *(("refused", False), ("acc_raw", False), ("win_rate", False)),
    ],
)
def test_which_way_a_metric_is_better(metric: str, lower: bool) -> None:
    assert is_lower_better(metric) == lower

"""The leaderboard: its numbers by hand, and its pages in headless Chromium, where there is one."""

import csv
import math
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from catwalk.__main__ import main
from catwalk.board import build_board
from catwalk.columns import column
from catwalk.leaderboard import board_latex, board_page, item_page_name
from catwalk.results import LoadedResults
from catwalk.rows import choice_row, task_row
from catwalk.statistics import clustered_stderr, mcnemar_p, wilson
from catwalk.types import ItemScore
from conftest import write_task_data

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(_CHROMIUM is None, reason="needs chromium")


def _row(id: str, right: bool, cluster: str = "") -> dict[str, Any]:
    scores = (-1.0, -2.0) if right else (-2.0, -1.0)
    row = choice_row(
        ItemScore(
            id=id,
            label=0,
            sum_logprobs=scores,
            sum_logprobs_unconditional=(-3.0, -3.0),
            tokens=(1, 1),
            chars=(2, 2),
            bytes=(2, 2),
        )
    )
    return row | {"cluster": cluster} if cluster else row


def _model(name: str, hits: dict[str, list[bool]], per_cluster: int = 0) -> LoadedResults:
    """Results in memory: for each task, whether each item is right; every so many items share a passage."""
    rows = {
        task: [
            _row(str(n), right, f"passage {n // per_cluster}" if per_cluster else "") for n, right in enumerate(found)
        ]
        for task, found in hits.items()
    }
    tasks = [task_row(task, "test", "acc_raw", found) for task, found in rows.items()]
    results = {"tasks": tasks, "perplexity": [], "model": {"name": name}}
    loaded = LoadedResults(label=name, directory=Path(name), results=results, details={})
    vars(loaded).update(columns={task: column(found, "acc_raw") for task, found in rows.items()})
    return loaded


def test_items_of_one_passage_count_as_one_in_ties_letters_and_differences() -> None:
    """Twelve passages of ten items; two models differ on every item of four of them."""
    first = [True] * 60 + [False] * 60
    second = [True] * 100 + [False] * 20
    apart = build_board([_model("a", {"t": first}), _model("b", {"t": second})])
    joined = build_board([_model("a", {"t": first}, 10), _model("b", {"t": second}, 10)])
    assert mcnemar_p(0, 40) < 0.001
    assert [cell.tied for (cell,) in apart.cells if cell] == [False, True]
    assert [cell.tied for (cell,) in joined.cells if cell] == [True, True]  # 2 / 2**4: four passages that differ
    assert apart.letters == ["b", "a"]
    differences = [float(b) - float(a) for a, b in zip(first, second, strict=True)]
    stderr = clustered_stderr(differences, [n // 10 for n in range(120)])
    gap = joined.differences[0][1]
    assert gap is not None
    assert stderr is not None
    assert gap[0] == pytest.approx(1 / 3)
    assert gap[1] == pytest.approx(math.erfc(1 / 3 / stderr / math.sqrt(2)))
    assert joined.effects[0] == pytest.approx(2.8015852 * stderr)
    (cell,) = joined.cells[0]
    assert cell is not None
    assert (cell.low, cell.high) == pytest.approx(wilson(0.5, 12), abs=0.01)  # passages, not items
    # the same items in another order, and with one missing
    board = build_board([_model("a", {"t": first}, 10), _model("b", {"t": second[:119]}, 10)])
    assert board.differences[0][1] is not None


def test_models_without_items_are_compared_by_their_standard_errors() -> None:
    models = [_model("a", {"t": [True] * 90 + [False] * 10}), _model("b", {"t": [True] * 40 + [False] * 60})]
    models += [_model("c", {"t": [True] * 88 + [False] * 12})]
    for model in models:
        vars(model).update(columns={})
    board = build_board(models)
    assert [cell.tied for (cell,) in board.cells if cell] == [True, False, True]
    assert board.letters == ["", "", ""]  # means are only compared on the same items


def test_numbers_of_the_board_by_hand() -> None:
    models = [
        _model("strong", {"a": [True] * 45 + [False] * 5, "b": [True] * 30 + [False] * 20}),
        _model("close", {"a": [True] * 43 + [False] * 7, "b": [True] * 29 + [False] * 21}),
        _model("weak", {"a": [True] * 20 + [False] * 30, "b": [True] * 5 + [False] * 45}),
        _model("partial", {"a": [False] * 50}),
    ]
    board = build_board(models)
    cell = board.cells[0][0]
    assert cell is not None
    assert (cell.low, cell.high) == pytest.approx(wilson(0.9, 50))
    assert [one.tied for row in board.cells if (one := row[0])] == [True, True, False, False]
    assert mcnemar_p(25, 0) < 0.05 < mcnemar_p(2, 0)
    assert board.means[3] is None
    assert board.means[0] is not None
    assert board.means[0][0] == pytest.approx(0.75)
    assert board.centred[0] == pytest.approx(0.5)
    assert board.letters == ["a", "a", "b", ""]
    gap = board.differences[0][2]
    assert gap is not None
    assert gap[0] == pytest.approx(0.25 - 0.75)
    assert board.cells[3][1] is None
    assert r"\textbf{90.0}" in board_latex(board)


def test_maximum_of_two_formulations_is_marked_as_biased() -> None:
    board = build_board([_model("m", {"arc@5": [True, False], "arc:letters@5": [True, True]})])
    assert board.best_of_two == {"arc@5": [1.0]}
    page = board_page(board, "x")
    assert "max(CF, MCF) of arc@5, biased" in page
    assert page.count("50.0") >= 1


@pytest.fixture
def runs(build_checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """Three models on three tasks, as `catwalk run --models` writes them."""
    models = [f"{kind}={build_checkpoint(kind)}" for kind in ("olmo2", "llama", "gptneox")]
    data = write_task_data(tmp_path / "tasks")
    tasks = ["--tasks", "copa", "sciq", "winogrande", "--data", str(data)]
    output = tmp_path / "runs"
    assert main(["run", "--models", *models, *tasks, "--output-dir", str(output), "--device", "cpu"]) == 0
    return output


@pytest.fixture
def pages(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The pages of `catwalk report RUNS`."""
    assert main(["report", str(runs), "--output-dir", str(tmp_path / "pages")]) == 0
    assert "| copa |" in capsys.readouterr().out
    return tmp_path / "pages"


def test_report_writes_every_form(pages: Path) -> None:
    rows = list(csv.DictReader((pages / "leaderboard.csv").read_text(encoding="utf-8").splitlines()))
    assert {(row["model"], row["task"]) for row in rows} == {
        (model, task) for model in ("olmo2", "llama", "gptneox") for task in ("copa", "sciq", "winogrande")
    }
    assert (pages / "leaderboard.tex").read_text(encoding="utf-8").count("\\\\\n") == 4
    page = (pages / "leaderboard.html").read_text(encoding="utf-8")
    links = re.findall(r'href="(items/[^"]+)"', page)
    assert len(links) == 9
    assert all((pages / link).is_file() for link in links)
    assert "http" not in page.replace("http-equiv", "")
    assert "src=" not in page


def _dom(page: Path, fragment: str = "") -> str:
    """The document of a page after its scripts."""
    assert _CHROMIUM
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=3000"]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [_CHROMIUM, *flags, profile, "--dump-dom", f"{page.as_uri()}{fragment}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def _order(dom: str) -> list[str]:
    board = dom[dom.index('id="board"') :]
    return re.findall(r'<th scope="row" data-v="([^"]+)"', board[: board.index("</table>")])


@needs_chromium
def test_chromium_sorts_and_drills_down(pages: Path) -> None:
    rows = list(csv.DictReader((pages / "leaderboard.csv").read_text(encoding="utf-8").splitlines()))
    values = {row["model"]: float(row["value"]) for row in rows if row["task"] == "sciq"}
    page = pages / "leaderboard.html"
    found = [values[model] for model in _order(_dom(page, "#sort=sciq|descending"))]
    assert found == sorted(values.values(), reverse=True)
    dom = _dom(page, "#sort=sciq|ascending")
    assert [values[model] for model in _order(dom)] == sorted(values.values())
    assert 'aria-sort="ascending"' in dom
    assert _order(_dom(page, "#sort=model|ascending")) == sorted(values)
    # a click on a heading sorts as its link does
    clicked = page.with_name("clicked.html")
    click = '<script>document.querySelector("[data-name=model] button").click()</script></body>'
    clicked.write_text(page.read_text(encoding="utf-8").replace("</body>", click), encoding="utf-8")
    assert _order(_dom(clicked)) == sorted(values)
    item = _dom(pages / item_page_name("sciq"), "#item=1")
    assert "What floats on the hen?" in item
    assert "item 1, 2 of 12" in item
    answers = item[item.index('id="answers"') :]
    assert len(re.findall(r"<td[^>]*>-\d+\.\d{3}", answers)) == 3 * 4


def test_large_board_is_small_and_opens_quickly(tmp_path: Path) -> None:
    draw = random.Random(1)
    tasks = [f"task_{n:02d}" for n in range(86)]
    models = [
        _model(f"model-{m}", {task: [draw.random() < 0.3 + m / 200 for _ in range(8)] for task in tasks})
        for m in range(64)
    ]
    page = tmp_path / "leaderboard.html"
    page.write_text(board_page(build_board(models), "Leaderboard"), encoding="utf-8")
    assert page.stat().st_size < 2_000_000  # values, not items: the size does not depend on how many items there are
    if _CHROMIUM:
        started = time.monotonic()
        assert len(_order(_dom(page, "#sort=task_85|descending"))) == 64
        assert time.monotonic() - started < 30


def test_bits_per_byte_are_in_no_mean() -> None:
    hits = {"one": [True, False, True], "two": [True, True, False], "three": [False, False, True]}
    models = [_model("a", hits), _model("b", {name: [not hit for hit in one] for name, one in hits.items()})]
    for model in models:
        model.tasks["two"]["primary_metric"] = "bits_per_byte_gold"
    board = build_board(models)
    shares = [place for place, metric in enumerate(board.metrics) if metric != "bits_per_byte_gold"]
    assert len(shares) == 2
    means = []
    for row, mean in zip(board.cells, board.means, strict=True):
        assert mean is not None
        values = [cell.value for place in shares if (cell := row[place]) is not None]
        assert mean[0] == pytest.approx(sum(values) / 2)
        means.append(mean[0])
    gap = board.differences[0][1]
    assert gap is not None
    assert gap[0] == pytest.approx(means[1] - means[0])

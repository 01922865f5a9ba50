"""The leaderboard: its numbers by hand, and its pages in headless Chromium, where there is one."""

import csv
import gc
import math
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, browser
from catwalk import leaderboard, report
from catwalk.__main__ import main
from catwalk.board import build_board
from catwalk.columns import column
from catwalk.leaderboard import board_latex, board_page, item_page_name
from catwalk.results import LoadedResults, read_rows_by_task
from catwalk.rows import choice_row, task_row
from catwalk.statistics import clustered_stderr, mcnemar_p, wilson
from catwalk.types import ItemScore
from conftest import write_task_data
from large_board import write_board

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


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


@pytest.fixture(scope="module")
def runs(build_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models on three tasks, as `catwalk run --models` writes them."""
    root = tmp_path_factory.mktemp("board")
    models = [f"{kind}={build_checkpoint(kind)}" for kind in ("olmo2", "llama", "gptneox")]
    tasks = ["--tasks", "copa", "sciq", "winogrande", "--data", str(write_task_data(root / "tasks"))]
    output = root / "runs"
    assert main(["run", "--models", *models, *tasks, "--output-dir", str(output), "--device", "cpu"]) == 0
    return output


@pytest.fixture(scope="module")
def pages(runs: Path) -> Path:
    """The pages of `catwalk report RUNS`."""
    assert main(["report", str(runs), "--output-dir", str(runs.parent / "pages")]) == 0
    return runs.parent / "pages"


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


def _values(pages: Path, task: str) -> dict[str, float]:
    rows = csv.DictReader((pages / "leaderboard.csv").read_text(encoding="utf-8").splitlines())
    return {row["model"]: float(row["value"]) for row in rows if row["task"] == task}


_MODELS = '[...document.querySelectorAll("#board tbody th")].map(head => head.textContent)'
_SORTED = 'document.querySelector("#board [aria-sort]")'
# the background and the text of what is shown, and whether the page is wider than the window
_LOOK = """(() => { const style = getComputedStyle(document.body); return { back: style.backgroundColor,
  ink: style.color, wide: document.documentElement.scrollWidth > innerWidth,
  small: [...document.querySelectorAll("button, input")].some(one => one.getBoundingClientRect().width < 16) } })()"""


@needs_chromium
def test_chromium_sorts_and_drills_down(pages: Path, tmp_path: Path) -> None:
    values = _values(pages, "sciq")
    with browser(tmp_path) as tab:
        tab.call("Page.navigate", url=(pages / "leaderboard.html").as_uri())
        tab.until(f"{_SORTED}?.dataset.name === 'mean'")  # the best first
        # a click sorts from the best, a second one from the worst
        for direction, sign in (("descending", -1), ("ascending", 1)):
            tab.run("document.querySelector('[data-name=sciq] button').click()")
            tab.until(f"{_SORTED}.dataset.name === 'sciq' && {_SORTED}.ariaSort === '{direction}'")
            found = [values[model] for model in tab.run(_MODELS)]
            assert found == sorted(values.values(), key=lambda value, sign=sign: sign * value)
        # so do Tab and Enter, from the start of the page
        tab.call("Page.navigate", url="about:blank")
        tab.call("Page.navigate", url=(pages / "leaderboard.html").as_uri())
        tab.until(f"{_SORTED}?.dataset.name === 'mean'")
        for _ in range(10):
            tab.key("Tab", 9)
            if tab.run("document.activeElement.closest('th')?.dataset.name === 'model'"):
                break
        assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        tab.key("Enter", 13, "\r")
        tab.until(f"{_SORTED}.dataset.name === 'model'")
        assert tab.run(_MODELS) == sorted(values)
        # a value leads to the items: prompt, choices, log-probabilities
        tab.run("""void setTimeout(() => document.querySelector('#board a[href*="sciq"]').click())""")
        tab.until("document.title === 'sciq' && document.getElementById('place')?.textContent === 'item 0, 1 of 12'")
        tab.key("ArrowRight", 39)
        tab.until("document.getElementById('place').textContent === 'item 1, 2 of 12'")
        assert "What floats on the hen?" in tab.run("document.getElementById('prompt').textContent")
        heads = tab.run("[...document.querySelectorAll('#answers tr:first-child th')].map(one => one.textContent)")
        assert heads == ["model", " hen", " hen and egg", " a stone", " metal"]
        cells = tab.run("[...document.querySelectorAll('#answers td')].map(one => one.textContent)")
        row = read_rows_by_task(pages.parent / "runs" / "llama")["sciq"][1]
        chosen = row["predicted"]["acc_raw"]
        expected = [f"{one['sum_logprob']:.3f}" + " ●" * (k == chosen) for k, one in enumerate(row["choices"])]
        models = tab.run("[...document.querySelectorAll('#answers tr + tr th')].map(one => one.textContent)")
        place = 4 * models.index("llama")
        assert cells[place : place + 4] == expected
        tab.run("""void setTimeout(() => document.querySelector('nav a').click())""")
        tab.until("document.title === 'Leaderboard'")
        assert tab.errors == []


@needs_chromium
def test_pages_fit_a_phone_and_the_dark(pages: Path, tmp_path: Path) -> None:
    with browser(tmp_path) as tab:
        for scheme in ("light", "dark"):
            tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            for width in (1280, 390):
                size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width == 390}
                tab.call("Emulation.setDeviceMetricsOverride", **size)
                for name in ("leaderboard.html", "report.html", item_page_name("sciq")):
                    tab.call("Page.navigate", url=(pages / name).as_uri())
                    tab.until(f"document.readyState === 'complete' && location.href.includes('{Path(name).name}')")
                    look = tab.run(_LOOK)
                    assert not look["wide"], (name, scheme, width)
                    assert not look["small"]
                    assert _contrast(look["back"], look["ink"]) > 7
                    assert (_light(look["back"]) < 0.2) == (scheme == "dark")
        assert tab.errors == []


def _light(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2.2)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return math.fsum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one: str, two: str) -> float:
    dark, light = sorted((_light(one), _light(two)))
    return (light + 0.05) / (dark + 0.05)


def test_a_large_board_is_read_task_by_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes of the pages, and that no more than one task's rows are held. The size of a full one is measured by
    `large_board.py`.
    """
    models, tasks, items = 6, 12, 40
    folder = write_board(tmp_path / "results", models=models, tasks=tasks, items=items)
    held: list[int] = []
    page = leaderboard.item_page

    def counted(names: Any, task: str, metric: str, rows: list[list[Any]], texts: Any) -> str:
        alive = [one for one in gc.get_objects() if type(one) is dict and "choices" in one]
        held.append(len(alive))
        return page(names, task, metric, rows, texts)

    monkeypatch.setattr(report, "item_page", counted)
    assert main(["report", str(folder), "--output-dir", str(tmp_path / "page")]) == 0
    assert len(held) == tasks
    assert models * items <= max(held) <= 2 * models * items  # this task's rows and the next one's, of twelve
    board = (tmp_path / "page" / "leaderboard.html").stat().st_size
    assert board < 5_000_000 / (64 * 86) * models * tasks + 30_000
    pages = list((tmp_path / "page" / "items").iterdir())
    assert len(pages) == tasks
    assert max(one.stat().st_size for one in pages) < 110 * models * items + 30_000


@needs_chromium
def test_a_board_of_64_models_and_86_tasks_opens_quickly(tmp_path: Path) -> None:
    draw = random.Random(1)
    tasks = [f"task_{n:02d}" for n in range(86)]
    models = [
        _model(f"model-{m}", {task: [draw.random() < 0.3 + m / 200 for _ in range(8)] for task in tasks})
        for m in range(64)
    ]
    page = tmp_path / "leaderboard.html"
    page.write_text(board_page(build_board(models), "Leaderboard"), encoding="utf-8")
    assert page.stat().st_size < 2_000_000  # values, not items: the size does not depend on how many items there are
    with browser(tmp_path / "profile") as tab:
        started = time.monotonic()
        tab.call("Page.navigate", url=page.as_uri())
        tab.until(f"{_SORTED}?.dataset.name === 'mean'")
        tab.run("document.querySelector('[data-name=task_85] button').click()")
        tab.until(f"{_SORTED}.dataset.name === 'task_85'")
        assert len(tab.run(_MODELS)) == 64
        assert time.monotonic() - started < 15


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

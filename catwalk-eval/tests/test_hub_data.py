"""Data sets from a Hub: a server on this machine, the cache, `--offline`, and what can be missing or damaged."""

import json
import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catwalk.__main__ import main
from catwalk.data import locate
from catwalk.formats.contract import ConfigError, WorkError
from catwalk.items import load_items
from catwalk.tasks import find_tasks
from catwalk.types import Task
from hub_server import COMMIT, Hub, serve_hub

_TASK = """name: farm
summary: made up
split: test
context: "Q: {{ question }}\\nA:"
choices: options
label: right
texts: "[question]"
primary_metric: acc_raw
hub: {name: lab/farm%s}
"""


def _rows(start: int, end: int) -> list[dict[str, Any]]:
    return [{"question": f"no. {n}?", "options": ["egg", "milk"], "right": n % 2} for n in range(start, end)]


def _parquet(start: int, end: int) -> bytes:
    target = BytesIO()
    pq.write_table(pa.Table.from_pylist(_rows(start, end)), target)
    return target.getvalue()


def _jsonl(start: int, end: int) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in _rows(start, end)).encode()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with the data set `lab/farm`."""
    main_files = {
        "data/test-00000-of-00002.parquet": _parquet(0, 3),
        "data/test-00001-of-00002.parquet": _parquet(3, 5),
        "data/train-00000-of-00001.parquet": _parquet(5, 9),
        "small/test.jsonl": _jsonl(0, 4),
        "odd/exam_1.jsonl": _jsonl(0, 2),
        "README.md": b"a card",
    }
    converted = {"raw/test/0000.parquet": _parquet(0, 6), "raw/test/0001.parquet": _parquet(6, 7)}
    files = {
        ("datasets/lab/farm", "main"): main_files,
        ("datasets/lab/farm", "v1"): {"data/test.parquet": _parquet(0, 1)},
        ("datasets/lab/farm", "refs/convert/parquet"): converted,
    }
    commits = {"v1": "1" * 40, "refs/convert/parquet": "2" * 40}
    with serve_hub(Hub(files=files, commits=commits), tmp_path / "cache", monkeypatch) as server:
        yield server


def _task(folder: Path, more: str = "") -> Task:
    path = folder / "farm.yaml"
    path.write_text(_TASK % more)
    return find_tasks((str(path),))[0]


@pytest.mark.parametrize(
    ("more", "commit", "names", "count"),
    [
        ("", COMMIT, ["data/test-00000-of-00002.parquet", "data/test-00001-of-00002.parquet"], 5),
        (", config: small", COMMIT, ["small/test.jsonl"], 4),
        (", revision: v1", "1" * 40, ["data/test.parquet"], 1),
        (f", revision: {COMMIT}", COMMIT, ["data/test-00000-of-00002.parquet", "data/test-00001-of-00002.parquet"], 5),
        (", config: raw", "2" * 40, ["raw/test/0000.parquet", "raw/test/0001.parquet"], 7),
        (", files: 'odd/exam_*.jsonl'", COMMIT, ["odd/exam_1.jsonl"], 2),
    ],
)
def test_a_split_is_downloaded_once_and_named_with_its_commit(
    hub: Hub, tmp_path: Path, more: str, commit: str, names: list[str], count: int
) -> None:
    task = _task(tmp_path, more)
    data = locate(task, None, hub=True)
    assert list(data.names) == [f"hub:lab/farm@{commit}/{name}" for name in names]
    assert len(load_items(task, data)) == count
    fetched = [path.split("/resolve/")[1].split("/", 1)[1] for path in hub.asked if "/resolve/" in path]
    assert {name.replace("convert%2Fparquet/", "").replace("convert/parquet/", "") for name in fetched} == set(names)
    hub.asked.clear()
    again = locate(task, None, hub=True, offline=True)
    assert (again, hub.asked) == (data, [])
    if COMMIT in more:  # a commit cannot change, so nothing is asked
        assert (locate(task, None, hub=True), hub.asked) == (data, [])


def test_without_hub_nothing_is_asked(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the test split of farm is not here") as caught:
        locate(_task(tmp_path), None)
    assert "--hub" in str(caught.value.hint)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (", config: none", r"configuration none.*no Parquet or JSON Lines files of the test split; the nearest"),
        (", files: 'odd/exams_*.jsonl'", r"no files named odd/exams_\*\.jsonl; .*odd/exam_1\.jsonl"),
        (", revision: v9", "revision v9: not found on the Hub"),
        (", config: ../up", "no Parquet or JSON Lines files"),
    ],
)
def test_what_is_missing_is_named(hub: Hub, tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        locate(_task(tmp_path, more), None, hub=True)


def test_a_missing_split_names_those_that_exist(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "farm.yaml"
    path.write_text((_TASK % ", revision: v1").replace("split: test", "split: dev"))
    with pytest.raises(ConfigError, match=r"files of the dev split; .*data/test\.parquet"):
        locate(find_tasks((str(path),))[0], None, hub=True)
    path.write_text((_TASK % "").replace("lab/farm", "lab/none"))
    with pytest.raises(ConfigError, match="lab/none, revision main: not found on the Hub"):
        locate(find_tasks((str(path),))[0], None, hub=True)
    path.write_text((_TASK % "").replace("lab/farm", "a/b/c"))
    with pytest.raises(ConfigError, match="data: a/b/c"):
        locate(find_tasks((str(path),))[0], None, hub=True)


def test_bytes_that_are_not_those_of_the_hash_are_an_error(hub: Hub, tmp_path: Path) -> None:
    hub.damaged.add("data/test-00000-of-00002.parquet")
    task = _task(tmp_path)
    with pytest.raises(WorkError, match=r"data/test-00000-of-00002\.parquet: the hash of its bytes is"):
        locate(task, None, hub=True)
    hub.damaged.clear()
    assert len(load_items(task, locate(task, None, hub=True))) == 5  # downloaded again


def test_a_file_damaged_in_the_cache_is_an_error(hub: Hub, tmp_path: Path) -> None:
    task = _task(tmp_path)
    file = locate(task, None, hub=True).files[0]
    file.resolve().write_bytes(b"other")
    with pytest.raises(WorkError, match="the hash of its bytes is d9298a10d1b0") as caught:
        locate(task, None, hub=True, offline=True)
    assert caught.value.hint == "the damaged file was deleted; run again to download it"
    assert not file.exists()


def test_part_of_a_split_in_the_cache_is_not_the_split(hub: Hub, tmp_path: Path) -> None:
    for more in ("", ", config: raw"):
        task = _task(tmp_path, more)
        locate(task, None, hub=True).files[0].unlink()
        with pytest.raises(ConfigError, match="the test split is not in the cache"):
            locate(task, None, hub=True, offline=True)


@pytest.mark.parametrize("status", [500, 403])
def test_a_server_that_fails_is_an_error_of_the_work(hub: Hub, tmp_path: Path, status: int) -> None:
    hub.status = status
    with pytest.raises(WorkError, match="data: lab/farm, revision main: ") as caught:
        locate(_task(tmp_path), None, hub=True)
    assert "--data DIR" in str(caught.value.hint)


def test_no_server_is_an_error_of_the_work(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WorkError, match="data: lab/farm, revision main: "):
        locate(_task(tmp_path), None, hub=True)


def test_results_have_the_commit_and_the_hash_of_the_data(
    hub: Hub, tmp_path: Path, build_checkpoint: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _task(tmp_path)
    arguments = ["run", "--model", str(build_checkpoint("olmo")), "--tasks", str(tmp_path / "farm.yaml"), "--hub"]
    assert main([*arguments, "--output-dir", str(tmp_path / "one")]) == 0
    assert main([*arguments, "--offline", "--output-dir", str(tmp_path / "two")]) == 0
    manifests = [json.loads((tmp_path / run / "manifest.json").read_text()) for run in ("one", "two")]
    first, second = ([one for one in read["inputs"] if one["role"] == "task_data"] for read in manifests)
    assert first == second
    assert first[0]["path"] == f"hub:lab/farm@{COMMIT}/data/test-00000-of-00002.parquet"
    shutil.rmtree(tmp_path / "cache")
    assert main([*arguments, "--offline", "--output-dir", str(tmp_path / "three")]) == 2
    assert "is not in the cache" in capsys.readouterr().err


def test_list_and_show_take_data_from_the_hub(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _task(tmp_path)
    task = str(tmp_path / "farm.yaml")
    assert main(["show", task, "--item", "4"]) == 2
    assert main(["show", task, "--item", "4", "--hub"]) == 0
    assert "  |Q: no. 4?\n" in capsys.readouterr().out
    assert main(["list", task, "--hub", "--offline"]) == 0
    assert "| farm | choices | 5 | test | 0 | acc_raw |" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "cache")
    assert main(["list", task, "--hub", "--offline"]) == 0
    assert "| farm | choices | – |" in capsys.readouterr().out

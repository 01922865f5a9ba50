"""Files that the user gives to taggers: where they come from and what they leave in the artifact."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from dolma.errors import Problem
from dolma.files import resources


@pytest.fixture
def address(tmp_path: Path, served: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (served.folder / "hosts.txt").write_text("0.0.0.0 ads.example\n")
    return str(served.address)


def find(places: dict[str, list[str]]) -> tuple[dict[str, list[resources.Resource]], list[Problem]]:
    problems: list[Problem] = []
    found = resources.find(places, ["c4_v1"], ["c4_v1", "c4_v2"], problems)
    return found, problems


def test_places_come_from_items_and_from_a_mapping() -> None:
    problems: list[Problem] = []
    assert resources.named(["a=x", "b=http://h/?q=1", "a=y"], problems) == {"a": ["x", "y"], "b": ["http://h/?q=1"]}
    assert resources.named({"a": ["x", "y"], "b": "z"}, problems) == {"a": ["x", "y"], "b": ["z"]}
    assert problems == []
    resources.named(["a"], problems)
    resources.named({"a": []}, problems)
    assert [problem.key for problem in problems] == ["resources.0", "resources.a"]


def test_a_url_is_fetched_once(address: str, tmp_path: Path, served: Any) -> None:
    url = f"{address}/hosts.txt"
    found, problems = find({"c4_v1": [url]})
    again, _ = find({"c4_v1": [url]})
    assert problems == []
    assert found == again
    assert served.asked == ["/hosts.txt"]
    [resource] = found["c4_v1"]
    assert resource.sha256 == hashlib.sha256(b"0.0.0.0 ads.example\n").hexdigest()
    assert Path(resource.path).is_relative_to(tmp_path / "cache/dolma")
    Path(resource.path).write_text("damaged")
    repaired, _ = find({"c4_v1": [url]})
    assert repaired == found
    assert served.asked == ["/hosts.txt"] * 2


def test_what_is_not_there_is_told(address: str, tmp_path: Path) -> None:
    _, problems = find({"c4_v1": [f"{address}/none.txt", str(tmp_path / "none.txt")], "c4_v9": ["x"]})
    assert [problem.key for problem in problems] == ["resources.c4_v9", "resources.c4_v1", "resources.c4_v1"]
    assert "c4_v" in problems[0].hint
    assert "cannot be read" in problems[1].message
    assert "not found" in problems[2].message

"""Every contract vector of the formats that this package reads."""

import json
from pathlib import Path

import pytest

from dolma.formats import attributes, document, tokens
from dolma.formats.__main__ import main

FORMATS = ("manifest", *document.READERS, *attributes.READERS, *tokens.READERS)
VECTORS = Path(__file__).parents[2] / "docs" / "formats" / "vectors"


def cases(kind: str) -> list[Path]:
    return sorted(case for format in FORMATS for case in (VECTORS / format / "v1" / kind).iterdir())


def arguments(case: Path) -> list[str]:
    path = case / "arguments.json"
    found = json.loads(path.read_text()) if path.exists() else []
    # paths are relative to the case's folder
    return [str(case / argument) if (case / argument).exists() else argument for argument in found]


def name(case: Path) -> str:
    return f"{case.parents[2].name}-{case.name}"


@pytest.mark.parametrize("case", cases("valid"), ids=name)
def test_valid_vector_dumps_as_expected(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    format = case.parents[2].name
    assert main(["dump", format, str(case / "data"), *arguments(case)]) == 0
    captured = capsys.readouterr()
    assert captured.out == (case / "dump.jsonl").read_text("utf-8")
    assert main(["validate", format, str(case / "data"), *arguments(case)]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("case", cases("invalid"), ids=name)
def test_invalid_vector_fails_as_expected(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    format = case.parents[2].name
    expected = json.loads((case / "expect.json").read_text())
    assert main(["validate", format, str(case / "data"), "--json", *arguments(case)]) == 1
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [{key: row[key] for key in expected} for row in found] == [expected]
    assert all(row["message"] for row in found)

"""Every golden vector of the formats that this package reads."""

import json
from pathlib import Path

import pytest
from paloma.formats.__main__ import main

VECTORS = Path(__file__).parents[3] / "docs" / "formats" / "vectors"
READS = ("manifest", "document", "results")


def _cases(kind: str) -> list[Path]:
    return [case for format in READS for case in sorted((VECTORS / format / "v1" / kind).iterdir())]


def _name(case: Path) -> str:
    return f"{case.parts[-4]}-{case.name}"


@pytest.mark.parametrize("case", _cases("valid"), ids=_name)
def test_valid_vector_validates_and_dumps(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    format = case.parts[-4]
    assert main(["validate", format, str(case / "data")]) == 0
    assert main(["dump", format, str(case / "data")]) == 0
    captured = capsys.readouterr()
    assert captured.out == (case / "dump.jsonl").read_text(encoding="utf-8")
    assert captured.err == ""


@pytest.mark.parametrize("case", _cases("invalid"), ids=_name)
def test_invalid_vector_gives_its_one_error(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", case.parts[-4], str(case / "data"), "--json"]) == 1
    errors = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    for error in errors:
        assert error.pop("message")
    assert errors == [json.loads((case / "expect.json").read_text())]


def test_vectors_are_there() -> None:
    assert len(_cases("valid")) >= 12
    assert len(_cases("invalid")) >= 48

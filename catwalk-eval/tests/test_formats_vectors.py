"""Every golden vector of the formats that this package reads or writes."""

import json
from pathlib import Path

import pytest
from catwalk.formats.__main__ import main

VECTORS = Path(__file__).resolve().parents[2] / "docs" / "formats" / "vectors"
FORMATS = ("manifest", "document", "checkpoint", "results")


def _cases(kind: str) -> list[tuple[str, Path]]:
    return [
        (name, case)
        for name in FORMATS
        for version in sorted(VECTORS.glob(f"{name}/v*"))
        for case in sorted((version / kind).iterdir())
    ]


def _id(value: object) -> str:
    return value.name if isinstance(value, Path) else str(value)


@pytest.mark.parametrize(("name", "case"), _cases("valid"), ids=_id)
def test_valid_vector_is_dumped_as_expected(name: str, case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", name, str(case / "data")]) == 0
    assert capsys.readouterr().err == ""
    assert main(["dump", name, str(case / "data")]) == 0
    assert capsys.readouterr().out == (case / "dump.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "case"), _cases("invalid"), ids=_id)
def test_invalid_vector_fails_with_the_expected_error(
    name: str, case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "--json", name, str(case / "data")]) == 1
    found = json.loads(capsys.readouterr().err)
    assert found.pop("message")
    assert found == json.loads((case / "expect.json").read_text(encoding="utf-8"))


def test_every_format_has_vectors() -> None:
    assert {name for name, _ in _cases("valid")} == {name for name, _ in _cases("invalid")} == set(FORMATS)

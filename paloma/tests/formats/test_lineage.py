"""The chain of manifests: whole, with a missing link, with a link that was made anew."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from paloma.formats.__main__ import main
from paloma.formats.manifest import describe_input, write_manifest


def artifact(folder: Path, role: str = "", *inputs: Path) -> Path:
    """An artifact of one file, made from others."""
    folder.mkdir()
    (folder / "rows.jsonl").write_text(json.dumps({"id": "1", "text": folder.name}) + "\n")
    entries = [entry for path in inputs for entry in describe_input(role, path, folder)]
    write_manifest(
        folder,
        format="document",
        files=[folder / "rows.jsonl"],
        config={},
        counts={"documents": 1, "text_bytes": len(folder.name)},
        details={},
        inputs=entries,
        writer={"name": "paloma-eval", "version": "0.0.1"},
    )
    return folder


def test_chain_is_printed_and_a_repeated_artifact_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw.txt"
    raw.write_text("raw")
    first = artifact(tmp_path / "first", "source", raw)
    second = artifact(tmp_path / "second", "documents", first)
    third = artifact(tmp_path / "third", "documents", first, second)
    assert main(["lineage", str(third)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] or line.strip().split(" ")[0] for line in lines] == [
        "document",
        "documents:",
        "source:",
        "documents:",
        "documents:",
    ]
    assert lines[2].startswith("    source: ../raw.txt ")
    assert lines[4].endswith("(above)")


def test_missing_and_changed_links(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = artifact(tmp_path / "first")
    second = artifact(tmp_path / "second", "documents", first)
    path = first / "manifest.json"
    original = path.read_text()
    path.write_text(original.replace('"0.0.1"', '"0.0.2"'))
    assert main(["lineage", str(second)]) == 1
    assert "was made from" in capsys.readouterr().err
    path.unlink()
    assert main(["lineage", str(second)]) == 0
    assert "not here" in capsys.readouterr().out
    assert main(["lineage", str(first)]) == 1


def test_many_sources_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.txt").write_text(str(number))
    made = artifact(tmp_path / "made", "source", folder)
    assert main(["lineage", str(made)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "  source: 5 more (--all lists them)"
    assert main(["lineage", str(made), "--all"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 9


def test_reader_that_has_enough_is_no_traceback(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"id": str(n), "text": "x" * 100}) + "\n" for n in range(5000))
    (tmp_path / "rows.jsonl").write_text(rows)
    command = [sys.executable, "-m", "paloma.formats", "dump", "document", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1

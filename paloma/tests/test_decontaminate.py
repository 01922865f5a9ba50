"""The printed settings run with dolma, and its result becomes a certificate."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from paloma.__main__ import main
from paloma.formats.document import document_files, read_documents
from results_files import write_documents

_DOLMA = shutil.which("dolma", path=str(Path(sys.executable).parent))
_LONG = "This paragraph of the evaluation data has more than thirteen words, so that a match of it counts, number"


def write_inputs(root: Path) -> None:
    rows = [
        {"id": f"{n}", "text": f"{_LONG} {n}\nshort line", "source": source, "subdomain": "d"}
        for source in ("web", "dolma_100_programing_languages")
        for n in range(40)
    ]
    write_documents(root / "in" / "d.jsonl.gz", rows)
    assert main(["build", "--documents", "in", "--output-dir", "sample", "--bytes-per-domain", "1000"]) == 0
    seen = [document.text.split("\n")[0] for document in read_documents(document_files(Path("sample/web")))]
    assert len(seen) > 10
    training = [f"Nothing of it is here.\nshort line\nOnly line {n}." for n in range(50)] + [
        f"before\n{seen[0]}\nafter"
    ]
    training += [f"{_LONG} 1", "- " * 40]
    write_documents(
        root / "training" / "documents" / "t.jsonl.gz",
        [{"id": f"t{n}", "text": text, "source": "web"} for n, text in enumerate(training)],
    )


@pytest.mark.skipif(_DOLMA is None, reason="dolma is not installed in this environment")
def test_settings_run_and_are_certified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    capsys.readouterr()
    flags = ["--documents", "sample", "--training", "training/documents/*.gz", "--output-dir", "settings"]
    assert main(["decontaminate", *flags]) == 0
    commands = capsys.readouterr().out.splitlines()
    assert [line.split()[:1] for line in commands] == [["dolma"]] * 3 + [["paloma"]]
    for line in commands[:-1]:
        subprocess.run([str(_DOLMA), *line.split()[1:]], check=True, capture_output=True, timeout=60)
    assert main(commands[-1].split()[1:]) == 0
    assert "removed 2 of 53 documents" in capsys.readouterr().out
    value = json.loads(Path("certificate/certificate.json").read_text())
    assert (value["documents_in"], value["documents_out"], value["documents_removed"]) == (53, 51, 2)
    kept = {document.id for document in read_documents(document_files(Path("decontaminated")))}
    assert kept == {f"t{n}" for n in range(53)} - {"t50", "t51"}


def test_settings_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    capsys.readouterr()
    assert main(["decontaminate", "--documents", "sample", "--training", "t/documents/*.gz", "--filter", "f.bin"]) == 0
    remember, mark, mix = yaml.safe_load_all(capsys.readouterr().out)
    assert remember["documents"] == ["sample/web/test/*", "sample/web/val/*"]  # code is not compared
    assert remember["dedupe"]["min_words"] == mark["dedupe"]["min_words"] == 13
    assert remember["bloom_filter"] == mark["bloom_filter"] | {"read_only": False}
    assert mix["streams"][0]["output"]["path"] == "decontaminated"


def test_wrong_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    assert main(["decontaminate", "--documents", "nowhere", "--training", "x"]) == 2
    assert main(["decontaminate", "--documents", "sample"]) == 2
    assert "no --training is given" in capsys.readouterr().err
    (tmp_path / "decontaminated").mkdir()
    assert main(["decontaminate", "--documents", "sample", "--output-dir", "c"]) == 1  # no manifest
    assert main(["check", "sample", "--certificate", "c"]) == 2

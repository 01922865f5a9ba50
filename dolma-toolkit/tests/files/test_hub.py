"""Datasets of the Hugging Face Hub as documents, from a server that stands in for it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dolma_corpus import Dolma, make_rows, write_rows

if importlib.util.find_spec("huggingface_hub") is None:
    pytest.skip("huggingface_hub is not installed", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parent))
from hub_server import COMMIT, REPOSITORY, hub


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "dataset/documents/a.jsonl.gz", make_rows(2000))
    write_rows(tmp_path / "dataset/documents/deep/b.jsonl", make_rows(30, 5000))
    (tmp_path / "dataset/README.md").write_text("A dataset.\n")
    with hub(tmp_path / "dataset") as found:
        yield found


def run(address: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    # the library reads the address when it is imported
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-m", "dolma", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("revision", ["", f"@{COMMIT}"])
def test_a_dataset_is_tagged_as_its_files_are(dolma: Dolma, address: str, revision: str) -> None:
    tag = ["tag", "--taggers", "char_length_v1", "--documents"]
    url = f"hf://datasets/{REPOSITORY}{revision}"
    result = run(address, *tag, f"{url}/documents/**", "--destination", "remote", "--work_dir.max_bytes", 1000)
    assert result.returncode == 0, result.stderr
    dolma(*tag, "dataset/documents/**", "--destination", "local")
    for name in ("a.jsonl.gz", "deep/b.jsonl"):
        assert Path("remote", name).read_bytes() == Path("local", name).read_bytes()
    assert f"{url}/documents/a.jsonl.gz" in Path("remote/manifest.json").read_text()
    again = run(address, *tag, f"{url}/documents/**", "--destination", "remote")
    assert "2 were finished before" in again.stderr


def test_what_is_not_there_or_cannot_be_written_exits_2(address: str) -> None:
    tag = ["tag", "--taggers", "char_length_v1", "--documents"]
    url = f"hf://datasets/{REPOSITORY}"
    result = run(address, *tag, f"{url}/nothing/*.gz", "--destination", "out")
    assert (result.returncode, "matches no file" in result.stderr) == (2, True), result.stderr
    result = run(address, *tag, f"{url}/documents/*.gz", "--experiment", "e")
    assert (result.returncode, "is read over hf" in result.stderr) == (2, True), result.stderr

"""`catwalk run` from end to end: bytes, resuming, what is refused, and what verify notices."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from catwalk.__main__ import main
from catwalk.formats.__main__ import main as formats_main
from catwalk.formats.manifest import MANIFEST, manifest_sha256, read_manifest
from catwalk.results.workspace import Workspace

Build = Callable[[str], Path]
_FILES = ("results.json", "predictions.jsonl.gz", "perplexity.jsonl.gz", "manifest.json")


def _arguments(model: Path, data: Path, documents: Path, output: Path, *more: str) -> list[str]:
    return [
        *("run", "--model", str(model), "--tasks", "copa", "sciq", "--data", str(data)),
        *("--documents", str(documents), "--output", str(output), "--device", "cpu", *more),
    ]


@pytest.fixture
def request_for(build_checkpoint: Build, data_directory: Path, documents_directory: Path) -> Callable[..., list[str]]:
    """Arguments of a small run."""

    def arguments(output: Path, *more: str, model: Path | None = None) -> list[str]:
        return _arguments(model or build_checkpoint("olmo"), data_directory, documents_directory, output, *more)

    return arguments


def _bytes(output: Path) -> list[bytes]:
    return [(output / name).read_bytes() for name in _FILES]


def test_two_runs_give_equal_bytes_and_are_valid(request_for: Callable[..., list[str]], tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert main(request_for(tmp_path / name)) == 0
        assert formats_main(["validate", "results", str(tmp_path / name)]) == 0
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(
        [*_FILES, "config.yaml", "metrics.jsonl"]
    )
    assert main(["verify", str(tmp_path / "one"), str(tmp_path / "two")]) == 0


def test_finished_results_are_left_alone(
    request_for: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(request_for(output)) == 0
    before = (output / MANIFEST).stat().st_mtime_ns
    assert main(request_for(output)) == 0
    assert (output / MANIFEST).stat().st_mtime_ns == before
    capsys.readouterr()
    assert main(request_for(output, "--limit", "3")) == 2
    assert "holds another artifact" in capsys.readouterr().err
    assert (output / MANIFEST).stat().st_mtime_ns == before


def test_manifest_names_the_checkpoint_and_every_input(
    with_manifest: Path, request_for: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(request_for(tmp_path / "out", model=with_manifest)) == 0
    manifest = read_manifest(tmp_path / "out", "results")
    checkpoint = [entry for entry in manifest["inputs"] if entry["role"] == "checkpoint"]
    identity = manifest_sha256(with_manifest)
    assert checkpoint == [{"role": "checkpoint", "path": "../checkpoint", "manifest_sha256": identity}]
    assert [entry["path"] for entry in manifest["inputs"] if entry["role"] == "task_data"] == [
        "copa/validation.jsonl.gz",
        "sciq/validation.jsonl.gz",
    ]
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["model"]["manifest_sha256"] == identity
    assert str(tmp_path) not in (tmp_path / "out" / MANIFEST).read_text(encoding="utf-8")
    capsys.readouterr()
    assert formats_main(["lineage", str(tmp_path / "out")]) == 0
    assert f"checkpoint: checkpoint · {read_parameters(with_manifest)} parameters" in capsys.readouterr().out


def read_parameters(directory: Path) -> int:
    """As its manifest counts them."""
    count: int = read_manifest(directory)["counts"]["parameters"]
    return count


def test_stopped_run_goes_on_and_gives_the_same_bytes(
    request_for: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(request_for(tmp_path / "whole")) == 0

    def stop(self: Workspace, *rest: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "keep_documents", stop)
        assert main(request_for(tmp_path / "part")) == 130
    assert not (tmp_path / "part" / MANIFEST).exists()
    assert len(list((tmp_path / "part" / "work").iterdir())) == 2
    scored: list[str] = []
    original = Workspace.keep_task
    monkeypatch.setattr(
        Workspace, "keep_task", lambda self, key, part: (scored.append(key), original(self, key, part))[1]
    )
    assert main(request_for(tmp_path / "part")) == 0
    assert scored == []
    assert _bytes(tmp_path / "part") == _bytes(tmp_path / "whole")


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_killed_process_goes_on(request_for: Callable[..., list[str]], tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-m", "catwalk", *request_for(output)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(output.glob("work/*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(request_for(output)) == 0
    assert main(request_for(tmp_path / "whole")) == 0
    assert _bytes(output) == _bytes(tmp_path / "whole")


def test_kept_parts_of_another_model_are_not_used(
    build_checkpoint: Build, request_for: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "remove", lambda self: None)
        assert main(request_for(output)) == 0
    (output / MANIFEST).unlink()
    other = tmp_path / "other" / "model"
    shutil.copytree(build_checkpoint("olmo2"), other)
    assert main(request_for(output, model=other)) == 0
    assert main(request_for(tmp_path / "fresh", model=other)) == 0
    assert (output / "predictions.jsonl.gz").read_bytes() == (tmp_path / "fresh" / "predictions.jsonl.gz").read_bytes()


def _change(output: Path, edit: Callable[[Any], None]) -> None:
    path = output / "results.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    edit(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_verify_notices_a_changed_metric(
    request_for: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(request_for(output)) == 0
    _change(output, lambda value: value["tasks"][0]["metrics"]["acc_raw"].update(value=0.9999))
    capsys.readouterr()
    assert main(["verify", str(output)]) == 1
    assert "results.json" in capsys.readouterr().err  # the manifest's size or hash
    (output / MANIFEST).unlink()
    assert main(["verify", str(output)]) == 1
    assert "copa.metrics.acc_raw.value is 0.9999; the rows give" in capsys.readouterr().err


def test_verify_notices_changed_rows(
    request_for: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(request_for(output)) == 0
    (output / MANIFEST).unlink()
    rows = [json.loads(line) for line in gzip.open(output / "predictions.jsonl.gz", "rt", encoding="utf-8")]
    rows[0]["predicted"]["acc_raw"] = 1 - rows[0]["predicted"]["acc_raw"]
    with gzip.open(output / "predictions.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    capsys.readouterr()
    assert main(["verify", str(output)]) == 1
    assert "copa item 0.predicted.acc_raw is" in capsys.readouterr().err


def test_yaml_flags_and_overrides_in_this_order(request_for: Callable[..., list[str]], tmp_path: Path) -> None:
    settings = tmp_path / "run.yaml"
    settings.write_text("limit: 2\nseed: 5\nmax_length: 100\n", encoding="utf-8")
    assert main(request_for(tmp_path / "out", "--config", str(settings), "--seed", "6", "max_length=90")) == 0
    config = read_manifest(tmp_path / "out")["config"]
    assert (config["limit"], config["seed"], config["max_length_tokens"]) == (2, 6, 90)
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert [task["items"] for task in results["tasks"]] == [2, 2]


def test_perplexity_alone_and_tasks_alone(
    build_checkpoint: Build, data_directory: Path, documents_directory: Path, tmp_path: Path
) -> None:
    model = ["--model", str(build_checkpoint("olmo2")), "--device", "cpu"]
    alone = tmp_path / "documents-alone"
    assert main(["run", *model, "--documents", str(documents_directory), "--output", str(alone)]) == 0
    tasks = ["--tasks", "winogrande", "--data", str(data_directory)]
    assert main(["run", *model, *tasks, "--output", str(tmp_path / "tasks-alone")]) == 0
    assert main(["verify", str(alone), str(tmp_path / "tasks-alone")]) == 0

"""What is kept of a run's checkpoints, how they are written, and their copies elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest
from conftest import settings, write_config
from fsspec.implementations.memory import MemoryFileSystem
from olmo_trainer.__main__ import main
from olmo_trainer.formats.checkpoint import read_checkpoint


def run(made: Path, directory: Path, **changes: Any) -> Path:
    """A run to its end; its checkpoints' directory."""
    config = write_config(directory.with_suffix(".yaml"), settings(made, directory, **changes))
    assert main(["train", str(config)]) == 0
    return directory / "checkpoints"


def names(checkpoints: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in checkpoints.iterdir())


def content(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def test_pinned_checkpoints_are_never_deleted(made: Path, tmp_path: Path) -> None:
    changes = {"checkpoint__every_steps": 1, "checkpoint__keep_last": 2}
    checkpoints = run(made, tmp_path / "run", checkpoint__pin=[1, 7], checkpoint__pin_every_steps=4, **changes)
    assert names(checkpoints) == [1, 4, 7, 8, 11, 12]


def test_files_written_in_the_background_are_the_same_bytes(made: Path, tmp_path: Path) -> None:
    plain = run(made, tmp_path / "plain", checkpoint__every_steps=1)
    behind = run(made, tmp_path / "behind", checkpoint__every_steps=1, checkpoint__background=True)
    assert names(plain) == names(behind) == list(range(1, 13))
    for step in names(plain):
        written = content(behind / f"step-{step}")
        assert "training/optimizer.safetensors" in written
        del written["manifest.json"]
        assert written.items() <= content(plain / f"step-{step}").items()


def test_shards_continue_a_run_to_the_same_bytes(made: Path, tmp_path: Path) -> None:
    whole = run(made, tmp_path / "whole")
    run(made, tmp_path / "run", train__stop_at="6 steps", checkpoint__sharded=True)
    saved = content(tmp_path / "run" / "checkpoints" / "step-6")
    shards = [name for name in saved if name.startswith("training/optimizer/")]
    assert shards
    assert all(name.endswith(".safetensors") for name in shards)
    checkpoints = run(made, tmp_path / "run")
    for name in ("model.safetensors", "training/optimizer.safetensors", "training/guard.safetensors"):
        assert content(checkpoints / "step-12")[name] == content(whole / "step-12")[name]


def test_a_remote_copy_with_a_manifest_is_complete(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The store fails once within a checkpoint; the next save copies what was left."""
    put, calls, order = MemoryFileSystem.put_file, [0], []

    def failing(self: Any, source: str, target: str, *rest: Any, **more: Any) -> None:
        calls[0] += 1
        if calls[0] == 6:
            raise OSError("the store is away")
        order.append(target)
        put(self, source, target, *rest, **more)

    monkeypatch.setattr(MemoryFileSystem, "put_file", failing)
    url = f"memory://{tmp_path.name}/bucket"
    checkpoints = run(made, tmp_path / "run", checkpoint__remote=url, checkpoint__keep_last=3)
    assert "the store is away" in caplog.text
    files = fsspec.filesystem("memory")
    files.get(f"/{tmp_path.name}/bucket", str(tmp_path / "back"), recursive=True)
    assert names(tmp_path / "back" / "checkpoints") == [3, 6, 9, 12]
    for step in (6, 9, 12):
        directory = tmp_path / "back" / "checkpoints" / f"step-{step}"
        read_checkpoint(directory)  # every file has the manifest's sha256
        assert content(directory) == content(checkpoints / f"step-{step}")
        copied = [target for target in order if f"/step-{step}/" in target]
        assert copied[-1].endswith("manifest.json.writing")
    assert (tmp_path / "back" / "metrics.jsonl").read_bytes() == (tmp_path / "run" / "metrics.jsonl").read_bytes()

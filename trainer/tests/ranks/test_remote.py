"""A run on a machine that has nothing goes on from the copies elsewhere, to the bytes of the unbroken run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import fsspec
import pytest
from conftest import settings, write_config
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from olmo_trainer.formats.checkpoint import read_checkpoint
from test_run import manifest, olmo, rows_of


@pytest.fixture(scope="module")
def whole(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted and that has no copies."""
    root = tmp_path_factory.mktemp("whole")
    assert olmo("train", write_config(root / "c.yaml", settings(made, root / "run", validation={}))) == 0
    return root / "run"


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}://{tmp_path}/store/run"


def store(url: str) -> tuple[Any, str]:
    files, root = fsspec.core.url_to_fs(url)
    return files, root.rstrip("/")


def begun(made: Path, tmp_path: Path, url: str, **changes: Any) -> tuple[Path, Path]:
    """A config, and its run directory after 7 steps and the loss of the machine; copies of steps 3, 6, 7 are left."""
    run = tmp_path / "run"
    config = write_config(tmp_path / "c.yaml", settings(made, run, validation={}, checkpoint__remote=url, **changes))
    assert olmo("train", config, "train.stop_at=7 steps") == 0
    shutil.rmtree(run)
    return config, run


def assert_ends_as(run: Path, whole: Path) -> None:
    assert rows_of(run) == rows_of(whole)
    assert json.loads((run / "order.json").read_text())["ranks"] == [[1, 1]]
    for step in (9, 12):
        assert manifest(run / "checkpoints" / f"step-{step}") == manifest(whole / "checkpoints" / f"step-{step}")


def test_a_bare_machine_resumes_from_the_newest_copy(made: Path, tmp_path: Path, url: str, whole: Path) -> None:
    config, run = begun(made, tmp_path, url)
    assert olmo("train", config) == 0
    assert_ends_as(run, whole)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-12", "step-7", "step-9"]
    files, root = store(url)
    for step in (3, 6, 7, 9, 12):
        assert files.exists(f"{root}/checkpoints/step-{step}/manifest.json")
    assert files.cat_file(f"{root}/metrics.jsonl") == (run / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("damage", ["bit", "file", "manifest", "unfinished"])
def test_a_copy_that_is_not_whole_is_passed_over_and_made_whole(
    made: Path, tmp_path: Path, whole: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{'memory' if damage == 'bit' else 'file'}://{tmp_path}/store/run"
    config, run = begun(made, tmp_path, url)
    files, root = store(url)
    newest = f"{root}/checkpoints/step-7"
    if damage == "bit":
        content = bytearray(files.cat_file(f"{newest}/training/optimizer.safetensors"))
        content[-5] ^= 1
        files.pipe_file(f"{newest}/training/optimizer.safetensors", bytes(content))
    elif damage == "file":
        files.rm_file(f"{newest}/training/state.json")
    elif damage == "manifest":
        files.pipe_file(f"{newest}/manifest.json", b"{")
    else:
        files.rm_file(f"{newest}/manifest.json")
    caplog.clear()
    assert olmo("train", config) == 0
    assert (f"{newest}: incomplete" in caplog.text) == (damage != "unfinished")
    assert "step 7" not in caplog.text
    assert_ends_as(run, whole)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step-6", "step-9", "step-12"}
    assert not files.exists(f"{newest}/manifest.json")  # of a stop that this run did not make
    for step in (3, 6, 9, 12):
        files.get(f"{root}/checkpoints/step-{step}", str(tmp_path / "back" / f"step-{step}"), recursive=True)
        read_checkpoint(tmp_path / "back" / f"step-{step}")


def test_without_a_complete_copy_the_run_does_not_start_anew(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"file://{tmp_path}/store/run"
    config, run = begun(made, tmp_path, url)
    files, root = store(url)
    for step in (3, 6, 7):
        files.pipe_file(f"{root}/checkpoints/step-{step}/model.safetensors", b"nothing")
    assert olmo("train", config) == 1
    assert "has 7 bytes" in capsys.readouterr().err
    assert not (run / "checkpoints" / "step-3").exists()


def test_copies_of_another_run_are_not_continued_nor_mixed_with_it(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"file://{tmp_path}/store/run"
    _, run = begun(made, tmp_path, url)
    other = write_config(
        tmp_path / "o.yaml", settings(made, run, validation={}, checkpoint__remote=url, optimizer__learning_rate=0.02)
    )
    assert olmo("train", other) == 2
    assert '"optimizer.learning_rate" is 0.02; expected 0.01' in capsys.readouterr().err


@pytest.mark.parametrize("moment", [3, 6, 13, 19])
def test_a_machine_lost_while_it_copies_loses_no_row(
    made: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Copying ends for good, and within a file, at each of some files."""
    url, run, calls = f"file://{tmp_path}/store", tmp_path / "run", [0]
    put = LocalFileSystem.put_file

    def dying(self: Any, source: str, target: str, *rest: Any, **more: Any) -> None:
        calls[0] += 1
        if calls[0] == moment:
            Path(target).write_bytes(Path(source).read_bytes()[:-20])
        if calls[0] >= moment:
            raise OSError("the machine is lost")
        put(self, source, target, *rest, **more)

    config = write_config(tmp_path / "c.yaml", settings(made, run, validation={}, checkpoint__remote=url))
    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "put_file", dying)
        assert olmo("train", config, "train.stop_at=7 steps") == 1
    shutil.rmtree(run)
    assert olmo("train", config) == 0
    assert_ends_as(run, whole)


def test_a_checkpoint_is_fetched_to_begin_from(made: Path, tmp_path: Path, url: str, whole: Path) -> None:
    begun(made, tmp_path, url)
    assert olmo("fetch", url, tmp_path / "last") == 0
    assert olmo("fetch", f"{url}/checkpoints/step-6", tmp_path / "six") == 0
    assert manifest(tmp_path / "six") == manifest(whole / "checkpoints" / "step-6")
    assert json.loads((tmp_path / "last" / "training" / "state.json").read_text())["step"] == 7
    files, root = store(url)
    files.pipe_file(f"{root}/checkpoints/step-6/config.json", b"{}")
    assert olmo("fetch", f"{url}/checkpoints/step-6", tmp_path / "damaged") == 1
    assert not (tmp_path / "damaged").exists()


def test_an_unknown_store_is_reported_before_anything_is_done(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "c.yaml", settings(made, tmp_path / "run", checkpoint__remote="nowhere://b/run"))
    assert olmo("train", config) == 2
    assert '"checkpoint.remote": nowhere://b/run cannot be reached' in capsys.readouterr().err
    assert olmo("fetch", f"memory://{tmp_path}/none", tmp_path / "x") == 2
    assert "has no manifest.json and no checkpoints" in capsys.readouterr().err
    MemoryFileSystem.store.clear()

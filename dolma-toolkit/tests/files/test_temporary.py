"""Temporary directories of runs that were killed go away with the next run."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dolma.staging import temporary_directory

RUN = """
import sys, time
from dolma.staging import temporary_directory
with temporary_directory() as folder:
    (folder / "copy").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    time.sleep(600)
"""


def start(root: Path) -> tuple[subprocess.Popen[str], Path]:
    environment = {**os.environ, "TMPDIR": str(root)}
    process = subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    with process.stdout as output:
        return process, Path(output.readline().strip())


def test_only_the_directories_of_dead_runs_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, left = start(tmp_path)
    alive, kept = start(tmp_path)
    try:
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        (tmp_path / "dolma-run-without-lock").mkdir()
        assert left.is_dir()
        with temporary_directory() as own:
            assert not left.exists()
            assert (kept / "copy").is_file()
            assert own.is_dir()
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([kept.name, "dolma-run-without-lock"])
    finally:
        alive.kill()
        alive.wait()

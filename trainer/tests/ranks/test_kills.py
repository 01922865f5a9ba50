"""Ten kills, half of them while a checkpoint is being written, leave no trace in what a run ends with."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import settings, write_config
from olmo_trainer.__main__ import main
from olmo_trainer.checkpoint.save import step_directories

CLOCKS = ("time_s", "throughput/device/", "System/", "energy/")


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def kill_at(child: Any, run: Path, steps: int, after_s: float, *, while_saving: bool) -> tuple[bool, bool]:
    """Kill a process so long after it has done a step, or when it then saves; whether it was, and whether in a save."""
    metrics, checkpoints = run / "metrics.jsonl", run / "checkpoints"
    while child.is_alive() and not (metrics.is_file() and metrics.read_bytes().count(b"\n") > steps):
        time.sleep(0.001)
    child.join(timeout=after_s)
    while while_saving and child.is_alive() and not list(checkpoints.glob(".step-*.writing")):
        pass
    if not child.is_alive():
        return False, False
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    return True, bool(list(checkpoints.glob(".step-*.writing")))


@pytest.mark.slow
@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_ten_kills_leave_no_trace(background: bool, made: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    changes: dict[str, Any] = {
        "train__steps": 120,
        "checkpoint": {"every_steps": 2, "keep_last": 2, "pin": [4], "background": background},
        "validation__every_steps": 50,
        "energy__declared_watts": 100.0,
        "stability__skip_outliers": True,
    }
    configs = [write_config(run.with_suffix(".yaml"), settings(made, run, **changes)) for run in (whole, killed)]
    assert main(["train", str(configs[0])]) == 0
    context, draw, kills, within = multiprocessing.get_context("fork"), random.Random(), 0, 0
    while True:
        child = context.Process(target=lambda: os._exit(main(["train", str(configs[1])])))
        child.start()
        if kills < 10:
            done = max((step for step, _ in step_directories(killed / "checkpoints")), default=0)
            steps, after_s, while_saving = done + draw.randint(0, 7), draw.uniform(0, 0.03), kills % 2 == 0
            was_killed, was_saving = kill_at(child, killed, steps, after_s, while_saving=while_saving)
            kills += was_killed
            within += was_saving
            if was_killed:
                continue
        child.join()
        assert child.exitcode == 0
        break
    assert kills == 10, f"the run was done after {kills} kills"
    assert within >= 3
    ours, theirs = rows_of(killed), rows_of(whole)
    assert [row["step"] for row in ours] == list(range(121))
    for row, expected in zip(ours, theirs, strict=True):
        assert row.keys() == expected.keys()
        assert {k: v for k, v in row.items() if not k.startswith(CLOCKS)} == {
            k: v for k, v in expected.items() if not k.startswith(CLOCKS)
        }
    for name in ("time_s", "energy/declared_joules"):
        values = [row[name] for row in ours[1:]]
        assert values == sorted(values), f"{name} went back"
    assert ours[-1]["energy/declared_joules"] >= 10 * theirs[-1]["time_s"]
    names = sorted(path.name for path in (killed / "checkpoints").iterdir())
    assert (
        names == sorted(path.name for path in (whole / "checkpoints").iterdir()) == ["step-118", "step-120", "step-4"]
    )
    for name in names:
        for file in ("model", "training/optimizer", "training/guard", "training/random"):
            paths = [run / "checkpoints" / name / f"{file}.safetensors" for run in (killed, whole)]
            assert paths[0].read_bytes() == paths[1].read_bytes()
        manifests = [run / "checkpoints" / name / "manifest.json" for run in (killed, whole)]
        assert manifests[0].read_bytes() == manifests[1].read_bytes()

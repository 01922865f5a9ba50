"""Runs whose batches and sequences grow: resumed and inspected as exactly as any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from conftest import settings, write_config
from olmo_trainer.__main__ import main
from test_run import olmo, rows_of

CHANGES = {
    "train__batch_windows": 4,
    "train__micro_batch_windows": 2,
    "train__batch_lr_scaling": True,
    "train__batch_warmup": [{"batch_windows": 1, "until_tokens": 40}, {"batch_windows": 2, "until_tokens": 100}],
    "train__length_warmup": [{"sequence_length": 8, "until_tokens": 60}],
    "schedule": {"kind": "linear", "units": "tokens", "warmup": 48, "final_ratio": 0.0},
    "validation": {},
    "checkpoint": {},
}
BATCHES = [1, 1, 1, 2, 2, 4, 4, 4]  # windows of 16 tokens; 304 in all


def test_growing_batches_resume_and_inspect_exactly(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for run in (whole, stopped):
        config = settings(made, run, **CHANGES, train__duration="290T")
        del config["train"]["steps"]
        write_config(tmp_path / f"{run.name}.yaml", config)
    assert olmo("train", tmp_path / "whole.yaml") == 0
    assert yaml.safe_load((whole / "config.yaml").read_text())["train"]["steps"] == 8
    for stop in ("2 steps", "60T", None):
        assert olmo("train", tmp_path / "stopped.yaml", *([f"train.stop_at={stop}"] if stop else [])) == 0
    assert sorted(path.name for path in (stopped / "checkpoints").iterdir()) == ["step-2", "step-4", "step-8"]
    assert rows_of(stopped) == rows_of(whole)
    manifests = [(run / "checkpoints" / "step-8" / "manifest.json").read_bytes() for run in (whole, stopped)]
    assert manifests[0] == manifests[1]
    rows = rows_of(whole)[1:]
    tokens = [16 * sum(BATCHES[: step + 1]) for step in range(8)]
    assert [row["throughput/total_tokens"] for row in rows] == tokens
    rates = [
        0.01 * min(t / 48, 1 - (t - 48) / (304 - 48)) * (b / 4) ** 0.5 for t, b in zip(tokens, BATCHES, strict=True)
    ]
    assert [row["optim/learning_rate_group0"] for row in rows] == pytest.approx(rates, abs=1e-12)

    capsys.readouterr()
    steps_of: dict[str, set[int]] = {}
    positions = []
    for step, batch in enumerate(BATCHES, start=1):
        assert main(["inspect", str(whole), "--step", str(step)]) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert sum(row["end"] - row["start"] for row in found) == batch * 16
        positions += sorted({row["position"] for row in found})
        for row in found:
            steps_of.setdefault(row["id"], set()).add(step)
    assert positions == list(range(sum(BATCHES)))
    for identifier, steps in sorted(steps_of.items())[::5]:
        assert main(["inspect", str(whole), "--document", identifier]) == 0
        assert json.loads(capsys.readouterr().out)["steps"] == sorted(steps)


def test_an_invalid_duration_is_reported(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings(made, tmp_path / "run", train__duration="2 weeks", train__steps=None)
    assert olmo("train", write_config(tmp_path / "c.yaml", config)) == 2
    assert '"train.duration" is "2 weeks"; expected one as "1000 steps"' in capsys.readouterr().err

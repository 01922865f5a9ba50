"""A loss that rises slowly, in a real run: warned of, or the end of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import settings, write_config
from test_run import olmo

STEPS = 40


def config_of(made: Path, run: Path, action: str) -> Path:
    """The learning rate grows over the whole run to far more than the model bears."""
    changes: dict[str, Any] = {
        "train__steps": STEPS,
        "schedule": {"warmup": STEPS - 1},
        "optimizer": {"learning_rate": 4.0},
        "validation": {},
        "checkpoint": {"every_steps": 8, "keep_last": 2},
        "stability": {"slow_rise_steps": 5, "slow_rise_nats": 0.3, "slow_rise_action": action},
    }
    return write_config(run.with_suffix(".yaml"), settings(made, run, **changes))


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][1:]


def test_a_loss_that_rises_slowly_stops_the_run_and_is_saved(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    warned, stopped = tmp_path / "warned", tmp_path / "stopped"
    assert olmo("train", config_of(made, warned, "warn")) == 0
    rises = [(row["step"], row["stability/slow_rise"]) for row in rows_of(warned)]
    told = [step for step, rise in rises if step % 5 == 0 and rise > 0.3]
    assert 5 < told[0] < STEPS  # it had learned before
    assert [f"step {step}: the mean loss of 5 steps" in caplog.text for step, _ in rises] == [
        step in told for step, _ in rises
    ]
    config = config_of(made, stopped, "stop")
    assert olmo("train", config) == 1
    error = capsys.readouterr().err
    rise = dict(rises)[told[0]]
    assert f"step {told[0]}: the mean loss of 5 steps is {rise:.3f} nats above its lowest" in error
    assert rows_of(stopped)[-1]["step"] == told[0]
    assert (stopped / "checkpoints" / f"step-{told[0]}" / "manifest.json").is_file()
    # who has looked at it may go on; what is done about a rise is no part of what the weights depend on
    assert olmo("train", config, "stability.slow_rise_action=warn") == 0
    last = [run / "checkpoints" / f"step-{STEPS}" / "manifest.json" for run in (warned, stopped)]
    assert last[0].read_bytes() == last[1].read_bytes()

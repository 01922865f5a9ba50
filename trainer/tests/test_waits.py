"""The training loop reads a tensor's value, which on a GPU waits for the device, only at steps that write a row."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import olmo_trainer.train as training
import pytest
import torch
from conftest import settings, write_config
from test_run import olmo

READS = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__")


@pytest.mark.parametrize("stability", [{}, {"rewind_after": 2, "skip_outliers": True}], ids=["plain", "rewinds"])
def test_only_steps_with_a_row_wait_for_the_device(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stability: dict[str, Any]
) -> None:
    reads: Counter[int] = Counter()
    step = [0]
    real = training.train_step

    def counted_step(*arguments: Any) -> Any:
        step[0] += 1
        return real(*arguments)

    def counted(read: Any) -> Any:
        def counting(*arguments: Any) -> Any:
            reads[step[0]] += 1
            return read(*arguments)

        return counting

    for name in READS:
        monkeypatch.setattr(torch.Tensor, name, counted(getattr(torch.Tensor, name)))
    monkeypatch.setattr(training, "train_step", counted_step)
    config = settings(
        made,
        tmp_path / "run",
        validation={},
        checkpoint={},
        stability=stability,
        train__loss="plain",  # on the CPU alone, the chunked one looks at its gradient
        logging={"metrics_every_steps": 4, "statistics_every_steps": None, "console_every_s": 1e-9},
    )
    assert olmo("train", write_config(tmp_path / "c.yaml", config)) == 0
    rows = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows == [0, 4, 8, 12]
    assert {number for number, count in reads.items() if count and number} == {4, 8, 12}

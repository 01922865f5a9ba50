"""Every optimizer in whole runs: stopped and continued to the same bytes, with whatever state it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import olmo_trainer.train as training
import pytest
from conftest import settings, write_config
from safetensors.torch import load_file
from test_run import manifest, olmo, rows_of

MIXTURE = {"family": "mixtral", "num_experts": 4, "num_experts_per_tok": 2}
CASES: dict[str, dict[str, Any]] = {
    "lion": {"optimizer": {"kind": "lion", "learning_rate": 5e-3, "betas": [0.9, 0.99]}},
    "muon": {
        "optimizer": {
            "kind": "muon",
            "learning_rate": 3e-2,
            "max_grad_norm": None,
            "max_grad_norm_ratio": 1.05,
            "clip_warmup_steps": 2,
            "clip_warmup_factor": 4.0,
            "groups": [{"params": ["embedding"], "learning_rate": 6e-3, "weight_decay": 0.3}],
        },
        "stability": {"skip_outliers": True, "outlier_window": 8, "outlier_sigma": 3.0},
    },
    "experts": {"model": MIXTURE, "optimizer": {"kind": "muon", "learning_rate": 1e-2}},
}
STATES = {"lion": {"exp_avg"}, "muon": {"step", "exp_avg", "exp_avg_sq", "momentum", "grad_norm_exp_avg"}}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_stopped_ends_in_the_same_bytes_and_learns(made: Path, tmp_path: Path, case: str) -> None:
    ends = []
    for name in ("whole", "stopped"):
        config = settings(made, tmp_path / name, validation={}, checkpoint={})
        config["model"].update(CASES[case].get("model", {}))
        config.update({key: value for key, value in CASES[case].items() if key != "model"})
        path = write_config(tmp_path / f"{name}.yaml", config)
        for stop in ("5 steps", "9 steps") if name == "stopped" else ():
            assert olmo("train", path, f"train.stop_at={stop}") == 0
        assert olmo("train", path) == 0
        ends.append(tmp_path / name / "checkpoints" / "step-12")
    assert manifest(ends[0]) == manifest(ends[1])
    rows = rows_of(tmp_path / "whole")
    assert rows == rows_of(tmp_path / "stopped")
    assert rows[-1]["train/CrossEntropyLoss"] < rows[1]["train/CrossEntropyLoss"] - 0.2
    states = {name.partition(".")[0] for name in load_file(ends[0] / "training" / "optimizer.safetensors")}
    assert states == STATES.get(case, states)
    if case == "muon":
        assert max(row["optim/clipping_rate"] for row in rows[1:]) > 0
        for row in rows[1:]:
            ratio = row["optim/learning_rate_group0"] / row["optim/learning_rate_group1"]
            assert ratio == pytest.approx(0.2), row["step"]


def test_a_checkpoint_is_due_at_a_skipped_step_too(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = training.train_step

    def poisoned(learner: Any, *arguments: Any) -> Any:
        hook = learner.model.norm.register_forward_hook(lambda module, inputs, out: out * float("nan"))
        stats = real(learner, *arguments)
        hook.remove()
        return stats

    monkeypatch.setattr(training, "train_step", poisoned)
    config = settings(made, tmp_path / "run", validation={}, checkpoint={"every_steps": 3}, train__steps=6)
    assert olmo("train", write_config(tmp_path / "c.yaml", config)) == 0
    weights = [tmp_path / "run" / "checkpoints" / f"step-{step}" / "model.safetensors" for step in (3, 6)]
    assert weights[0].read_bytes() == weights[1].read_bytes()

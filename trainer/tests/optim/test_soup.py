"""Soups, and runs whose learning rate falls to 0 from a checkpoint's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import settings, write_config
from olmo_trainer.formats.__main__ import main as formats
from safetensors.torch import load_file
from test_run import olmo, rows_of

CHANGES: dict[str, Any] = {"validation": {}, "checkpoint": {}, "schedule": {"kind": "cosine", "warmup": 2}}


@pytest.fixture(scope="module")
def begun(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped after 6 of 12 steps, in the middle of its cosine."""
    root = tmp_path_factory.mktemp("begun")
    config = write_config(root / "c.yaml", settings(made, root / "run", **CHANGES, train__stop_at="6 steps"))
    assert olmo("train", config) == 0
    return root / "run" / "checkpoints" / "step-6"


def annealed(made: Path, root: Path, begun: Path, seed: int) -> Path:
    config = settings(made, root / f"run-{seed}", validation={}, checkpoint={}, anneal=str(begun), seed=seed)
    del config["optimizer"], config["schedule"], config["model"]
    config["train"].update(duration="8 steps", steps=None)
    assert olmo("train", write_config(root / f"{seed}.yaml", config)) == 0
    return root / f"run-{seed}"


def test_anneal_goes_from_the_checkpoints_rate_to_zero(made: Path, tmp_path: Path, begun: Path) -> None:
    run = annealed(made, tmp_path, begun, seed=5)
    rate = rows_of(begun.parents[1])[-1]["optim/learning_rate_group0"]
    assert 0.001 < rate < 0.01
    rates = [row["optim/learning_rate_group0"] for row in rows_of(run)[1:]]
    assert rates == pytest.approx([rate * (1 - t / 8) for t in range(1, 9)], rel=1e-12)
    assert rates[-1] == 0
    moments = load_file(run / "checkpoints" / "step-8" / "training" / "optimizer.safetensors")
    assert float(moments["step.embedding"]) == 6 + 8
    assert rows_of(run)[1]["train/CrossEntropyLoss"] < rows_of(begun.parents[1])[3]["train/CrossEntropyLoss"]
    assert olmo("train", tmp_path / "5.yaml") == 0  # it is at its end, and the config still fits


def test_anneal_needs_a_rate(made: Path, tmp_path: Path, begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert olmo("export", begun, tmp_path / "bare") == 0
    config = settings(made, tmp_path / "run", anneal=str(tmp_path / "bare"))
    del config["optimizer"], config["model"]
    assert olmo("train", write_config(tmp_path / "c.yaml", config)) == 2
    assert "hint: set optimizer.learning_rate" in capsys.readouterr().err


def test_a_soup_is_the_mean_and_records_its_inputs(
    made: Path, tmp_path: Path, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [annealed(made, tmp_path, begun, seed) for seed in (1, 2, 3)]
    assert olmo("soup", *runs, tmp_path / "soup") == 0
    parts = [load_file(run / "checkpoints" / "step-8" / "model.safetensors") for run in runs]
    soup = load_file(tmp_path / "soup" / "model.safetensors")
    assert set(soup) == set(parts[0])
    for name, tensor in soup.items():
        assert torch.equal(tensor, torch.stack([part[name].double() for part in parts]).mean(0).float()), name
    manifest = json.loads((tmp_path / "soup" / "manifest.json").read_text())
    roles = [(row["role"], row["path"]) for row in manifest["inputs"]]
    assert roles == [("checkpoint", f"../run-{seed}/checkpoints/step-8") for seed in (1, 2, 3)]
    assert (manifest["details"]["step"], manifest["details"]["tokens_seen"]) == (8, 8 * 4 * 16)
    assert formats(["validate", "checkpoint", str(tmp_path / "soup")]) == 0
    assert not (tmp_path / "soup" / "training").exists()
    # averaging a checkpoint with itself gives it back, in bfloat16 too
    assert olmo("export", runs[0], tmp_path / "half", "--dtype", "bfloat16") == 0
    assert olmo("soup", tmp_path / "half", tmp_path / "half", tmp_path / "same") == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("half", "same")]
    assert weights[0] == weights[1]
    assert olmo("soup", runs[0], tmp_path / "one") == 2
    assert olmo("soup", *runs, tmp_path / "soup") == 2


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"model__intermediate_size": 32}, '"intermediate_size" is 32; expected 24, as in'),
        ({"model__rope_theta": 1e4}, '"rope_theta" is 10000.0; expected 500000.0, as in'),  # tensors of the same shapes
    ],
)
def test_a_soup_of_different_models_is_refused(
    changed: dict[str, float], told: str, made: Path, tmp_path: Path, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(made, tmp_path / "run", **changed)
    assert olmo("init", write_config(tmp_path / "c.yaml", config), tmp_path / "other") == 0
    assert olmo("soup", begun, tmp_path / "other", tmp_path / "soup") == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "soup").exists()


def test_a_soup_of_sharded_checkpoints_keeps_their_files(made: Path, tmp_path: Path, begun: Path) -> None:
    for name in ("a", "b"):
        assert olmo("convert", "olmo2hf", begun, tmp_path / name, "--shard-size", "20KB") == 0
    assert olmo("soup", tmp_path / "a", tmp_path / "b", tmp_path / "soup") == 0
    files = sorted(path.name for path in (tmp_path / "a").glob("model*"))
    assert len(files) > 2
    for name in files:
        assert (tmp_path / "soup" / name).read_bytes() == (tmp_path / "a" / name).read_bytes(), name
    assert formats(["validate", "checkpoint", str(tmp_path / "soup")]) == 0

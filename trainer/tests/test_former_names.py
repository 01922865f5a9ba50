"""Settings under their former names: accepted with a note, and no checkpoint changes."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import yaml
from conftest import settings, write_config
from olmo_trainer.__main__ import main
from olmo_trainer.config.load import FORMER_NAMES

PRESENT = {
    "train__dtype": "bfloat16",
    "train__activation_checkpointing": "full",
    "train__activation_checkpointing_every": 2,
    "data__window_filter": {},
}
FORMER = {
    "train__precision": "bf16",
    "train__recompute": "full",
    "train__recompute_every": 2,
    "data__instance_filter": {},
}


def run(made: Path, directory: Path, changes: dict[str, object], *overrides: str) -> Path:
    config = settings(made, directory, train__steps=4, **changes)
    if changes is FORMER:
        config["run_directory"] = config.pop("output_dir")
    path = write_config(directory.with_suffix(".yaml"), config)
    assert main(["train", str(path), *overrides]) == 0
    return directory / "checkpoints"


def test_former_names_make_the_same_checkpoint(made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        former = run(made, tmp_path / "former", FORMER)
    notes = [f'"{name}" is deprecated; use "{FORMER_NAMES[name]}"' for name in FORMER_NAMES]
    assert all(note in caplog.text for note in notes)
    caplog.clear()
    present = run(made, tmp_path / "present", PRESENT)
    assert "deprecated" not in caplog.text
    assert (former / "step-4" / "manifest.json").read_bytes() == (present / "step-4" / "manifest.json").read_bytes()
    config = json.loads((present / "step-4" / "manifest.json").read_text())["config"]
    assert config["train"]["precision"] == "bf16"
    assert (config["train"]["recompute"], config["train"]["recompute_every"]) == ("full", 2)
    assert config["data"]["instance_filter"]["repetition_max_count"] == 32


def test_a_run_with_former_names_in_its_config_resumes(made: Path, tmp_path: Path) -> None:
    whole = run(made, tmp_path / "whole", PRESENT)
    run(made, tmp_path / "part", PRESENT, "train.stop_at=3 steps")
    kept = tmp_path / "part" / "config.yaml"
    config = yaml.safe_load(kept.read_text())
    config["run_directory"] = config.pop("output_dir")
    config["data"]["instance_filter"] = config["data"].pop("window_filter")
    train = config["train"]
    train["recompute"] = train.pop("activation_checkpointing")
    train["recompute_every"] = train.pop("activation_checkpointing_every")
    train["precision"] = {"bfloat16": "bf16"}[train.pop("dtype")]
    kept.write_text(yaml.safe_dump(config))
    part = run(made, tmp_path / "part", PRESENT)
    assert (part / "step-4" / "manifest.json").read_bytes() == (whole / "step-4" / "manifest.json").read_bytes()

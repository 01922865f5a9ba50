"""A run of ours and one of plain transformers.Trainer, from the same weights on the same windows, are the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import settings, write_config
from olmo_trainer.__main__ import main
from olmo_trainer.config.load import load_config
from safetensors.torch import load_file

pytest.importorskip("accelerate")

SHAPES: dict[str, dict[str, Any]] = {
    "olmo2": {"model__tie_word_embeddings": True, "data__packing": "best_fit"},
    "mistral": {"model__sliding_window": 5},
    "olmo3": {"model__sliding_window": 5, "model__num_hidden_layers": 4},
    "mixtral": {"model__num_experts": 4, "model__router_aux_loss_coef": 0.0},
    "olmoe": {
        "model__num_experts": 4,
        "model__num_experts_per_tok": 2,
        "model__router_aux_loss_coef": 0.0,
        "model__router_z_loss_coef": 0.0,
    },
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("family", list(SHAPES))
def test_a_run_is_that_of_transformers_trainer(
    made: Path, tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What floating point leaves of 20 steps at a high rate; each weight moves by 0.05 or more."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "bench")
    from hf_trainer import train_with_transformers

    changes = {"train__steps": 20, "optimizer__decay_embeddings": True, "optimizer__weight_decay": 0.5}
    changes |= {"model__init": {"std": 0.2}, "validation": {}, **SHAPES[family]}
    config = write_config(tmp_path / "c.yaml", settings(made, tmp_path / "run", model__family=family, **changes))
    assert main(["init", str(config), str(tmp_path / "untrained")]) == 0
    assert main(["train", str(config)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    ours = [row for row in rows if row["step"]]
    theirs = train_with_transformers(load_config(config, []), tmp_path / "untrained", tmp_path / "theirs")
    for name, their_name, close in (("CrossEntropyLoss", "loss", 1e-5), ("total_grad_norm", "grad_norm", 1e-3)):
        found = [next(value for key, value in row.items() if key.endswith(f"/{name}")) for row in ours]
        assert found[0] == pytest.approx(theirs[0][their_name], rel=2e-6)
        assert found == pytest.approx([row[their_name] for row in theirs], rel=close)
    before, after = tmp_path / "untrained", tmp_path / "run" / "checkpoints" / "step-20"
    initial, mine, their = (load_file(path / "model.safetensors") for path in (before, after, tmp_path / "theirs"))
    assert mine.keys() == their.keys()
    for name, weight in mine.items():
        torch.testing.assert_close(weight, their[name], rtol=0, atol=1e-4, msg=name)
        assert float((weight - initial[name]).abs().max()) > 0.03

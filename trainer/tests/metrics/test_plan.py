"""What a dry run tells of memory, time and energy, held against what is kept and reckoned by hand."""

from __future__ import annotations

import json
import multiprocessing
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import settings, write_config
from olmo_trainer.config.schema import ModelConfig, OptimizerConfig, ParallelConfig, TrainConfig
from olmo_trainer.model.architecture import architecture_of, flops_per_token, matrix_parameters
from olmo_trainer.model.init import initialize
from olmo_trainer.model.transformer import Transformer, checkpoint_activations
from olmo_trainer.plan import memory_of_rank
from olmo_trainer.step import accumulate
from test_run import olmo
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

MODEL = ModelConfig(family="olmo2", hidden_size=64, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4)


@pytest.mark.parametrize("how", ["none", "full"])
def test_activations_are_near_what_autograd_keeps(how: str) -> None:
    shape = architecture_of(MODEL, 64)
    model = Transformer(shape)
    initialize(model, MODEL.init, 0)
    if how == "full":
        checkpoint_activations(model, "full", 1)
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.numel() >= 4 * 128:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden_BTD = model(torch.randint(64, (4, 128)))
    train = TrainConfig(batch_windows=4, steps=1, activation_checkpointing=how)  # type: ignore[arg-type]
    told = memory_of_rank(shape, train, OptimizerConfig(learning_rate=0.1), 128, 1)
    assert hidden_BTD.requires_grad
    assert told["activations_estimate"] == pytest.approx(sum(kept.values()), rel=0.35)
    assert told["moments"] == 2 * told["weights"] == 8 * sum(parameter.numel() for parameter in model.parameters())
    sharded = replace(train, parallel=ParallelConfig(kind="fsdp"))
    shared = memory_of_rank(shape, sharded, OptimizerConfig(learning_rate=0.1), 128, 4)
    assert 4 * shared["weights"] == told["weights"]
    assert 4 * shared["activations_estimate"] == told["activations_estimate"]


def test_a_dry_run_prints_time_and_energy(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings(made, tmp_path / "run")
    config["energy"] = {"declared_watts": 500.0, "pue": 1.2, "grid_kg_per_kwh": 0.4}
    path = write_config(tmp_path / "c.yaml", config)
    assert olmo("train", path, "--dry-run", "--json", "--tokens-per-second", 2, "--ranks", 2) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["seconds"] == told["tokens"] / 2 == 384
    assert told["energy/kWh_data_center"] == pytest.approx(384 * 500 / 3.6e6 * 1.2)
    assert told["energy/kgCO2e"] == pytest.approx(384 * 500 / 3.6e6 * 1.2 * 0.4)
    assert told["flops"] == told["flops_per_token"] * 768
    assert not (tmp_path / "run").exists()


def test_a_dry_run_prints_a_page_and_warns_of_repetition(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config(tmp_path / "c.yaml", settings(made, tmp_path / "run"))
    assert olmo("train", path, "--dry-run", "--tokens-per-second", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split(" ")[0] for line in lines} == {"model", "data", "", "run", "work", "memory", "device", "time"}
    assert "run      12 steps of 64 tokens, 2 micro-batches each: 768 tokens, 0.156 epochs" in lines
    assert "time     06:24" in lines
    assert "1 thread" in lines[-2]
    for flag in ("--json", "--ranks=2", "--tokens-per-second=3"):
        assert olmo("train", path, flag) == 2
        assert "is given without --dry-run" in capsys.readouterr().err
    repeated = ["train.steps=null", "train.duration=5e7T"]
    assert olmo("train", path, "--dry-run", *repeated) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(rf"warning  {made}/tokens: its [\d,]+ tokens are seen 1\d,\d\d\d times; .*2305.16264\)", told)
    assert olmo("train", path, "train.stop_at=1 steps", "train.steps=500", "checkpoint.every_steps=null") == 0
    assert "times; beyond 4 times" not in capsys.readouterr().err  # it stops before


def counted(model: ModelConfig, length: int) -> tuple[float, float]:
    """Operations a token of a forward and backward pass that torch counts: in weights' products, and in attention's."""
    shape = architecture_of(model, 128)
    transformer = Transformer(shape)
    initialize(transformer, model.init, 0)
    tokens_BT = torch.randint(128, (2, length))
    train = TrainConfig(batch_windows=2, steps=1, loss="plain")  # torch does not count products with `out=`
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        accumulate(transformer, [(tokens_BT, tokens_BT, None)], train, torch.tensor(2 * length), 2 * length)
    by_operator = {str(name): count / (2 * length) for name, count in counter.get_flop_counts()["Global"].items()}
    return by_operator.pop("aten.mm"), sum(by_operator.values())


@pytest.mark.parametrize("family", ["dense", "moe", "window"])
def test_operations_are_those_that_torch_counts(family: str) -> None:
    """Where a window is shorter than the sequence, a token costs what it costs in a sequence of the window's length."""
    kinds: dict[str, dict[str, Any]] = {
        "dense": {"family": "olmo2", "num_key_value_heads": 2},
        "moe": {"family": "olmoe", "num_experts": 4, "num_experts_per_tok": 2},
        "window": {"family": "mistral", "sliding_window": 16},
    }
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = ModelConfig(**sizes, **kinds[family])
    shape = architecture_of(model, 128)
    products, _ = counted(model, 64)
    _, attention = counted(model, 16 if family == "window" else 64)
    assert products == 6 * matrix_parameters(shape)
    assert products + attention == flops_per_token(shape, 64)


@pytest.mark.processes
@pytest.mark.parametrize("how", ["none", "full"])
def test_memory_is_near_what_a_run_takes(made: Path, tmp_path: Path, how: str) -> None:
    """The growth of the greatest resident set from a small model to one of 17 M weights, within 30 %."""
    peaks, estimates = [], []
    large = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "embedding_size": 8192}
    large |= {"num_attention_heads": 6, "num_key_value_heads": 6, "tie_word_embeddings": False}
    for name, length, sizes in (("small", 64, {}), ("large", 512, large)):
        changes: dict[str, Any] = {f"model__{key}": value for key, value in sizes.items()}
        train = {
            "steps": 2,
            "batch_windows": 2,
            "device": "cpu",
            "num_threads": 1,
            "activation_checkpointing": how,
        }
        changes |= {"train": train, "data__sequence_length": length, "validation": {}, "checkpoint": {}}
        config = write_config(tmp_path / f"{name}.yaml", settings(made, tmp_path / name, **changes))
        run = multiprocessing.get_context("fork").Process(target=olmo, args=("train", config))
        run.start()
        run.join()
        rows = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        peaks.append(1e6 * json.loads(rows[-1])["System/Peak Memory (MB)"])
        shape = architecture_of(ModelConfig(**settings(made, tmp_path, **changes)["model"]), 400)
        told = memory_of_rank(shape, TrainConfig(**train), OptimizerConfig(learning_rate=0.1), length, 1)
        estimates.append(told["total_estimate"])
    assert estimates[1] - estimates[0] == pytest.approx(peaks[1] - peaks[0], rel=0.3)

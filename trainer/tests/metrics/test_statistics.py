"""Statistics of tensors equal those that are worked out one by one, and looking changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import settings, write_config
from olmo_trainer.config.schema import OptimizerConfig, StabilityConfig, TrainConfig
from olmo_trainer.device import matmul_peak, peak_flops
from olmo_trainer.metrics.measure import StepStatistics
from olmo_trainer.model.architecture import architecture_of
from olmo_trainer.model.init import initialize
from olmo_trainer.model.transformer import Transformer
from olmo_trainer.optim import build_optimizer
from olmo_trainer.stability import Guard
from test_run import olmo, rows_of
from test_step import CONFIG, step


def four(tensor: torch.Tensor) -> list[float]:
    return [float(tensor.min()), float(tensor.max()), float(tensor.mean()), float(tensor.norm())]


def test_statistics_are_those_of_each_tensor() -> None:
    model = Transformer(architecture_of(CONFIG, 64))
    initialize(model, CONFIG.init, 0)
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=0.01))
    guard = Guard(StabilityConfig(), torch.device("cpu"))
    train = TrainConfig(batch_windows=4, steps=4, micro_batch_windows=2)
    tokens_BT = torch.randint(64, (4, 12), generator=torch.Generator().manual_seed(1))
    step(model, optimizer, tokens_BT, train, max_norm=1e-3, guard=guard)
    expected = {f"optim/param/{name}": four(p.detach()) for name, p in model.named_parameters()}
    for kind in ("exp_avg", "exp_avg_sq"):
        state = optimizer.state
        expected |= {f"optim/{kind}/{name}": four(state[p][kind]) for name, p in model.named_parameters()}
    seen: dict[str, list[torch.Tensor]] = {}
    for number, block in enumerate(model.blocks):
        seen[f"blocks.{number}"] = []
        block.register_forward_hook(lambda _m, _i, out, name=f"blocks.{number}": seen[name].append(out.detach()))
    statistics = StepStatistics(model, optimizer)
    stats = step(model, optimizer, tokens_BT, train, max_norm=1e-3, guard=guard, statistics=statistics)
    expected |= {f"activation/{name}": four(torch.cat(parts)) for name, parts in seen.items()}
    values = statistics.values()
    for name, row in expected.items():
        assert [values[f"{name}.{kind}"] for kind in ("min", "max", "avg", "norm")] == pytest.approx(
            row, rel=1e-4, abs=1e-7
        )
    squares = sum(values[key] ** 2 for key in values if key.startswith("optim/grad/") and key.endswith(".norm"))
    assert squares**0.5 == pytest.approx(float(stats.grad_norm), rel=1e-5)  # before clipping
    assert set(values) - {f"{name}.{kind}" for name in expected for kind in ("min", "max", "avg", "norm")} == {
        f"{name}.{kind}"
        for name in (*(f"optim/grad/{n}" for n, _ in model.named_parameters()), "activation/embedding")
        for kind in ("min", "max", "avg", "norm")
    }
    model(tokens_BT)  # nothing is watched any longer
    assert statistics.values() == values


def test_a_run_that_is_looked_at_is_the_same_run(made: Path, tmp_path: Path) -> None:
    changes = {"validation": {}, "checkpoint": {}, "train__steps": 4}
    runs = []
    for name, every in (("with", 2), ("without", None)):
        config = settings(made, tmp_path / name, **changes, logging__statistics_every_steps=every)
        config["logging"]["measure_peak"] = True
        assert olmo("train", write_config(tmp_path / f"{name}.yaml", config)) == 0
        runs.append(tmp_path / name)
    weights = [(run / "checkpoints" / "step-4" / "model.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1]
    rows = [rows_of(run) for run in runs]
    assert ["optim/grad/embedding.norm" in row for row in rows[0]] == [False, False, True, False, True]
    same = [{key: row[key] for key in other} for row, other in zip(*rows, strict=True)]
    assert same == rows[1]
    timed = (runs[0] / "metrics.jsonl").read_text()
    assert '"throughput/device/MFU"' in timed
    assert '"System/Peak Memory (MB)"' in timed


def test_peaks_are_the_makers_or_none() -> None:
    bf16 = torch.bfloat16
    assert peak_flops("NVIDIA H200", bf16) == peak_flops("NVIDIA H100 80GB HBM3", bf16) == 989.4e12
    assert peak_flops("NVIDIA H100 PCIe", bf16) == 756e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", torch.float32) == 19.5e12
    assert peak_flops("NVIDIA GB200", bf16) == 2500e12
    assert peak_flops("AMD Instinct MI250X", bf16) == 191.5e12
    assert peak_flops("AMD Instinct MI250X", torch.float32) == 47.85e12
    assert peak_flops("NVIDIA L40S", bf16) == 2 * peak_flops("NVIDIA L40", bf16) - 0.05e12 == 362.05e12
    assert peak_flops("NVIDIA B200", bf16) == 2250e12
    assert peak_flops("NVIDIA GeForce RTX 9999", bf16) is None


def test_a_peak_without_a_maker_is_the_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([0.0, 0.0, 1.0, 4.0, 5.0, 5.5, 6.0, 11.0])  # begun, then each product's start, end and the check
    monkeypatch.setattr("olmo_trainer.device.time.perf_counter", lambda: next(readings))
    assert matmul_peak(torch.device("cpu"), torch.float32, size=64, seconds=10.0) == 2 * 64**3 / 0.5

"""Groups, Lion, Muon, clipping and the guard against their formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from olmo_trainer.config.schema import ModelConfig, OptimizerConfig, StabilityConfig
from olmo_trainer.formats.contract import ConfigError
from olmo_trainer.model.architecture import architecture_of
from olmo_trainer.model.init import initialize
from olmo_trainer.model.transformer import Transformer
from olmo_trainer.optim import (
    Clip,
    GatedOptimizer,
    build_optimizer,
    clip_by_history,
    clip_by_norm,
    clip_of_step,
    orthogonalized,
)
from olmo_trainer.settings import build
from olmo_trainer.stability import Guard

CONFIG = ModelConfig(
    family="olmo2",
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
CPU = torch.device("cpu")


def built(**settings: Any) -> tuple[Transformer, GatedOptimizer]:
    model = Transformer(architecture_of(CONFIG, 128))
    initialize(model, CONFIG.init, seed=0)
    return model, build_optimizer(model, build(OptimizerConfig, {"learning_rate": 0.1, **settings}, "test"))


def groups_of(optimizer: GatedOptimizer) -> dict[str, tuple[str, float, float]]:
    return {
        name: (group["rule"], group["weight_decay"], group["rate_ratio"])
        for group in optimizer.param_groups
        for name in group["names"]
    }


def test_norms_and_embedding_decay_only_if_asked() -> None:
    for asked in (False, True):
        model, optimizer = built(decay_embeddings=asked, decay_norms=asked)
        found = groups_of(optimizer)
        assert set(found) == {name for name, _ in model.named_parameters()}
        left = {name for name, (_, decay, _) in found.items() if decay == 0}
        assert left == (set() if asked else {name for name in found if "norm" in name or name == "embedding"})


def test_groups_by_glob_take_their_own_settings_and_leave_the_rest() -> None:
    rows = [
        {"params": ["embedding", "head.*"], "weight_decay": 0.5, "learning_rate": 0.3},
        {"params": ["blocks.1.mlp.*"], "kind": "lion"},
    ]
    _, optimizer = built(kind="muon", groups=rows)
    found = groups_of(optimizer)
    assert found["embedding"] == found["head.weight"] == ("adamw", 0.5, pytest.approx(3))
    assert found["blocks.1.mlp.down.weight"] == ("lion", 0.1, 1)
    assert found["blocks.0.mlp.down.weight"] == ("muon", 0.1, 1)
    assert found["blocks.0.mlp_norm.weight"] == ("adamw", 0, 1)


@pytest.mark.parametrize(
    ("rows", "told", "hint"),
    [
        ([{"params": ["embeddings"]}], '"embeddings", which matches no parameter', 'did you mean "embedding"?'),
        ([{"params": ["blocks.*"]}, {"params": ["*.mlp.*"]}], "optimizer.groups.0 and optimizer.groups.1", None),
        ([{"params": ["norm.weight"], "kind": "muon"}], '"norm.weight" is a vector; expected a matrix', None),
    ],
)
def test_groups_that_do_not_fit_are_reported(rows: list[dict[str, Any]], told: str, hint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        built(groups=rows)
    assert told in caught.value.problems[0].message
    assert caught.value.problems[0].hint == hint


def one_parameter(kind: str, start: torch.Tensor) -> tuple[torch.nn.Parameter, GatedOptimizer]:
    parameter = torch.nn.Parameter(start.clone())
    group = {"params": [parameter], "splits": [[start.shape[0]]], "rule": kind, "weight_decay": 0.1, "rate_ratio": 1.0}
    optimizer = GatedOptimizer([group], OptimizerConfig(learning_rate=1.0, betas=(0.9, 0.99)))
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    return parameter, optimizer


def test_lion_follows_its_paper() -> None:
    start = torch.tensor([[1.0, -2.0, 0.5]])
    parameter, optimizer = one_parameter("lion", start)
    value, mean = start.double(), torch.zeros(1, 3, dtype=torch.float64)
    for gradient in ([0.1, -0.2, 0.0], [-0.3, 0.1, 0.2], [0.01, 0.01, -5.0]):
        parameter.grad = torch.tensor([gradient])
        optimizer.step()
        g = torch.tensor([gradient], dtype=torch.float64)
        value = value - 0.01 * (torch.sign(0.9 * mean + 0.1 * g) + 0.1 * value)
        mean = 0.99 * mean + 0.01 * g
    torch.testing.assert_close(parameter.detach().double(), value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (3, 6, 6)])
def test_muon_makes_singular_values_nearly_one_and_keeps_directions(shape: tuple[int, ...]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalized(matrix * 1e-3)
    inner = u.mT @ found @ vh.mT  # diagonal, if the singular directions are kept
    values = torch.diagonal(inner, dim1=-2, dim2=-1)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    assert float((inner - torch.diag_embed(values)).abs().max()) < 1e-3


def test_muon_treats_stacked_matrices_one_by_one() -> None:
    model, optimizer = built(kind="muon", weight_decay=0.0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for index, parameter in enumerate(model.parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    optimizer.step()
    after = dict(model.named_parameters())
    moved = ((before["blocks.0.attention.qkv.weight"] - after["blocks.0.attention.qkv.weight"]) / 0.01).detach()
    for part in moved.split([16, 8, 8]):
        values = torch.linalg.svdvals(part) / (0.2 * max(part.shape) ** 0.5)
        assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    rms = float(moved.pow(2).mean().sqrt())
    assert 0.1 < rms < 0.3  # about that of AdamW's update
    assert set(optimizer.state[after["head.weight"]]) == {"step", "exp_avg", "exp_avg_sq"}


def test_global_clip_follows_its_table() -> None:
    # ‖g‖ = 5: the coefficient is min(1, max / (5 + 1e-6))
    for bound, coefficient, share in ((10.0, 1.0, 0), (5.0, 5 / (5 + 1e-6), 1), (1.0, 1 / (5 + 1e-6), 1)):
        gradients = [torch.tensor([3.0]), torch.tensor([0.0, 4.0])]
        rate = clip_by_norm(gradients, torch.tensor(5.0), bound)
        assert float(rate) == share
        assert [*gradients[0].tolist(), *gradients[1].tolist()] == pytest.approx([3 * coefficient, 0, 4 * coefficient])


def test_clip_warmup_ends_with_the_step_that_it_names() -> None:
    settings = OptimizerConfig(learning_rate=1.0, max_grad_norm=2.0, clip_warmup_steps=3, clip_warmup_factor=10.0)
    assert [clip_of_step(step, settings).max_norm for step in range(1, 6)] == [20, 20, 20, 2, 2]
    adaptive = OptimizerConfig(
        learning_rate=1.0, max_grad_norm=None, max_grad_norm_ratio=1.5, clip_warmup_steps=1, clip_warmup_factor=4.0
    )
    clips = [clip_of_step(step, adaptive) for step in (1, 2)]
    assert [(clip.max_ratio, clip.keeps_history, clip.beta) for clip in clips] == [(6, False, 0.95), (1.5, True, 0.95)]


def test_clip_by_history_follows_its_table() -> None:
    """Norms 4, 2, 8, 1 with ratio 1.5 and β 0.9: EMA ← lerp(EMA, ‖g‖·coef, 0.1), from the second norm on."""
    means = [torch.zeros(()), torch.zeros(())]
    ema = None
    for number, norm in enumerate((4.0, 2.0, 8.0, 1.0), start=1):
        mean = norm if ema is None else ema
        coefficient = min(1.0, 1.5 * mean / (norm + 1e-6))
        if number > 1:
            ema = mean + (norm * coefficient - mean) * 0.1
        gradients = [torch.tensor([norm, 0.0]), torch.tensor([0.1])]
        clip = Clip(max_ratio=1.5, beta=0.9, keeps_history=number > 1)
        rate = clip_by_history(gradients, torch.tensor([norm, 0.1]), means, clip, torch.tensor(True))
        assert float(gradients[0][0]) == pytest.approx(norm * coefficient, rel=1e-6)
        assert float(rate) == (0.5 if coefficient < 1 else 0)
        assert float(means[0]) == pytest.approx(ema or 0.0, rel=1e-6)
    assert ema == pytest.approx(2 + 0.1 * 1 - 0.1 * (2.1 - 1), rel=1e-5)  # 2, then clipped to 3, then 1
    before = float(means[0])
    high = [torch.tensor([9.0]), torch.tensor([9.0])]
    clip_by_history(high, torch.cat(high), means, Clip(max_ratio=1.5), torch.tensor(False))
    assert float(means[0]) == before


def judged(guard: Guard, nats: float, norm: float = 1.0) -> tuple[bool, bool]:
    accepted, outlier = guard.judge(torch.tensor(nats), torch.tensor(norm))
    return bool(accepted), bool(outlier)


def test_outliers_are_judged_only_by_accepted_steps_and_not_before_64() -> None:
    draw = torch.Generator().manual_seed(1)
    guard = Guard(StabilityConfig(skip_outliers=True), CPU)
    seen: list[float] = []
    for number in range(300):
        nats = 2.0 + 0.1 * float(torch.randn((), generator=draw))
        if number in (40, 150, 151, 250):
            nats = 9.0
        accepted, outlier = judged(guard, nats)
        window = torch.tensor(seen[-128:], dtype=torch.float64)
        wanted = len(window) >= 64 and nats > float(window.mean() + 6 * window.std())
        assert (accepted, outlier) == (not wanted, wanted), number
        if not outlier:
            seen.append(torch.tensor(nats).item())
    assert len(seen) == 297  # the one at 40 came too early to be judged
    assert judged(guard, math.nan) == (False, False)
    assert judged(guard, 2.0, norm=math.inf) == (False, False)
    assert judged(guard, 2.0) == (True, False)
    assert judged(guard, 2.0, norm=50.0) == (False, True)


def test_the_guard_continues_exactly_after_a_restore() -> None:
    first, second = Guard(StabilityConfig(), CPU), Guard(StabilityConfig(), CPU)
    for number in range(100):
        judged(first, 2.0 + math.sin(number))
    second.restore(first.capture())
    for number in range(100, 140):
        nats = 2.0 + math.sin(number) + 20 * (number == 120)
        assert judged(first, nats, 1.0 + nats) == judged(second, nats, 1.0 + nats)
        assert first.values() == second.values()
    assert all(torch.equal(a, b) for a, b in zip(first.capture().values(), second.capture().values(), strict=True))


def test_spike_score_is_the_share_of_outliers() -> None:
    guard = Guard(StabilityConfig(), CPU)
    for number in range(200):
        judged(guard, 50.0 if number in (100, 180) else 2.0 + 0.1 * math.sin(number))
    assert guard.values()["spike/SpikeScore"] == 2 / 200


def test_slow_rise_is_seen_although_no_step_is_an_outlier() -> None:
    guard = Guard(StabilityConfig(slow_rise_steps=50), CPU)
    smooth, lowest, rises = 0.0, math.inf, []
    for t in range(1, 601):
        nats = 3.0 - min(t, 200) / 100 + max(0, t - 300) / 1000 + 0.05 * math.sin(t)
        assert judged(guard, nats) == (True, False)
        smooth += (nats - smooth) / min(t, 50)
        lowest = min(lowest, smooth) if t >= 50 else lowest
        rises.append(guard.values()["stability/slow_rise"])
        assert rises[-1] == pytest.approx(max(0.0, smooth - lowest), abs=1e-6)
    assert max(rises[:300]) < 0.02 < 0.2 < rises[-1]

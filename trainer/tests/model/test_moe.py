"""Experts: routing as published, grouped products and their loop, losses that do not depend on the batch's division."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from olmo_trainer.config.schema import TrainConfig
from olmo_trainer.model.architecture import Routing
from olmo_trainer.model.moe import MoE, balance_loss, grouped_product, loop_product, route, router_z_loss
from olmo_trainer.model.transformer import checkpoint_activations
from olmo_trainer.step import accumulate, labels_of
from test_model import model_of

ROUTING = Routing(experts=6, chosen=2, renormalise=False, balance_weight=0.01, z_weight=0.001, per_window=True)


@pytest.mark.parametrize("renormalise", [False, True])
def test_routing_is_the_papers(renormalise: bool) -> None:
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    experts, weights = route(logits, Routing(**{**vars(ROUTING), "renormalise": renormalise}))
    for row in range(50):
        best = sorted(range(6), key=lambda expert: -float(logits[row, expert]))[:2]
        assert experts[row].tolist() == best
        over = logits[row, best] if renormalise else logits[row]
        expected = torch.exp(logits[row, best]) / torch.exp(over).sum()
        torch.testing.assert_close(weights[row], expected)


@pytest.mark.skipif(not hasattr(torch, "_grouped_mm"), reason="this torch has no grouped product")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_product_is_its_loop(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(10, 16, generator=draw).to(dtype).requires_grad_()
    weight = torch.randn(4, 24, 16, generator=draw).to(dtype).requires_grad_()
    ends = torch.tensor([4, 4, 9, 10], dtype=torch.int32)  # the second expert has nothing to do
    expected, found = loop_product(x, weight, ends), grouped_product(x, weight, ends)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 5e-2}
    torch.testing.assert_close(found, expected, **tolerance)
    grad = torch.randn(10, 24, generator=draw).to(dtype)
    for ours, theirs in zip(
        torch.autograd.grad(found, (x, weight), grad), torch.autograd.grad(expected, (x, weight), grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs, **tolerance)


def test_balance_is_one_when_even_and_transformers_by_the_choices() -> None:
    transformers = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    logits = torch.randn(1, 40, 6, generator=torch.Generator().manual_seed(0))
    experts = logits.topk(2).indices
    theirs = transformers.load_balancing_loss_func((logits[0],), 6, top_k=2)
    torch.testing.assert_close(2 * balance_loss(logits, experts)[0], theirs)
    even = torch.arange(6).repeat(4).view(1, 12, 2)
    assert float(balance_loss(torch.zeros(1, 12, 6), even)) == pytest.approx(1)
    all_to_one = torch.zeros(1, 12, 1, dtype=torch.long)
    sure = torch.zeros(1, 12, 6)
    sure[..., 0] = 50
    assert float(balance_loss(sure, all_to_one)) == pytest.approx(6)
    assert float(router_z_loss(torch.zeros(5, 6))) == pytest.approx(float(torch.tensor(6.0).log() ** 2))


@pytest.mark.parametrize("case", ["olmoe", "mixtral"])
def test_gradients_do_not_depend_on_the_micro_batches(case: str) -> None:
    tokens = torch.randint(0, 100, (4, 21), generator=torch.Generator().manual_seed(0))
    inputs, labels = labels_of(tokens)
    train = TrainConfig(steps=1, batch_windows=4)
    found = {}
    for size in (4, 2, 1):
        model, _ = model_of(case, router_aux_loss_coef=1.0, router_z_loss_coef=0.1)
        batches = [(*pair, None) for pair in zip(inputs.split(size), labels.split(size), strict=True)]
        accumulate(model, batches, train, torch.tensor(labels.numel()), inputs.numel())
        statistics = model.take_router_statistics()
        found[size] = [parameter.grad for parameter in model.parameters()] + list(statistics.values())
        assert model.take_router_statistics() == {}
    for size in (2, 1):
        for ours, whole in zip(found[size], found[4], strict=True):
            torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-6)


def test_losses_reach_the_router_with_their_weights() -> None:
    """The gradient beside that of the tokens' loss is the weighted losses' own."""
    inputs = torch.randint(0, 100, (2, 16), generator=torch.Generator().manual_seed(0))

    def gradients(share: float, **weights: float) -> list[torch.Tensor]:
        model, _ = model_of("olmoe", num_hidden_layers=1, **weights)
        model(inputs, loss_share=share).square().sum().backward()
        statistics = {name: float(value) for name, value in model.take_router_statistics().items() if name != "load"}
        assert bool(statistics) == bool(share)
        mlp = model.blocks[0].mlp
        assert isinstance(mlp, MoE)
        assert mlp.router.weight.grad is not None
        return [mlp.router.weight.grad, model.embedding.grad]  # type: ignore[list-item]

    plain, off = gradients(0.0), gradients(1.0, router_aux_loss_coef=0.0, router_z_loss_coef=0.0)
    assert all(torch.equal(a, b) for a, b in zip(plain, off, strict=True))
    whole = gradients(1.0, router_aux_loss_coef=5.0, router_z_loss_coef=2.0)
    half = gradients(0.5, router_aux_loss_coef=5.0, router_z_loss_coef=2.0)
    for base, full, part in zip(plain, whole, half, strict=True):
        assert (full - base).abs().max() > 1e-2
        torch.testing.assert_close(2 * (part - base), full - base, rtol=1e-3, atol=1e-4)


def test_router_statistics_include_the_load() -> None:
    model, _ = model_of("mixtral")
    inputs = torch.randint(0, 100, (3, 16), generator=torch.Generator().manual_seed(0))
    model(inputs, loss_share=1.0)
    found = model.take_router_statistics()
    assert found["load"].shape == (3, 5)
    torch.testing.assert_close(found["load"].sum(dim=1), torch.ones(3))
    assert float(found["imbalance"]) == pytest.approx(5 * float(found["load"].max()))
    assert float(found["balance"]) > 0.9
    assert float(found["z"]) > 0


@pytest.mark.parametrize("how", ["full", "selective"])
def test_recomputation_changes_nothing(how: Literal["full", "selective"]) -> None:
    tokens = torch.randint(0, 100, (2, 17), generator=torch.Generator().manual_seed(0))
    inputs, labels = labels_of(tokens)
    found = []
    for recomputed in (False, True):
        model, _ = model_of("olmoe", router_aux_loss_coef=1.0)
        if recomputed:
            checkpoint_activations(model, how, 1)
        batches = [(inputs, labels, None)]
        accumulate(model, batches, TrainConfig(steps=1, batch_windows=2), torch.tensor(labels.numel()), inputs.numel())
        statistics = model.take_router_statistics()
        found.append([parameter.grad for parameter in model.parameters()] + list(statistics.values()))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("case", ["olmoe", "mixtral-window", "mistral", "olmo3-yarn"])
def test_variants_learn(case: str) -> None:
    model, _ = model_of(case)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    tokens = torch.randint(0, 100, (4, 25), generator=torch.Generator().manual_seed(0))
    inputs, labels = labels_of(tokens)
    train, losses = TrainConfig(steps=1, batch_windows=4), []
    for _ in range(30):
        nats, _ = accumulate(model, [(inputs, labels, None)], train, torch.tensor(labels.numel()), inputs.numel())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(nats))
    assert losses[-1] < 0.2 * losses[0]

"""One step: independent of how the batch is divided, and untouched by numbers that are not finite."""

from __future__ import annotations

import math

import pytest
import torch
from olmo_trainer.config.schema import ModelConfig, OptimizerConfig, StabilityConfig, TrainConfig
from olmo_trainer.device import TensorBatch
from olmo_trainer.metrics.measure import StepStatistics
from olmo_trainer.model.architecture import architecture_of
from olmo_trainer.model.init import initialize
from olmo_trainer.model.loss import IGNORED
from olmo_trainer.model.transformer import Transformer
from olmo_trainer.optim import Clip, GatedOptimizer, build_optimizer
from olmo_trainer.parallel import SINGLE_PROCESS, Gradients
from olmo_trainer.stability import Guard
from olmo_trainer.step import Learner, StepSettings, StepStats, accumulate, labels_of, train_step

CONFIG = ModelConfig(
    family="olmo2",
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    tie_word_embeddings=True,
)


def parts(kind: str = "adamw", **settings: object) -> tuple[Transformer, GatedOptimizer, TrainConfig]:
    model = Transformer(architecture_of(CONFIG, 128))
    initialize(model, CONFIG.init, seed=0)
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=0.01, kind=kind))  # type: ignore[arg-type]
    train = TrainConfig(**{"steps": 5, "batch_windows": 8, **settings})  # type: ignore[arg-type]
    return model, optimizer, train


def batch(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 128, (8, 17), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("loss", ["chunked", "plain"])
def test_loss_and_gradients_do_not_depend_on_the_division_of_the_batch(loss: str) -> None:
    inputs, labels = batch()[:, :-1], batch()[:, 1:].clone()
    labels[0, 2:] = labels[5] = IGNORED  # uneven: a mean of means would differ
    valid = (labels != IGNORED).sum()
    results = []
    for size in (8, 4, 1, 3):
        model, _, train = parts(loss=loss, z_loss=1e-3)
        divided = [(*pair, None) for pair in zip(inputs.split(size), labels.split(size), strict=True)]
        nats, squares = accumulate(model, divided, train, valid, inputs.numel())
        results.append((nats, squares, [parameter.grad.clone() for parameter in model.parameters()]))
    for nats, squares, grads in results[1:]:
        assert abs(float(nats - results[0][0])) <= 1e-6
        torch.testing.assert_close(squares, results[0][1], rtol=1e-5, atol=1e-6)
        for ours, whole in zip(grads, results[0][2], strict=True):
            assert (ours - whole).abs().max() <= 1e-6


def step(
    model: Transformer,
    optimizer: GatedOptimizer,
    tokens: torch.Tensor,
    train: TrainConfig,
    rate: float = 0.01,
    max_norm: float | None = 1.0,
    guard: Guard | None = None,
    clip: Clip | None = None,
    gradients: Gradients | None = None,
    length: int | None = None,
    statistics: StepStatistics | None = None,
    **masks: torch.Tensor,
) -> StepStats:
    learner = Learner(
        model=model,
        optimizer=optimizer,
        guard=guard or Guard(StabilityConfig(), tokens.device),
        gradients=gradients or Gradients(model, SINGLE_PROCESS),
    )
    plan = StepSettings(train=train, learning_rate=rate, clip=clip or Clip(max_norm=max_norm), sequence_length=length)
    return train_step(learner, TensorBatch(tokens, **masks), plan, statistics.tensors if statistics else None)


def everything(model: Transformer, optimizer: GatedOptimizer) -> list[torch.Tensor]:
    moments = [value for parameter in model.parameters() for value in optimizer.state[parameter].values()]
    return [tensor.detach().clone() for tensor in (*model.parameters(), *moments)]


@pytest.mark.parametrize("kind", ["adamw", "lion", "muon"])
@pytest.mark.parametrize(
    ("poison", "first"),
    [(math.nan, True), (math.nan, False), (math.inf, True), (math.inf, False), (1e3, False)],
    ids=["nan-at-first", "nan", "inf-at-first", "inf", "spike"],
)
def test_a_bad_step_changes_no_weight_and_no_moment(kind: str, poison: float, first: bool) -> None:
    """NaN, infinity or a gradient a thousand times too large; then the next step is as if there had been none."""
    clip = Clip(max_ratio=2.0)
    stability = StabilityConfig(outlier_window=8, skip_outliers=True)
    runs = []
    for poisoned in (True, False):
        model, optimizer, train = parts(kind)
        guard = Guard(stability, torch.device("cpu"))
        for seed in range(0 if first else 6):
            assert bool(step(model, optimizer, batch(seed), train, 1e-4, guard=guard, clip=clip).is_accepted)
        if poisoned:
            before, guarded = everything(model, optimizer), guard.capture()
            hook = model.norm.register_forward_hook(lambda module, inputs, output: output * poison)
            stats = step(model, optimizer, batch(20), train, 1e-4, guard=guard, clip=clip)
            hook.remove()
            assert (bool(stats.is_accepted), bool(stats.is_outlier)) == (False, poison == 1e3)
            after = everything(model, optimizer)
            weights = len(list(model.parameters()))
            assert all(torch.equal(a, b) for a, b in zip(before[:weights], after[:weights], strict=True))
            if first:  # moments did not exist: they are zero now
                assert not any(tensor.any() for tensor in after[weights:])
            else:
                assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
            kept = ("accepted_values", "accepted_count")
            assert all(torch.equal(guarded[name], guard.capture()[name]) for name in kept)
        for seed in (7, 8):
            assert bool(step(model, optimizer, batch(seed), train, guard=guard, clip=clip).is_accepted)
        runs.append(everything(model, optimizer))
    for ours, theirs in zip(*runs, strict=True):
        assert torch.equal(ours, theirs)  # the bad step left no trace, not even in the step count


def test_a_gradient_that_is_not_finite_is_caught_where_the_loss_is() -> None:
    model, optimizer, train = parts()
    step(model, optimizer, batch(1), train, 0.01, None)
    before = everything(model, optimizer)
    handle = model.embedding.register_hook(lambda grad: grad * float("nan"))
    stats = step(model, optimizer, batch(2), train, 0.01, None)
    handle.remove()
    assert torch.isfinite(stats.nats_per_token)
    assert not bool(stats.is_accepted)
    assert all(torch.equal(a, b) for a, b in zip(before, everything(model, optimizer), strict=True))


def test_update_is_that_of_torch_with_clipping_by_global_norm() -> None:
    model, optimizer, train = parts()
    other, _, _ = parts()
    decaying = [parameter for name, parameter in other.named_parameters() if "norm" not in name and name != "embedding"]
    still = [parameter for name, parameter in other.named_parameters() if "norm" in name or name == "embedding"]
    groups = [{"params": decaying, "weight_decay": 0.1}, {"params": still, "weight_decay": 0.0}]
    other_optimizer = torch.optim.AdamW(groups, lr=0.02, betas=(0.9, 0.95), eps=1e-8)
    tokens = batch()
    for _ in range(3):
        stats = step(model, optimizer, tokens, train, 0.02, 0.1)
        logits = other.logits(tokens[:, :-1]).flatten(0, 1)
        torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten()).backward()
        norm = torch.nn.utils.clip_grad_norm_(other.parameters(), 0.1)
        other_optimizer.step()
        other_optimizer.zero_grad()
        torch.testing.assert_close(stats.grad_norm, norm, rtol=1e-3, atol=1e-6)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        # Adam makes full steps of the smallest gradients, so single weights may differ; three steps move them by 0.06
        assert float((ours - theirs).detach().abs().mean()) < 1e-4


def test_bfloat16_keeps_weights_in_float32_and_learns() -> None:
    model, optimizer, train = parts()
    model.compute_dtype = torch.bfloat16
    losses = [float(step(model, optimizer, batch(), train).nats_per_token) for _ in range(8)]
    assert losses[-1] < losses[0] - 0.1
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_masks_do_not_depend_on_the_division_and_documents_do_not_see_each_other() -> None:
    """Masked labels, documents and shorter sequences together; one document's loss is that of the document alone."""
    tokens = batch()[:, :16]
    counted = torch.rand(8, 16, generator=torch.Generator().manual_seed(5)) < 0.6
    documents = (torch.arange(16) // 5).expand(8, 16).int()
    results = []
    for micro in (8, 2, 1):
        model, optimizer, train = parts(micro_batch_windows=micro)
        guard = Guard(StabilityConfig(), torch.device("cpu"))
        masks = {"loss_mask_BT": counted, "document_ids_BT": documents}
        stats = step(model, optimizer, tokens, train, guard=guard, clip=Clip(), length=8, **masks)
        assert stats.valid_tokens == int(counted[:, 1:8].sum() + counted[:, 9:].sum())
        results.append((stats.nats_per_token, [parameter.detach().clone() for parameter in model.parameters()]))
    for nats, _ in results[1:]:
        torch.testing.assert_close(nats, results[0][0], rtol=1e-6, atol=1e-6)
    model, _, train = parts()
    inputs, labels = labels_of(tokens, documents >= 2)  # of the last document, tokens 10 to 15
    count = (labels != IGNORED).sum()
    whole, _ = accumulate(model, [(inputs, labels, documents[:, :-1])], train, count, inputs.numel())
    alone, _ = accumulate(model, [(tokens[:, 10:-1], tokens[:, 11:], None)], train, count, inputs.numel())
    assert float(whole) > float(alone) + 0.1  # token 10 is predicted from the document before
    labels[:, 9] = IGNORED
    whole, _ = accumulate(model, [(inputs, labels, documents[:, :-1])], train, count, inputs.numel())
    assert float(whole) == pytest.approx(float(alone), rel=1e-5)


@pytest.mark.parametrize("loss", ["chunked", "plain"])
def test_a_batch_without_a_counted_token_is_refused(loss: str) -> None:
    model, optimizer, train = parts(loss=loss)
    guard = Guard(StabilityConfig(), torch.device("cpu"))
    step(model, optimizer, batch(1), train, guard=guard)
    before, guarded = everything(model, optimizer), guard.capture()
    nothing = torch.zeros(8, 17, dtype=torch.bool)
    stats = step(model, optimizer, batch(2), train, guard=guard, loss_mask_BT=nothing)
    assert (stats.valid_tokens, bool(stats.is_accepted)) == (0, False)
    assert all(torch.equal(a, b) for a, b in zip(before, everything(model, optimizer), strict=True))
    assert torch.equal(guarded["accepted_values"], guard.capture()["accepted_values"])

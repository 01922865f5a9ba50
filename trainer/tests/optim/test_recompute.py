"""Recomputed and compiled blocks are the blocks as they are."""

from __future__ import annotations

import shutil

import pytest
import torch
from olmo_trainer.config.schema import InitConfig, TrainConfig
from olmo_trainer.model.architecture import Architecture, architecture_of
from olmo_trainer.model.init import initialize
from olmo_trainer.model.transformer import Transformer, checkpoint_activations
from olmo_trainer.step import accumulate
from test_step import CONFIG

TRAIN = TrainConfig(batch_windows=8, z_loss=1e-4)


def gradients(model: Transformer) -> tuple[float, list[torch.Tensor], int]:
    """Loss, gradients and the bytes that the forward pass kept for the backward one."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    tokens = torch.randint(0, 128, (8, 33), generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        nats, _ = accumulate(model, [(tokens[:, :-1], tokens[:, 1:], None)], TRAIN, torch.tensor(8 * 32), 8 * 32)
    return float(nats), [parameter.grad.clone() for parameter in model.parameters()], sum(kept.values())


def made(shape: Architecture) -> Transformer:
    model = Transformer(shape)
    initialize(model, InitConfig(), seed=0)
    return model


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("how", ["full", "selective"])
def test_recomputed_gradients_have_the_same_bits_and_less_is_kept(how: str, every: int) -> None:
    shape = architecture_of(CONFIG, 128)
    model = made(shape)
    names = [name for name, _ in model.named_parameters()]
    nats, grads, whole = gradients(model)
    other = made(shape)
    checkpoint_activations(other, how, every)  # type: ignore[arg-type]
    assert [name for name, _ in other.named_parameters()] == names
    found, found_grads, kept = gradients(other)
    assert found == nats
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found_grads, grads, strict=True))
    assert kept < whole
    with torch.no_grad():
        tokens = torch.arange(16)[None]
        assert torch.equal(model.logits(tokens), other.logits(tokens))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch about itself
def test_compiled_blocks_give_the_same_gradients() -> None:
    shape = architecture_of(CONFIG, 128)
    nats, grads, _ = gradients(made(shape))
    other = made(shape)
    for block in other.blocks:
        block.compile()
    found, found_grads, _ = gradients(other)
    assert found == pytest.approx(nats, rel=1e-5)
    for ours, theirs in zip(found_grads, grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)

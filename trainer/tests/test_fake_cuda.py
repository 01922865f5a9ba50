"""A step, a scored batch and a generation on fake CUDA tensors: mixed devices, or a wait, raise without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from olmo_trainer.config.schema import ModelConfig, OptimizerConfig, StabilityConfig, TrainConfig
from olmo_trainer.device import TensorBatch
from olmo_trainer.evaluation import score_windows
from olmo_trainer.model.architecture import architecture_of
from olmo_trainer.model.generate import generate, read_on
from olmo_trainer.model.transformer import Transformer, checkpoint_activations, new_cache
from olmo_trainer.optim import Clip, build_optimizer
from olmo_trainer.parallel import SINGLE_PROCESS, Gradients
from olmo_trainer.stability import Guard
from olmo_trainer.step import Learner, StepSettings, train_step
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

SHAPE: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
CUDA, META = torch.device("cuda", 0), torch.device("meta")


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with FakeTensorMode():
        yield


def model_of(family: str, device: torch.device, **changes: Any) -> Transformer:
    config = ModelConfig(**{"family": family, **SHAPE, **changes})
    with device:
        return Transformer(architecture_of(config, 128), torch.bfloat16)


@pytest.mark.parametrize("device", [CUDA, META], ids=str)
@pytest.mark.parametrize(("family", "rule"), [("olmo2", "adamw"), ("olmo2", "lion"), ("olmo3", "muon")])
def test_a_step_mixes_no_devices_and_waits_for_none(
    family: str, rule: Any, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value of a fake tensor cannot be read: `float()`, `bool()` and `tolist()` raise.

    Autograd cannot run on fake CUDA tensors without a GPU, so the backward pass is that of the meta device.
    """
    model = model_of(family, device, **({"sliding_window": 8} if family == "olmo3" else {}))
    if device == CUDA and not torch.cuda.is_available():

        def backward(loss: torch.Tensor) -> None:
            for parameter in model.parameters():
                parameter.grad = torch.empty_like(parameter)

        monkeypatch.setattr(torch.Tensor, "backward", backward)
    checkpoint_activations(model, "full", 1)
    learner = Learner(
        model=model,
        optimizer=build_optimizer(model, OptimizerConfig(learning_rate=0.01, kind=rule)),
        guard=Guard(StabilityConfig(skip_outliers=True), device),
        gradients=Gradients(model, SINGLE_PROCESS),
    )
    train = TrainConfig(steps=5, batch_windows=4, micro_batch_windows=2, z_loss=1e-4)
    batch = TensorBatch(torch.zeros(4, 17, dtype=torch.long), torch.ones(4, 17, dtype=torch.bool))
    for clip in (Clip(max_norm=1.0), Clip(max_ratio=2.0)):
        stats = train_step(learner, batch, StepSettings(train=train, learning_rate=0.01, clip=clip))
        found = (stats.nats_per_token, stats.grad_norm, stats.is_accepted, stats.is_outlier, stats.valid_tokens)
        assert {tensor.device for tensor in found} == {device}


def test_generation_mixes_no_devices() -> None:
    for family in ("olmo2", "olmo3"):
        model = model_of(family, CUDA, **({"sliding_window": 8} if family == "olmo3" else {}))
        prompt_BT = torch.zeros(2, 12, dtype=torch.long, device=CUDA)
        chosen = list(generate(model, prompt_BT, 3, chunk=5))
        assert [token_B.device for token_B in chosen] == [CUDA] * 3
        caches = new_cache(model.shape, 2, 20, model.compute_dtype, CUDA)
        assert read_on(model, prompt_BT, caches).device == CUDA


def test_a_scored_batch_mixes_no_devices_until_it_is_read() -> None:
    model = model_of("olmo2", CUDA)
    with pytest.raises(DataDependentOutputException):  # `tolist()` of the sums, the one wait of a batch
        score_windows(model, [[1, 2, 3], [4, 5]], [[2, 3, 4], [5, 6]], 8, "documents", ["a", "b"])

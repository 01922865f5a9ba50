"""In bfloat16, products alone are narrow: what sums many terms or compares close ones stays float32."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
from olmo_trainer.config.schema import ModelConfig, OptimizerConfig, StabilityConfig, TrainConfig
from olmo_trainer.model.architecture import architecture_of
from olmo_trainer.model.init import initialize
from olmo_trainer.model.transformer import Transformer
from olmo_trainer.optim import build_optimizer
from olmo_trainer.stability import Guard
from test_step import step
from torch.utils._python_dispatch import TorchDispatchMode

WIDTH, EXPERTS, VOCABULARY = 32, 4, 64
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
DENSE = ModelConfig(family="olmo2", **SIZES)
MIXTURE = ModelConfig(family="olmoe", num_experts=EXPERTS, num_experts_per_tok=2, **SIZES)


class Types(TorchDispatchMode):
    """Which types each operation is given."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[str, set[torch.dtype]] = defaultdict(set)
        self.routing: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [value for value in args if isinstance(value, torch.Tensor) and value.is_floating_point()]
        name = func.overloadpacket.__name__
        self.of[name].update(value.dtype for value in tensors)
        if name in ("mm", "addmm") and tensors[-1].shape == (WIDTH, EXPERTS):
            self.routing.update(value.dtype for value in tensors)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("config", [DENSE, MIXTURE], ids=["dense", "mixture"])
@pytest.mark.parametrize("loss", ["chunked", "plain"])
def test_what_stays_float32(config: ModelConfig, loss: Any) -> None:
    model = Transformer(architecture_of(config, VOCABULARY), torch.bfloat16)
    initialize(model, config.init, seed=0)
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=0.01))
    train = TrainConfig(steps=1, batch_windows=2, dtype="bfloat16", loss=loss, z_loss=1e-4)
    gradients: dict[str, torch.dtype] = {}
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda p, name=name: gradients.update({name: p.grad.dtype}))
    tokens = torch.randint(0, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))
    with Types() as seen:
        guard = Guard(StabilityConfig(), torch.device("cpu"))
        step(model, optimizer, tokens, train, guard=guard)
    narrow, wide = {torch.bfloat16}, {torch.float32}
    attention = {name for name in seen.of if name.startswith("_scaled_dot_product")}
    assert attention
    assert all(seen.of[name] <= narrow | wide and torch.bfloat16 in seen.of[name] for name in attention)
    assert torch.bfloat16 in seen.of["mm"]
    assert seen.of["linalg_vector_norm"] <= {torch.float32, torch.float64}  # norms of layers and of gradients
    assert seen.of["_log_softmax"] == wide
    assert seen.of["_softmax"] <= wide  # the router's
    assert {name for name, kind in gradients.items() if kind != torch.float32} == set()
    assert gradients.keys() == dict(model.named_parameters()).keys()
    assert {parameter.dtype for parameter in model.parameters()} == wide
    assert {value.dtype for state in optimizer.state.values() for value in state.values()} == wide
    if config is MIXTURE:
        assert seen.routing == wide


def test_rotation_turns_in_float32() -> None:
    """Late positions differ by angles that bfloat16 cannot tell apart."""
    from olmo_trainer.model.kernels import rotate
    from olmo_trainer.model.transformer import rotary_table

    cos, sin = rotary_table(4096, 8, 1e4)
    assert (cos.dtype, sin.dtype) == (torch.float32, torch.float32)
    x = torch.randn(1, 1, 4096, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    turned = rotate(x, cos, sin)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rotate(x.float(), cos, sin).bfloat16())

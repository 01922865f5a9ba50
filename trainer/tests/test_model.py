"""The model: equal to transformers in every family both ways, initial loss, sizes, and the hand-written gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from olmo_trainer.checkpoint.layout import from_published, model_json, to_published
from olmo_trainer.config.check import model_problems
from olmo_trainer.config.published import model_settings
from olmo_trainer.config.schema import InitConfig, ModelConfig, RopeScalingConfig
from olmo_trainer.data.sources import SpecialTokens
from olmo_trainer.model.architecture import architecture_of, total_parameters
from olmo_trainer.model.init import initialize
from olmo_trainer.model.kernels import _RMSNorm, _SwiGLU, rotate
from olmo_trainer.model.loss import IGNORED, chunked_loss, plain_loss, token_nats
from olmo_trainer.model.transformer import Transformer, rotary_table
from olmo_trainer.settings import build

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_multiple": 16,
}
FEW: dict[str, Any] = {"num_experts": 5, "num_experts_per_tok": 2}
YARN = RopeScalingConfig(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=8.0)
LLAMA3 = RopeScalingConfig(rope_type="llama3", factor=8.0, original_max_position_embeddings=32)
CASES: dict[str, dict[str, Any]] = {
    "olmo": {"family": "olmo"},
    "olmo-tied-clipped": {"family": "olmo", "tie_word_embeddings": True, "clip_qkv": 0.1},
    "olmo2": {"family": "olmo2"},
    "olmo2-grouped-tied": {"family": "olmo2", "num_key_value_heads": 2, "tie_word_embeddings": True},
    "olmo2-yarn": {"family": "olmo2", "rope_scaling": YARN, "attention_bias": True},
    "olmo3": {"family": "olmo3", "num_hidden_layers": 4, "sliding_window": 7},
    "olmo3-yarn": {"family": "olmo3", "sliding_window": 7, "rope_scaling": YARN, "num_key_value_heads": 2},
    "olmoe": {"family": "olmoe", "num_experts": 6, "num_experts_per_tok": 2},
    "olmoe-clipped": {**FEW, "family": "olmoe", "norm_topk_prob": True, "clip_qkv": 0.3, "router_z_loss_coef": 0.1},
    "llama": {"family": "llama"},
    "llama-grouped-theta": {"family": "llama", "num_key_value_heads": 1, "rope_theta": 5e4, "norm_eps": 1e-3},
    "llama-biased": {"family": "llama", "attention_bias": True, "mlp_bias": True, "rope_scaling": LLAMA3},
    "llama-linear": {"family": "llama", "rope_scaling": RopeScalingConfig(rope_type="linear", factor=2.0)},
    "mistral": {"family": "mistral", "sliding_window": 7, "num_key_value_heads": 2, "head_dim": 12},
    "mistral-full": {"family": "mistral", "norm_eps": 1e-4},
    "mixtral": {**FEW, "family": "mixtral", "num_key_value_heads": 2},
    "mixtral-window": {**FEW, "family": "mixtral", "sliding_window": 7, "head_dim": 16, "rope_scaling": YARN},
}


def model_of(case: str, **changes: Any) -> tuple[Transformer, ModelConfig]:
    config = ModelConfig(**{**SHAPE, **CASES[case], **changes})
    model = Transformer(architecture_of(config, 100))
    initialize(model, InitConfig(std=0.2), seed=1)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:  # norm weights of one and biases of zero would hide a mix-up
            low, high = (-0.5, 0.5) if name.endswith("bias") else (0.5, 1.5)
            torch.nn.init.uniform_(parameter, low, high, generator=torch.Generator().manual_seed(len(name)))
    return model, config


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_of_transformers_both_ways(case: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file, save_file

    model, _ = model_of(case)
    special = SpecialTokens(eos=0, bos=None, pad=1)
    written = model_json(model.shape, special, 64, "float32")
    (tmp_path / "config.json").write_text(json.dumps(written))
    save_file(to_published(model.state_dict(), model.shape), tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens_BT = torch.randint(0, 100, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, ours = theirs(tokens_BT).logits, model.logits(tokens_BT)
    assert expected.shape[-1] == 112  # 100 tokens and padding up to a multiple of 16
    assert expected.abs().max() > 0.5
    assert (expected - ours).abs().max() <= 1e-5

    theirs.save_pretrained(tmp_path / "theirs")
    settings = model_settings(json.loads((tmp_path / "theirs" / "config.json").read_text()), tmp_path)
    read = build(ModelConfig, settings, "config.json")
    assert model_problems(read) == []
    assert architecture_of(read, 100) == model.shape
    again = Transformer(model.shape)
    again.load_state_dict(from_published(load_file(tmp_path / "theirs" / "model.safetensors"), again.shape))
    with torch.no_grad():
        assert torch.equal(again.logits(tokens_BT), ours)


@pytest.mark.parametrize("family", ["olmo3", "llama"])
def test_files_of_older_versions_mean_the_same(family: str, tmp_path: Path) -> None:
    shape = architecture_of(ModelConfig(**{**SHAPE, "family": family, "rope_scaling": YARN, "rope_theta": 2e4}), 100)
    written = model_json(shape, SpecialTokens(eos=0, bos=None, pad=1), 64, "float32")
    assert written["rope_scaling"]["rope_type"] == "yarn"
    older = {name: value for name, value in written.items() if name != "rope_parameters"}
    older["rope_scaling"] = {"type" if name == "rope_type" else name: x for name, x in written["rope_scaling"].items()}
    newer = {name: value for name, value in written.items() if name not in ("rope_theta", "rope_scaling")}
    flat = {**newer, "rope_parameters": {**written["rope_scaling"], "rope_theta": 2e4}}  # transformers 5.0's for OLMo-3
    for config in (older, newer, flat):
        assert architecture_of(build(ModelConfig, model_settings(config, tmp_path), "config.json"), 100) == shape


@pytest.mark.parametrize("case", CASES)
def test_a_token_sees_only_what_came_before(case: str) -> None:
    model, _ = model_of(case)
    tokens_BT = torch.randint(0, 100, (1, 12), generator=torch.Generator().manual_seed(0))
    changed = tokens_BT.clone()
    changed[0, 7] = (changed[0, 7] + 1) % 100
    with torch.no_grad():
        before, after = model.logits(tokens_BT), model.logits(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert (before[:, 7:] - after[:, 7:]).abs().max() > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_counted_parameters_are_the_models(case: str) -> None:
    model, _ = model_of(case)
    assert total_parameters(model.shape) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("z_weight", [0.0, 1e-2])
@pytest.mark.parametrize("ignored", [False, True])
def test_chunked_loss_is_the_plain_one(z_weight: float, ignored: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(150, 24, generator=draw, requires_grad=True)
    weight = torch.randn(40_000, 24, generator=draw, requires_grad=True)  # three chunks of rows
    labels = torch.randint(0, 40_000, (150,), generator=draw)
    if ignored:
        labels[3] = labels[60:100] = IGNORED
    plain = plain_loss(hidden, weight, labels, z_weight, 1 / 100)
    expected = torch.autograd.grad(plain[0], (hidden, weight))
    chunked = chunked_loss(hidden, weight, labels, z_weight, 1 / 100)
    found = torch.autograd.grad(chunked[0] * 3, (hidden, weight))
    torch.testing.assert_close(chunked, plain, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, 3 * theirs, rtol=1e-4, atol=1e-6)
    sums = token_nats(hidden, weight, labels).sum()
    torch.testing.assert_close(sums, plain[1], rtol=1e-5, atol=1e-5)


def test_hand_written_gradients_are_right() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 8, dtype=torch.float64, generator=draw, requires_grad=True)
    weight = torch.randn(8, dtype=torch.float64, generator=draw, requires_grad=True)
    torch.testing.assert_close(_RMSNorm.apply(x, weight, 1e-3), F.rms_norm(x, (8,), weight, 1e-3))
    assert torch.autograd.gradcheck(lambda a, b: _RMSNorm.apply(a, b, 1e-3), (x, weight))
    up, gate = x.chunk(2, dim=-1)
    torch.testing.assert_close(_SwiGLU.apply(x), F.silu(gate) * up)
    assert torch.autograd.gradcheck(_SwiGLU.apply, (x,))


def test_rotation_turns_pairs_and_its_gradient_turns_them_back() -> None:
    cos, sin = rotary_table(5, 6, 100.0)
    x = torch.randn(1, 2, 5, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    turned = rotate(x, cos, sin)
    pairs = torch.complex(x[..., :3], x[..., 3:])
    angles = torch.arange(5.0)[:, None] * 100.0 ** (-torch.arange(0, 6, 2) / 6)
    expected = pairs * torch.polar(torch.ones(5, 3), angles)
    torch.testing.assert_close(turned, torch.cat((expected.real, expected.imag), dim=-1))
    (back,) = torch.autograd.grad(turned, x, turned.detach())  # the transpose of a rotation is its inverse
    torch.testing.assert_close(back, x.detach())

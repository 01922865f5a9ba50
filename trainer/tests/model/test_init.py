"""Initial weights follow the table and their names alone; published shapes have the published sizes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
import yaml
from conftest import settings
from olmo_trainer.config.check import model_problems
from olmo_trainer.config.load import load_config
from olmo_trainer.config.published import PRESETS, apply_preset
from olmo_trainer.config.schema import InitConfig, ModelConfig
from olmo_trainer.formats.contract import ConfigError
from olmo_trainer.model.architecture import architecture_of, flops_per_token, matrix_parameters, total_parameters
from olmo_trainer.model.init import draw, initialize, standard_deviation
from olmo_trainer.model.loss import token_nats
from olmo_trainer.model.transformer import Transformer
from olmo_trainer.settings import build

SHAPE: dict[str, Any] = {
    "family": "llama",
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_multiple": 1,
}
SCHEMES = get_args(get_type_hints(InitConfig)["scheme"])


def model_of(vocabulary: int = 1000, **changes: Any) -> Transformer:
    return Transformer(architecture_of(ModelConfig(**{**SHAPE, **changes}), vocabulary))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("family", ["olmo", "olmo3", "llama", "mixtral"])
def test_initial_loss_is_that_of_a_guess(family: str, scheme: str) -> None:
    model = model_of(family=family)
    init = InitConfig(scheme=scheme)  # type: ignore[arg-type]
    initialize(model, init, seed=0)
    tokens_BT = torch.randint(0, 1000, (16, 33), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        nats = token_nats(model(tokens_BT[:, :-1]).flatten(0, 1), model.output_weight, tokens_BT[:, 1:].flatten())
    # a normalised hidden state makes logits of variance d·σ², which costs half of that over ln V
    std = standard_deviation("head.weight", model.shape, init)
    assert float(nats.mean()) == pytest.approx(math.log(1000) + 128 * std**2 / 2, abs=0.1)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("normal", [0.02, 0.02, 0.02, 0.02, 0.02, 0.02]),
        ("mitchell", [1 / 16, 1 / 16, 1 / 16, 1 / math.sqrt(2 * 256 * 2), 1 / math.sqrt(2 * 512 * 2), 1 / 16]),
        ("full_megatron", [0.02, 0.02, 0.02, 0.01, 0.01, 1 / 16]),
        ("llama", [1.0, 0.02, 0.01, 0.01, 0.01, 1 / 16]),
        ("llama_depth", [1.0, 0.02, 0.01, 0.01, 0.01, 1 / 16]),
        ("fan_in", [1.0, 1 / 16, 1 / 16, 1 / 16, 1 / math.sqrt(512), 1 / 16]),
        ("normalized", [1 / 16, 1 / 16, 1 / 16, 1 / 32, 1 / 32, 1 / 16]),
    ],
)
def test_weights_are_spread_as_the_table_says(scheme: str, expected: list[float]) -> None:
    """Embedding, q k v, up, attention out, down and output matrix of the second of two layers of width 256."""
    model = model_of(hidden_size=256, intermediate_size=512)
    initialize(model, InitConfig(scheme=scheme), seed=5)  # type: ignore[arg-type]
    weights = model.state_dict()
    up, gate = weights["blocks.1.mlp.up_gate.weight"].chunk(2)
    names = ["attention.qkv", "attention.out", "mlp.down"]
    qkv, out, down = (weights[f"blocks.1.{name}.weight"] for name in names)
    for weight, std in zip((weights["embedding"], qkv, up, out, down, weights["head.weight"]), expected, strict=True):
        # a normal cut off at three standard deviations has 0.9866 of its spread
        assert float(weight.std()) == pytest.approx(0.9866 * std, rel=0.02)
        assert float(weight.abs().max()) <= 3.001 * std
    assert float(gate.std()) == pytest.approx(float(qkv.std()), rel=0.03)
    first = {"llama_depth": math.sqrt(2), "mitchell": math.sqrt(2)}.get(scheme, 1.0)
    assert float(weights["blocks.0.mlp.down.weight"].std() / down.std()) == pytest.approx(first, rel=0.02)


def test_experts_are_drawn_as_one_mlp_would_be() -> None:
    model = model_of(family="olmoe", num_experts=4, num_experts_per_tok=2, intermediate_size=96)
    initialize(model, InitConfig(scheme="fan_in"), seed=0)
    weights = model.state_dict()
    for name, inputs in (("router.weight", 128), ("up_gate", 128), ("down", 96)):
        assert float(weights[f"blocks.0.mlp.{name}"].std()) == pytest.approx(0.9866 / math.sqrt(inputs), rel=0.1)


def test_a_weight_depends_only_on_its_name_and_the_seed() -> None:
    small, large = model_of(num_hidden_layers=1), model_of(num_hidden_layers=3, tie_word_embeddings=True)
    initialize(small, InitConfig(), seed=7)
    initialize(large, InitConfig(), seed=7)
    theirs = large.state_dict()
    for name, weight in small.state_dict().items():
        if name != "head.weight":
            assert torch.equal(weight, theirs[name]), name
        assert torch.equal(weight, draw(name, weight.shape, small.shape, InitConfig(), 7))
    assert not torch.equal(theirs["blocks.0.attention.out.weight"], theirs["blocks.1.attention.out.weight"])
    assert not torch.equal(
        theirs["embedding"], draw("embedding", theirs["embedding"].shape, large.shape, InitConfig(), 8)
    )


def test_an_embedding_of_spread_one_is_not_tied() -> None:
    (found,) = model_problems(ModelConfig(**SHAPE, tie_word_embeddings=True, init=InitConfig(scheme="llama")))
    assert found.message.startswith('"model.init.scheme" is llama; expected another')


# (preset, tokens of its tokenizer, parameters); the numbers are those of the safetensors headers of the Hugging Face
# repositories allenai/OLMo-1B-hf, OLMo-7B-hf, OLMo-7B-0424-hf, OLMo-2-0425-1B, OLMo-2-1124-7B, OLMo-2-1124-13B,
# OLMo-2-0325-32B, Olmo-3-1025-7B, Olmo-3-1125-32B, OLMoE-1B-7B-0924, meta-llama/Llama-2-{7b,13b,70b}-hf,
# mistralai/Mistral-7B-v0.1 and Mixtral-8x7B-v0.1
SIZES = [
    ("olmo1-1b", 50280, 1_176_764_416),
    ("olmo1-7b", 50280, 6_888_095_744),
    ("olmo1-7b-0724", 50280, 6_888_095_744),
    ("olmo2-1b", 100278, 1_484_916_736),
    ("olmo2-7b", 100278, 7_298_617_344),
    ("olmo2-13b", 100278, 13_716_198_400),
    ("olmo2-32b", 100278, 32_234_279_936),
    ("olmoe-1b-7b", 50280, 6_919_161_856),
    ("llama2-7b", 32000, 6_738_415_616),
    ("llama2-13b", 32000, 13_015_864_320),
    ("llama2-70b", 32000, 68_976_648_192),
    ("mistral-7b", 32000, 7_241_732_096),
    ("mixtral-8x7b", 32000, 46_702_792_704),
]
# OLMo-3's repositories hold 100,278 rows, without padding
UNPADDED = [("olmo3-7b", 7_298_011_136), ("olmo3-32b", 32_233_522_176)]
# allenai/OLMo configs/tiny are named after their weights without the output matrix, rounded
LADDER = [("ladder-20m", 20e6), ("ladder-60m", 60e6), ("ladder-150m", 150e6), ("ladder-300m", 300e6)]


def preset(name: str, **changes: Any) -> ModelConfig:
    model = build(ModelConfig, {**apply_preset({"preset": name}, "test"), **changes}, "test")
    assert model_problems(model) == []
    return model


def parameters(model: ModelConfig, vocabulary: int) -> int:
    with torch.device("meta"):
        found = sum(parameter.numel() for parameter in Transformer(architecture_of(model, vocabulary)).parameters())
    assert found == total_parameters(architecture_of(model, vocabulary))
    return found


@pytest.mark.parametrize(("name", "vocabulary", "size"), SIZES)
def test_presets_have_the_published_sizes(name: str, vocabulary: int, size: int) -> None:
    assert parameters(preset(name), vocabulary) == size


def test_presets_without_a_published_size_of_their_own() -> None:
    for name, size in UNPADDED:
        assert parameters(preset(name, embedding_size=100278), 100278) == size
        assert parameters(preset(f"{name}-long", embedding_size=100278), 100278) == size
    for name, rough in [*LADDER, ("ladder-700m", 700e6)]:
        shape = architecture_of(preset(name), 50280)
        assert total_parameters(shape) - 50304 * shape.width == pytest.approx(rough, rel=0.07)
    assert parameters(preset("olmo1-65b"), 50280) == pytest.approx(65e9, rel=0.01)
    assert {name for name, *_ in [*SIZES, *UNPADDED, *LADDER]} == set(PRESETS) - {
        "ladder-700m",
        "olmo1-65b",
        "olmo3-7b-long",
        "olmo3-32b-long",
    }


def test_operations_count_what_a_token_meets() -> None:
    seven = architecture_of(preset("olmo2-7b"), 100278)
    assert flops_per_token(seven, 4096) == 6 * matrix_parameters(seven) + 12 * 32 * 4096 * 4096
    windowed = architecture_of(preset("mistral-7b"), 32000)
    assert flops_per_token(windowed, 16384) - 6 * matrix_parameters(windowed) == 12 * 32 * 4096 * 4096
    assert architecture_of(preset("olmo3-7b"), 100278).windows[2:5] == (4096, None, 4096)
    # arXiv 2401.04088 tells 13B active parameters
    mixtral = architecture_of(preset("mixtral-8x7b"), 32000)
    assert matrix_parameters(mixtral) == pytest.approx(12.75e9, rel=0.01)


def test_a_preset_fills_in_what_the_config_leaves_out(made: Path, tmp_path: Path) -> None:
    config = settings(made, tmp_path / "run", model={"preset": "olmo3-7b", "num_hidden_layers": 4})
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    model = load_config(tmp_path / "c.yaml", []).model
    assert (model.family, model.hidden_size, model.num_hidden_layers) == ("olmo3", 4096, 4)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "c.yaml", ["model.preset=olmo3-8b"])
    assert caught.value.problems[0].hint == 'did you mean "olmo3-7b"?'

"""Ranks that share each product do the steps of one: every dense family, beside DDP, FSDP2 and HSDP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from forked import on_ranks
from olmo_trainer.config.schema import (
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    RopeScalingConfig,
    StabilityConfig,
    TrainConfig,
)
from olmo_trainer.data.order import rank_slice
from olmo_trainer.device import TensorBatch
from olmo_trainer.evaluation import score_windows
from olmo_trainer.metrics.measure import StepStatistics
from olmo_trainer.model.architecture import architecture_of
from olmo_trainer.model.init import initialize
from olmo_trainer.model.transformer import Transformer, checkpoint_activations
from olmo_trainer.optim import Clip, build_optimizer
from olmo_trainer.parallel import SINGLE_PROCESS, Gradients, Ranks, distribute, joined_ranks, whole
from olmo_trainer.stability import Guard
from olmo_trainer.step import Learner, StepSettings, train_step

CPU = torch.device("cpu")
NORM = Clip(max_norm=0.5)


def model(family: str, **changes: Any) -> ModelConfig:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    return ModelConfig(family=family, vocab_multiple=4, **{**sizes, **changes})  # type: ignore[arg-type]


# a name, the model, how a step is done, the optimizer's rule, how gradients are clipped
FAMILIES: dict[str, tuple[ModelConfig, dict[str, Any], str, Clip]] = {
    "olmo": (model("olmo", clip_qkv=0.02, tie_word_embeddings=True), {}, "adamw", NORM),
    "olmo2": (model("olmo2", num_key_value_heads=2), {"z_loss": 1e-3}, "adamw", NORM),
    "olmo3": (model("olmo3", sliding_window=5, num_key_value_heads=2), {"loss": "plain", "z_loss": 1e-3}, "muon", NORM),
    "llama": (
        model(
            "llama",
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=True,
            rope_scaling=RopeScalingConfig(rope_type="linear", factor=2.0),
        ),
        {"activation_checkpointing": "selective"},
        "adamw",
        Clip(max_ratio=0.9, keeps_history=True),
    ),
    "mistral": (
        model("mistral", sliding_window=5, num_key_value_heads=2, head_dim=6),
        {"activation_checkpointing": "full"},
        "lion",
        NORM,
    ),
}
LAYOUTS = {
    2: [ParallelConfig(tensor_ranks=2)],
    4: [
        ParallelConfig(tensor_ranks=2),
        ParallelConfig(tensor_ranks=2, kind="fsdp"),
        ParallelConfig(tensor_ranks=2, kind="hsdp", shard_ranks=2),
    ],
}


def case(name: str, parallel: ParallelConfig, ranks: Ranks) -> dict[str, Any]:
    """Two steps of micro-batches, with documents apart and labels masked unevenly: all that a run shows of them."""
    torch.use_deterministic_algorithms(True)
    config, changes, rule, clip = FAMILIES[name]
    shape = architecture_of(config, 101)
    with torch.device("meta"):
        made = Transformer(shape, tensor_parallel=ranks.tensor_parallel)
    distribute(made, made.blocks, parallel, ranks, CPU)
    train = TrainConfig(steps=2, batch_windows=8, micro_batch_windows=2, **changes)
    if train.activation_checkpointing != "none":
        checkpoint_activations(made, train.activation_checkpointing, 1)
    initialize(made, config.init, seed=0)
    optimizer = build_optimizer(made, OptimizerConfig(learning_rate=0.01, kind=rule))  # type: ignore[arg-type]
    gradients, guard = Gradients(made, ranks), Guard(StabilityConfig(), CPU)
    kept: dict[str, torch.Tensor] = {}
    apply = optimizer.step

    def step() -> None:
        for key, parameter in made.named_parameters() if not kept else ():
            assert parameter.grad is not None
            kept[key] = whole(parameter.grad, made.shard_specs.get(key)).clone()
        apply()

    optimizer.step = step  # type: ignore[assignment, method-assign]
    begun = {key: whole(tensor, made.shard_specs.get(key)).clone() for key, tensor in made.state_dict().items()}
    rows, seen = [], {}
    for number in range(2):
        draw = torch.Generator().manual_seed(number)
        tokens = torch.randint(0, 101, (8, 17), generator=draw)
        counted = torch.rand(8, 17, generator=draw) < torch.linspace(0, 1, 8)[:, None] ** 2
        documents = (torch.rand(8, 17, generator=draw) < 0.2).cumsum(dim=1)
        mine = list(rank_slice(range(8), ranks.data_rank, ranks.data_world))
        statistics = StepStatistics(made, optimizer) if number else None
        stats = train_step(
            Learner(model=made, optimizer=optimizer, guard=guard, gradients=gradients),
            TensorBatch(tokens[mine], counted[mine], documents[mine]),
            StepSettings(train=train, learning_rate=0.01, clip=clip),
            statistics.tensors if statistics else None,
        )
        assert stats.valid_tokens == int(counted[:, 1:].sum())
        found = [stats.nats_per_token, stats.grad_norm, stats.clipping_rate, stats.is_accepted]
        rows.append([float(value) for value in [*found, *([] if stats.z_loss is None else [stats.z_loss])]])
        if statistics:
            seen = statistics.values()
    nats = score_windows(made, tokens[:3, :-1].tolist(), tokens[:3, 1:].tolist(), 32, "windows", ["a", "b", "c"])
    weights = {key: whole(tensor.detach(), made.shard_specs.get(key)) for key, tensor in made.state_dict().items()}
    return {"begun": begun, "rows": rows, "gradients": kept, "weights": weights, "nats": nats, "statistics": seen}


def work(world: int, out: str) -> None:
    with joined_ranks("cpu", tensor_ranks=2, timeout_s=60) as ranks:
        rank = ranks.rank
        assert (ranks.data_rank, ranks.tensor_parallel.rank, ranks.data_world) == (rank // 2, rank % 2, world // 2)
        assert float(ranks.sum_of_data(torch.ones(()))) == world // 2
        assert torch.stack(ranks.tensor_parallel.gather(torch.tensor([rank]))).flatten().tolist() == [
            rank - rank % 2,
            rank | 1,
        ]
        found = {
            (name, index): case(name, parallel, ranks)
            for name in FAMILIES
            for index, parallel in enumerate(LAYOUTS[world])
        }
    torch.save(found, f"{out}/{rank}.pt")


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    torch.set_num_threads(1)
    return {name: case(name, ParallelConfig(), SINGLE_PROCESS) for name in FAMILIES}


@pytest.mark.processes
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_that_share_products_do_the_steps_of_one(world: int, alone: dict[str, Any], tmp_path: Path) -> None:
    on_ranks(world, work, world, str(tmp_path))
    each = [torch.load(tmp_path / f"{rank}.pt") for rank in range(world)]
    for name, index in each[0]:
        expected = alone[name]
        for ours in (found[name, index] for found in each):
            assert ours["rows"] == each[0][name, index]["rows"], f"{name}: ranks judge differently"
            for key, tensor in expected["begun"].items():
                assert torch.equal(ours["begun"][key], tensor)
            assert torch.tensor(ours["rows"]) == pytest.approx(torch.tensor(expected["rows"]), rel=1e-5, abs=1e-6)
            assert ours["gradients"].keys() == expected["gradients"].keys()
            for key, gradient in ours["gradients"].items():
                torch.testing.assert_close(gradient, expected["gradients"][key], rtol=0, atol=1e-6)
            for key, weight in ours["weights"].items():
                assert torch.equal(weight, each[0][name, index]["weights"][key])
                torch.testing.assert_close(weight, expected["weights"][key], rtol=0, atol=1e-4)
            assert ours["nats"] == pytest.approx(expected["nats"], rel=1e-5)
            shown = {key: expected["statistics"][key] for key in ours["statistics"]}
            assert len(shown) > 50
            assert ours["statistics"] == pytest.approx(shown, rel=1e-3, abs=1e-6)

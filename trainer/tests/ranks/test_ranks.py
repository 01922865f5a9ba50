"""One rank, two and four do the same steps: DDP, FSDP2 and HSDP, labels masked unevenly, every optimizer."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import on_ranks
from olmo_trainer.config.schema import ModelConfig, OptimizerConfig, ParallelConfig, StabilityConfig, TrainConfig
from olmo_trainer.data.order import rank_slice
from olmo_trainer.device import TensorBatch
from olmo_trainer.model.architecture import architecture_of
from olmo_trainer.model.init import initialize
from olmo_trainer.model.transformer import Transformer
from olmo_trainer.optim import Clip, build_optimizer
from olmo_trainer.parallel import Gradients, Ranks, distribute, joined_ranks, whole
from olmo_trainer.stability import Guard
from olmo_trainer.step import Learner, StepSettings, labels_of, train_step

DENSE = ModelConfig(
    family="olmo2",
    hidden_size=16,
    intermediate_size=26,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    tie_word_embeddings=True,
)
EXPERTS = ModelConfig(
    family="olmoe",
    hidden_size=16,
    intermediate_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_experts=4,
    num_experts_per_tok=2,
)
CPU = torch.device("cpu")


def case(ranks: Ranks, model: ModelConfig, parallel: ParallelConfig, rule: str, clip: Clip) -> dict[str, Any]:
    """Three steps: losses, norms, the first gradients and the last weights, all whole."""
    torch.use_deterministic_algorithms(True)
    shape = architecture_of(model, 128)
    with torch.device("meta"):
        made = Transformer(shape)
    distribute(made, made.blocks, parallel, ranks, CPU)
    initialize(made, model.init, seed=0)
    optimizer = build_optimizer(made, OptimizerConfig(learning_rate=0.01, kind=rule))  # type: ignore[arg-type]
    gradients, guard = Gradients(made, ranks), Guard(StabilityConfig(), CPU)
    train = TrainConfig(steps=3, batch_windows=8, micro_batch_windows=1, z_loss=1e-3)
    kept: dict[str, torch.Tensor] = {}
    apply = optimizer.step

    def step() -> None:
        if not kept:
            kept.update({name: whole(p.grad).clone() for name, p in made.named_parameters() if p.grad is not None})
        apply()

    optimizer.step = step  # type: ignore[assignment, method-assign]
    rows = []
    for number in range(3):
        draw = torch.Generator().manual_seed(number)
        tokens = torch.randint(0, 128, (8, 17), generator=draw)
        counted = torch.rand(8, 17, generator=draw) < torch.linspace(0, 1, 8)[:, None] ** 2
        mine = list(rank_slice(range(8), ranks.rank, ranks.world))
        stats = train_step(
            Learner(model=made, optimizer=optimizer, guard=guard, gradients=gradients),
            TensorBatch(tokens[mine], counted[mine]),
            StepSettings(train=train, learning_rate=0.01, clip=clip),
        )
        assert stats.valid_tokens == int((labels_of(tokens, counted)[1] >= 0).sum())
        rows.append([stats.nats_per_token.item(), stats.z_loss.item(), stats.grad_norm.item()])
        rows[-1] += [stats.clipping_rate.item(), stats.is_accepted.item()]
        statistics = made.take_router_statistics(ranks.sum)
        rows[-1] += [statistics[name].item() for name in ("balance", "z", "imbalance") if statistics]
    weights = {name: whole(tensor.detach()).clone() for name, tensor in made.state_dict().items()}
    return {"rows": torch.tensor(rows), "gradients": kept, "weights": weights}


def cases(world: int) -> dict[str, tuple[ModelConfig, ParallelConfig, str, Clip]]:
    norm, history = Clip(max_norm=0.5), Clip(max_ratio=0.9, keeps_history=True)
    fsdp = ParallelConfig(kind="fsdp")
    found = {
        "ddp adamw": (DENSE, ParallelConfig(), "adamw", norm),
        "fsdp adamw": (DENSE, fsdp, "adamw", norm),
        "fsdp history": (DENSE, ParallelConfig(kind="fsdp", reshard_after_forward=False), "lion", history),
        "fsdp muon": (DENSE, fsdp, "muon", norm),
        "fsdp experts": (EXPERTS, fsdp, "adamw", norm),
    }
    if world == 4 or world == 1:
        found["hsdp adamw"] = (DENSE, ParallelConfig(kind="hsdp", shard_ranks=2), "adamw", norm)
        found["ddp experts"] = (EXPERTS, ParallelConfig(), "adamw", norm)
    return found


def work(world: int, out: str) -> None:
    with joined_ranks("cpu", timeout_s=60) as ranks:
        local_rank = int(os.environ["LOCAL_RANK"])
        assert (ranks.rank, ranks.world, ranks.writes) == (local_rank, world, local_rank == 0)
        assert ranks.agree(f"said by {ranks.rank}") == "said by 0"
        found: dict[str, Any] = {name: case(ranks, *settings) for name, settings in cases(world).items()}
        if world == 2:
            found["types"] = bfloat16(ranks)
    torch.save(found, f"{out}/{local_rank}.pt")


def bfloat16(ranks: Ranks) -> dict[str, set[torch.dtype]]:
    """The types in which FSDP hands out weights, by what they are for, and those of what it leaves."""
    shape = architecture_of(EXPERTS, 128)
    with torch.device("meta"):
        made = Transformer(shape, torch.bfloat16)
    distribute(made, made.blocks, ParallelConfig(kind="fsdp"), ranks, CPU, torch.bfloat16)
    initialize(made, EXPERTS.init, seed=0)
    found: dict[str, set[torch.dtype]] = {}
    for name, module in made.named_modules():
        kind = next((kind for kind in ("norm", "router", "attention.qkv") if name.endswith(kind)), None)
        if kind is not None:
            see = partial(_see, found, kind)
            module.register_forward_pre_hook(see)
            see(module)  # as it is kept between steps
    optimizer = build_optimizer(made, OptimizerConfig(learning_rate=0.01))
    train = TrainConfig(steps=1, batch_windows=4, dtype="bfloat16")
    tokens = torch.randint(0, 128, (2, 17), generator=torch.Generator().manual_seed(ranks.rank))
    gradients = Gradients(made, ranks)
    learner = Learner(model=made, optimizer=optimizer, guard=Guard(StabilityConfig(), CPU), gradients=gradients)
    train_step(learner, TensorBatch(tokens), StepSettings(train=train, learning_rate=0.01, clip=Clip()))
    found["kept"] = {p.dtype for p in made.parameters()}
    found["moments"] = {value.dtype for state in optimizer.state.values() for value in state.values()}
    return found


def _see(found: dict[str, set[torch.dtype]], kind: str, module: torch.nn.Module, *_: Any) -> None:
    found.setdefault(kind, set()).update(parameter.dtype for parameter in module.parameters())


def results(world: int, directory: Path) -> list[dict[str, dict[str, Any]]]:
    """What every rank found."""
    on_ranks(world, work, world, str(directory))
    return [torch.load(directory / f"{rank}.pt") for rank in range(world)]


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    torch.set_num_threads(1)
    return {name: case(Ranks(), *settings) for name, settings in cases(1).items()}


@pytest.mark.processes
@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_ranks_does_the_steps_of_one(world: int, alone: dict[str, Any], tmp_path: Path) -> None:
    each = results(world, tmp_path)
    if world == 2:
        wide, narrow = torch.float32, torch.bfloat16
        kept = {kind: {wide} for kind in ("norm", "router", "kept", "moments")}
        assert each[0]["types"] == {**kept, "attention.qkv": {wide, narrow}}  # sharded, and gathered for a product
    for name in cases(world):
        for ours in (found[name] for found in each):
            assert torch.equal(ours["rows"], each[0][name]["rows"]), f"{name}: ranks judge differently"
            torch.testing.assert_close(ours["rows"], alone[name]["rows"], rtol=1e-5, atol=1e-6)
            assert ours["gradients"].keys() == alone[name]["gradients"].keys()
            for key, gradient in ours["gradients"].items():
                torch.testing.assert_close(gradient, alone[name]["gradients"][key], rtol=0, atol=1e-6)
            for key, weight in ours["weights"].items():
                assert torch.equal(weight, each[0][name]["weights"][key])
                torch.testing.assert_close(weight, alone[name]["weights"][key], rtol=0, atol=1e-4)

"""The steps. Plain data: no defaults are worked out here, no files are looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from .findings import Finding, at_most, more_than_zero, zero_or_more

__all__ = ["BatchPhase", "Duration", "LengthPhase", "ParallelConfig", "TrainConfig", "problems"]


Duration = Annotated[str, 'a duration such as "1000 steps", "2e12T" (tokens), "1ep" (epochs) or "20chinchilla"']


@dataclass(frozen=True, kw_only=True)
class BatchPhase:
    """A smaller batch at the beginning."""

    batch_windows: int
    """Windows in a step."""
    until_tokens: float
    """Tokens after which the next phase begins."""


@dataclass(frozen=True, kw_only=True)
class LengthPhase:
    """Shorter sequences at the beginning: each window is seen as several, in the same order."""

    sequence_length: int
    """Tokens of a piece; it divides `data.sequence_length`."""
    until_tokens: float
    """Tokens after which the next phase begins."""


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How the model is divided among the ranks that torchrun starts; without effect for one process."""

    kind: Literal["ddp", "fsdp", "hsdp"] = "ddp"
    """Weights whole on each rank, sharded over all ranks, or sharded in groups and equal between them."""
    shard_ranks: int | None = None
    """Ranks of a group of `hsdp`: those of a machine, usually."""
    reshard_after_forward: bool = True
    """Whether a block's weights are gathered again for its backward pass; `false` takes memory and saves traffic."""
    tensor_ranks: int = 1
    """Neighbouring ranks that share each matrix product and read the same windows; the other ranks are divided as
    `kind` says. For dense models."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The steps."""

    batch_windows: int
    """Windows in a step."""
    steps: int | None = None
    """Optimizer steps in all."""
    duration: Duration | None = None
    """Instead of `steps`: "1000 steps", "2e12T" (tokens), "1ep" (epochs), "20chinchilla" (times 20 tokens a weight)."""
    stop_at: Duration | None = None
    """Where to stop before the end, as `duration`; the schedule stays that of the whole run, which can be continued."""
    batch_warmup: tuple[BatchPhase, ...] = ()
    """Smaller batches at the beginning."""
    batch_lr_scaling: bool = False
    """Whether a smaller batch has a smaller rate: times the root of its share of `batch_windows`."""
    length_warmup: tuple[LengthPhase, ...] = ()
    """Shorter sequences at the beginning."""
    micro_batch_windows: int | None = None
    """Windows computed at a time; the whole batch when null."""
    z_loss: float = 0.0
    """Weight of the squared log normaliser (OLMo-2: 1e-5)."""
    loss: Literal["chunked", "plain"] = "chunked"
    """`chunked` never holds all logits; `plain` is its reference."""
    recompute: Literal["none", "full", "selective"] = "none"
    """What is computed again in the backward pass: nothing, blocks, or all of them but products and attention."""
    recompute_every: int = 1
    """Of so many blocks, one is computed again."""
    compile: bool = False
    """Whether torch.compile makes kernels for the blocks; needs a C++ compiler on the CPU."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Type of the matrix products; weights and optimizer stay float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes CUDA where there is one."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    num_threads: int | None = None
    """CPU threads; sums depend on it in the last bit. All cores when null."""
    max_skipped_steps: int = 10
    """Consecutive steps that are skipped before the run gives up."""


def problems(train: TrainConfig) -> list[Finding]:
    """What is wrong with the group `train` by itself."""
    found = more_than_zero(
        {
            "train.steps": train.steps,
            "train.batch_windows": train.batch_windows,
            "train.micro_batch_windows": train.micro_batch_windows,
            "train.num_threads": train.num_threads,
            "train.parallel.shard_ranks": train.parallel.shard_ranks,
            "train.parallel.tensor_ranks": train.parallel.tensor_ranks,
            "train.recompute_every": train.recompute_every,
            "train.max_skipped_steps": train.max_skipped_steps,
        }
    ) + zero_or_more({"train.z_loss": train.z_loss})
    found += at_most(2**31, {"train.batch_windows": train.batch_windows})
    found += at_most(4096, {"train.num_threads": train.num_threads})
    if (train.steps is None) == (train.duration is None):
        got = "missing" if train.steps is None else "given beside train.duration"
        found.append(("train.steps", got, "one of train.steps and train.duration", None))
    if (train.parallel.kind == "hsdp") != (train.parallel.shard_ranks is not None):
        text = 'a number of ranks with train.parallel.kind "hsdp", null with another'
        found.append(("train.parallel.shard_ranks", train.parallel.shard_ranks, text, None))
    for name, phases in (("batch_warmup", train.batch_warmup), ("length_warmup", train.length_warmup)):
        ends = [phase.until_tokens for phase in phases]
        if ends != sorted(set(ends)) or any(end <= 0 for end in ends):
            found.append((f"train.{name}", f"until {ends}", "rising numbers of tokens", None))
    sizes = {f"train.batch_warmup.{index}.batch_windows": p.batch_windows for index, p in enumerate(train.batch_warmup)}
    return found + more_than_zero(sizes)

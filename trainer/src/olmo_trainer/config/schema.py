"""Every setting of a run. Plain data: no defaults are worked out here, no files are looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "CheckpointConfig",
    "DataConfig",
    "EnergyConfig",
    "InitConfig",
    "LoggingConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "ScheduleConfig",
    "SourceConfig",
    "TrainConfig",
    "ValidationConfig",
    "WandbConfig",
]

Family = Literal["olmo", "olmo2", "llama"]
TokenDtype = Literal["uint8", "uint16", "uint32"]


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """How weights are drawn before training."""

    scheme: Literal["normal", "mitchell"] = "normal"
    """`normal` (OLMo-2) or `mitchell` (OLMo-1); see model/init.py."""
    std: float = 0.02
    """Standard deviation of `normal`."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The decoder, in the words of transformers' config.json."""

    family: Family
    """`olmo` (OLMo-1), `olmo2` or `llama`; decides norms and their places."""
    hidden_size: int
    """Width of the residual stream."""
    intermediate_size: int
    """Width of the SwiGLU product."""
    num_hidden_layers: int
    """Blocks."""
    num_attention_heads: int
    """Query heads; they share `hidden_size` evenly."""
    num_key_value_heads: int | None = None
    """Key and value heads; as many as query heads when null."""
    rope_theta: float | None = None
    """Base of the rotary angles; the family's own when null (1e4, OLMo-2 5e5)."""
    norm_eps: float | None = None
    """Added to the variance; the family's own when null (1e-5, OLMo-2 1e-6)."""
    tie_word_embeddings: bool = False
    """Whether the output matrix is the embedding."""
    clip_qkv: float | None = None
    """Clamp queries, keys and values to ±this (family `olmo`)."""
    vocab_multiple: int = 128
    """Embedding rows are the tokenizer's vocabulary rounded up to a multiple of this."""
    embedding_size: int | None = None
    """Embedding rows; worked out from the tokenizer when null."""
    init: InitConfig = field(default_factory=InitConfig)


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One directory of token shards."""

    path: str
    """The directory."""
    ratio: float | None = None
    """Share of the training tokens; for all sources or for none (then all tokens once an epoch)."""
    dtype: TokenDtype | None = None
    """Item type, for shards without manifest.json and only for them."""
    eos_token_id: int | None = None
    """Id that ends a document, for shards without manifest.json and only for them."""
    bos_token_id: int | None = None
    """Id that begins a document, for shards without manifest.json and only for them."""
    pad_token_id: int | None = None
    """Id of the padding token, for shards without manifest.json and only for them."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is trained on."""

    sources: tuple[SourceConfig, ...]
    """Directories of token shards."""
    sequence_length: int
    """Tokens in a window; a window predicts one fewer."""
    tokenizer: str | None = None
    """tokenizer.json, where the shards do not bring it."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with decoupled weight decay (arXiv 1711.05101)."""

    learning_rate: float
    """Peak learning rate."""
    betas: tuple[float, ...] = (0.9, 0.95)
    """Decay of the two moments."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.1
    """Share of a weight taken off at learning rate 1."""
    decay_embeddings: bool = False
    """Whether the embedding decays too."""
    decay_norms: bool = False
    """Whether norm weights decay too."""
    max_grad_norm: float | None = 1.0
    """Global norm above which gradients are scaled down; null leaves them."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Learning rate over the steps."""

    kind: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape after the warmup."""
    warmup_steps: int = 0
    """Steps of linear rise from 0."""
    final_ratio: float = 0.1
    """Last learning rate over the peak (not for `constant`)."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The steps."""

    steps: int
    """Optimizer steps in all."""
    batch_windows: int
    """Windows in a step."""
    micro_batch_windows: int | None = None
    """Windows computed at a time; the whole batch when null."""
    z_loss: float = 0.0
    """Weight of the squared log normaliser (OLMo-2: 1e-5)."""
    loss: Literal["chunked", "plain"] = "chunked"
    """`chunked` never holds all logits; `plain` is its reference."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Type of the matrix products; weights and optimizer stay float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes CUDA where there is one."""
    num_threads: int | None = None
    """CPU threads; sums depend on it in the last bit. All cores when null."""
    max_skipped_steps: int = 10
    """Consecutive steps with a loss or gradient that is not finite before the run gives up."""


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Bits per byte on documents, in the loop."""

    documents: tuple[str, ...] = ()
    """Directories of documents (docs/formats/document.md)."""
    every_steps: int | None = None
    """Also within the run, not only at step 0 and the end."""
    documents_per_domain: int | None = None
    """Only the first so many of each source and subdomain."""
    batch_tokens: int = 8192
    """Tokens scored at a time."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state is saved."""

    every_steps: int | None = None
    """Also within the run, not only at the end."""
    keep_last: int | None = None
    """How many checkpoints to keep; all when null."""


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """What is written while training."""

    metrics_every_steps: int = 1
    """Steps between rows of metrics.jsonl."""
    console_every_s: float = 10.0
    """Seconds between lines on the console."""


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Weights & Biases, an optional second place for the metrics."""

    enabled: bool = False
    """Needs the extra `wandb`."""
    project: str = "olmo-trainer"
    """Project name."""
    name: str | None = None
    """Run name."""
    mode: Literal["offline", "online"] = "offline"
    """`offline` writes files only."""


@dataclass(frozen=True, kw_only=True)
class EnergyConfig:
    """Energy is read from RAPL and NVML where the machine has them, else reckoned from a declared wattage."""

    declared_watts: float | None = None
    """Power of the machine, where it cannot be read."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run: the whole of a YAML file."""

    run_directory: str
    """Where everything of the run is written."""
    model: ModelConfig
    data: DataConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    seed: int = 0
    """Of initial weights and data order."""
    init_from: str | None = None
    """Checkpoint to begin from; `model` is then taken from its config.json."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)

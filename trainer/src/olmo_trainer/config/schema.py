"""Every setting of a run, as frozen dataclasses. The text under a field is its help.

Plain data: no defaults are computed and no files are read here; check.py checks values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ..settings import LocalPath

__all__ = [
    "CheckpointConfig",
    "DataConfig",
    "EnergyConfig",
    "GroupConfig",
    "InitConfig",
    "LoggingConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "RopeScalingConfig",
    "RunConfig",
    "ScheduleConfig",
    "SourceConfig",
    "StabilityConfig",
    "TrainConfig",
    "ValidationConfig",
    "WandbConfig",
    "WindowFilterConfig",
]


# ---- model

Family = Literal["olmo", "olmo2", "olmo3", "olmoe", "llama", "mistral", "mixtral"]
LayerType = Literal["sliding_attention", "full_attention"]


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """How weights are drawn before training."""

    scheme: Literal["normal", "mitchell", "full_megatron", "llama", "llama_depth", "fan_in", "normalized"] = "normal"
    """`normal` (OLMo-2, 3), `mitchell` (OLMo-1) and five others; see model/init.py."""
    std: float = 0.02
    """Standard deviation of `normal`, `full_megatron`, `llama` and `llama_depth`."""


@dataclass(frozen=True, kw_only=True)
class RopeScalingConfig:
    """How rotary angles are stretched to a longer context, in transformers' words."""

    rope_type: Literal["linear", "yarn", "llama3"]
    """`linear` divides all frequencies; `yarn` (arXiv 2309.00071) and `llama3` only the low ones."""
    factor: float
    """New length over old."""
    original_max_position_embeddings: int | None = None
    """The old length; needed by `yarn` and `llama3`."""
    beta_fast: float = 32.0
    """`yarn`: turns over the old length from which frequencies stay."""
    beta_slow: float = 1.0
    """`yarn`: turns over the old length below which frequencies are divided."""
    attention_factor: float | None = None
    """`yarn`: factor of queries and keys; 0.1·ln(factor) + 1 when null."""
    low_freq_factor: float = 1.0
    """`llama3`: as `beta_slow`."""
    high_freq_factor: float = 4.0
    """`llama3`: as `beta_fast`."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The decoder, in the words of transformers' config.json."""

    preset: str | None = None
    """A published shape (config/published.py) for settings that are not given here."""
    family: Family
    """Decides norms and their positions, and whether the MLP is one or many experts."""
    hidden_size: int
    """Width of the residual stream."""
    intermediate_size: int
    """Width of the SwiGLU product; of each expert's, where there are experts."""
    num_hidden_layers: int
    """Blocks."""
    num_attention_heads: int
    """Query heads."""
    num_key_value_heads: int | None = None
    """Key and value heads; as many as query heads when null."""
    head_dim: int | None = None
    """Width of a head; `hidden_size` shared evenly when null."""
    attention_bias: bool = False
    """Whether the projections of attention have biases (not `mistral`, `mixtral`)."""
    mlp_bias: bool = False
    """Whether those of the MLP have (`llama`)."""
    rope_theta: float | None = None
    """Base of the rotary angles; the family's own when null."""
    rope_scaling: RopeScalingConfig | None = None
    """Stretching of the rotary angles; in `olmo3` only of full-attention layers."""
    norm_eps: float | None = None
    """Added to the variance; the family's own when null (1e-5, OLMo-2 and OLMo-3 1e-6)."""
    tie_word_embeddings: bool = False
    """Whether the output matrix is the embedding."""
    clip_qkv: float | None = None
    """Clamp queries, keys and values to ±this (`olmo`, `olmoe`)."""
    sliding_window: int | None = None
    """Tokens that a query sees, itself included (`olmo3`, where null is 4096, `mistral`, `mixtral`)."""
    layer_types: tuple[LayerType, ...] | None = None
    """Which layers have the window (`olmo3`); three of four, the last never, when null."""
    num_experts: int | None = None
    """Experts of a layer (`olmoe` 64, `mixtral` 8 when null)."""
    num_experts_per_tok: int | None = None
    """Experts that a token goes to (`olmoe` 8, `mixtral` 2 when null)."""
    norm_topk_prob: bool = False
    """Whether the chosen experts' weights sum to one (`olmoe`; `mixtral`'s always do)."""
    router_aux_loss_coef: float | None = None
    """Weight of the load-balance loss (`olmoe` 0.01, `mixtral` 0.02 when null)."""
    router_z_loss_coef: float | None = None
    """Weight of the router's squared log normaliser (`olmoe` 0.001, `mixtral` 0 when null)."""
    router_balance: Literal["window", "micro_batch"] = "window"
    """What the load is balanced over: `window` does not depend on how a batch is divided, `micro_batch` is OLMoE's."""
    vocab_multiple: int = 128
    """Embedding rows are the tokenizer's vocabulary rounded up to a multiple of this."""
    embedding_size: int | None = None
    """Embedding rows; computed from the tokenizer when null."""
    init: InitConfig = field(default_factory=InitConfig)


# ---- data

TokenDtype = Literal["uint8", "uint16", "uint32"]


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One directory of token shards."""

    path: LocalPath
    """The directory."""
    ratio: float | None = None
    """Share of the training tokens; for all sources or for none (then all tokens once an epoch)."""
    max_tokens: int | None = None
    """Maximum number of tokens to take, in windows spread evenly over the source; all when null."""
    max_repetition: float | None = None
    """How often the run may see the source; a run that would see it more often is refused."""
    label_masks: LocalPath | None = None
    """Directory with a file of the same name for each shard: one byte per token, 1 if predicting it is in the loss."""
    dtype: TokenDtype | None = None
    """Item type, for shards without manifest.json and only for them."""
    eos_token_id: int | None = None
    """Id that ends a document, for shards without manifest.json and only for them."""
    bos_token_id: int | None = None
    """Id that begins a document, for shards without manifest.json and only for them."""
    pad_token_id: int | None = None
    """Id of the padding token, for shards without manifest.json and only for them."""


@dataclass(frozen=True, kw_only=True)
class WindowFilterConfig:
    """Windows that repeat a short sequence many times in a row are excluded from the loss (the values are OLMo-2's)."""

    repetition_min_period: int = 1
    """Length of the shortest such sequence, in tokens."""
    repetition_max_period: int = 13
    """Length of the longest, in tokens."""
    repetition_max_count: int = 32
    """Repetitions in a row that exclude a window."""


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """Reading ahead; does not change the batches."""

    threads: int = 1
    """Reader threads; 0 reads when a batch is needed."""
    ahead: int = 4
    """Batches to read ahead."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is trained on."""

    sources: tuple[SourceConfig, ...]
    """Directories of token shards."""
    sequence_length: int
    """Tokens in a window; a window predicts one fewer."""
    order: Literal["seeded", "legacy"] = "seeded"
    """`legacy` is OLMo's, by seed + epoch, if its files are these: source by source, by name."""
    packing: Literal["concat", "best_fit"] = "concat"
    """`concat` concatenates documents and cuts them into windows; `best_fit` packs whole documents and pads."""
    long_documents: Literal["fragment", "truncate"] = "fragment"
    """With `best_fit`, documents longer than a window: cut into several, or cut off."""
    document_mask: bool = False
    """Whether tokens attend only within their own document."""
    window_filter: WindowFilterConfig | None = None
    """Exclude repetitive windows from the loss; `{}` for OLMo-2's values."""
    tokenizer: LocalPath | None = None
    """tokenizer.json, if the shards have none."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)


# ---- optimizer and schedule

Rule = Literal["adamw", "lion", "muon"]


@dataclass(frozen=True, kw_only=True)
class GroupConfig:
    """Parameters with settings of their own."""

    params: tuple[str, ...]
    """Names or globs, as `embedding` or `blocks.*.mlp.*`."""
    kind: Rule | None = None
    """Rule of the update."""
    learning_rate: float | None = None
    """Peak learning rate; the schedule is the same, scaled."""
    weight_decay: float | None = None
    """Decay of a weight at learning rate 1."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How weights are updated; decay is decoupled from the gradient (arXiv 1711.05101)."""

    learning_rate: float
    """Peak learning rate."""
    kind: Rule = "adamw"
    """With `muon`, AdamW updates embedding, output matrix and vectors, at the same rate."""
    groups: tuple[GroupConfig, ...] = ()
    """Exceptions; a parameter may be in at most one group."""
    betas: tuple[float, ...] = (0.9, 0.95)
    """Decay of the two moments (Lion: 0.9 and 0.99)."""
    momentum: float = 0.95
    """Of Muon."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.1
    """Decay of a weight at learning rate 1."""
    decay_embeddings: bool = False
    """Whether the embedding decays too."""
    decay_norms: bool = False
    """Whether norm weights decay too."""
    max_grad_norm: float | None = 1.0
    """Global norm above which gradients are scaled down; null for no clipping."""
    max_grad_norm_ratio: float | None = None
    """Alternative: multiple of its running mean norm above which the gradient of a parameter is scaled down."""
    clip_warmup_steps: int = 0
    """Steps at the beginning in which the bound is wider."""
    clip_warmup_factor: float = 1.0
    """How many times as wide."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Learning rate over the run. Lengths are in `units`, or shares of the whole if below 1."""

    kind: Literal[
        "cosine",
        "linear",
        "constant",
        "half_cosine",
        "cosine_linear_envelope",
        "inv_sqrt",
        "exponential",
        "power",
        "wsd",
        "wsds",
        "max",
        "sequential",
        "bolt_on",
    ] = "cosine"
    """Shape after the warmup; the formulas are in optim.py."""
    units: Literal["steps", "tokens"] = "steps"
    """Unit of all lengths; with tokens, the shape does not change with the batch size. Not for parts."""
    t_max: float | None = None
    """Where the shape ends; the end of the run when null. May be beyond it (OLMo-2: 5e12 tokens in a run of 4e12)."""
    warmup: float = 0.0
    """Length of the linear rise."""
    warmup_min_lr: float = 0.0
    """Rate from which the warmup rises (OLMo-1: a tenth of the peak)."""
    final_ratio: float = 0.1
    """Last learning rate over the peak (not for `constant`, `inv_sqrt` and `power`)."""
    decay: float = 0.1
    """Length of the decay at the end (`wsd`) or at the end of every period (`wsds`)."""
    periods: tuple[float, ...] = ()
    """Where the periods of `wsds` end, rising; the last one ends at `t_max`."""
    scale: float = 0.0
    """a of `power`, min(peak, a·tᵇ)."""
    exponent: float = -0.51
    """b of `power` (arXiv 2408.13359, table 3)."""
    warmup_from: float = 0.0
    """Where the warmup of `bolt_on` begins; the rate is 0 before."""
    length: float | None = None
    """Length of this part of a `sequential` schedule; the last part has none."""
    parts: tuple[ScheduleConfig, ...] = ()
    """What `max`, `sequential` (each from the rate at which the last ended) and `bolt_on` are made of."""


# ---- train

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
    """Shorter sequences at the beginning: each window is cut into several, in the same order."""

    sequence_length: int
    """Tokens of a piece; it divides `data.sequence_length`."""
    until_tokens: float
    """Tokens after which the next phase begins."""


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How the model is divided over the ranks that torchrun starts; no effect with one process."""

    kind: Literal["ddp", "fsdp", "hsdp"] = "ddp"
    """Weights whole on each rank, sharded over all ranks, or sharded in groups and equal between them."""
    shard_ranks: int | None = None
    """Ranks per group of `hsdp`, usually those of a machine."""
    reshard_after_forward: bool = True
    """Whether a block's weights are gathered again for its backward pass; `false` uses more memory and less traffic."""
    tensor_ranks: int = 1
    """Neighbouring ranks that share each matrix product and read the same windows; `kind` applies to the groups.
    Only for dense models."""


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
    """Where to stop early, like `duration`; the schedule stays that of the whole run, which can be continued."""
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
    activation_checkpointing: Literal["none", "full", "selective"] = "none"
    """What is kept for the backward pass: everything, only the blocks' inputs, or also products and attention."""
    activation_checkpointing_every: int = 1
    """Apply it to every n-th block."""
    compile: bool = False
    """Whether to compile the blocks with torch.compile; on the CPU this needs a C++ compiler."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the matrix products; weights and optimizer stay float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes CUDA where there is one."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    num_threads: int | None = None
    """CPU threads; all cores when null. The last bit of sums depends on it."""
    max_skipped_steps: int = 10
    """Consecutive skipped steps after which the run gives up."""


# ---- stability


@dataclass(frozen=True, kw_only=True)
class StabilityConfig:
    """Outliers: steps whose loss or gradient norm is far above those of the steps before."""

    skip_outliers: bool = False
    """Whether an outlier leaves weights and moments as they are (OLMo-3's SkipStep); what is not finite always does."""
    outlier_window: int = 128
    """Number of previous steps to compare with; none is an outlier before half of them exist."""
    outlier_sigma: float = 6.0
    """Standard deviations above their mean."""
    rewind_after: int | None = None
    """Bad steps in a row (not finite, or outliers) after which the run goes back to before them and skips them."""
    max_rewinds: int = 3
    """How often it may go back before it gives up."""
    slow_rise_steps: int = 1000
    """Steps over which the loss is smoothed, to see whether it rises."""
    slow_rise_nats: float = 0.05
    """Rise above the lowest smoothed loss that triggers the action; checked every `slow_rise_steps`."""
    slow_rise_action: Literal["warn", "stop"] = "warn"
    """`stop` saves, says what was seen and ends with status 1; no batch is to blame, so none is skipped."""


# ---- validation


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """A multiple-choice task, scored in the loop."""

    name: str
    """In the names of its metrics: `eval/downstream/<name>_<metric>`."""
    path: LocalPath
    """Its requests.jsonl.gz (OLMo's in-loop layout): a row a choice."""


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Bits per byte on documents and choices of tasks, in the loop."""

    documents: tuple[LocalPath, ...] = ()
    """Directories of documents (docs/formats/document.md)."""
    every_steps: int | None = None
    """Also within the run, not only at step 0 and the end."""
    documents_per_domain: int | None = None
    """Limit of documents for each source and subdomain."""
    tasks: tuple[TaskConfig, ...] = ()
    """Multiple-choice tasks."""
    items_per_task: int | None = None
    """Limit of questions for each task."""
    batch_tokens: int = 8192
    """Tokens scored at a time."""


# ---- checkpoint, logging, wandb, energy


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state is saved."""

    every_steps: int | None = None
    """Also within the run, not only at the end."""
    keep_last: int | None = None
    """How many checkpoints to keep besides the pinned ones; all when null."""
    pin: tuple[int, ...] = ()
    """Steps whose checkpoints are never deleted."""
    pin_every_steps: int | None = None
    """Checkpoints of multiples of this number of steps are never deleted either."""
    sharded: bool = False
    """Whether each rank writes its part of the optimizer's moments, instead of the first gathering them."""
    background: bool = False
    """Whether files are written while training continues; needs memory for a copy of the state."""
    remote: str | None = None
    """Where whole checkpoints are copied to after they are written: a URL that fsspec knows, as "s3://bucket/run". A
    run whose directory has no checkpoint resumes from the newest complete one there."""


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """What is written while training."""

    metrics_every_steps: int = 1
    """Steps between rows of metrics.jsonl; saved and validated steps have a row too. Other steps do not wait for the
    device."""
    statistics_every_steps: int | None = 50
    """Steps between rows with minimum, maximum, mean and norm of every weight, gradient, moment and block's output;
    never when null."""
    measure_peak: bool = False
    """Whether to measure the device's rate of matrix products, for MFU, if its peak is unknown; takes a second."""
    tensorboard: bool = False
    """Whether to write the metrics for TensorBoard too, to `tensorboard/`; needs the extra `tensorboard`."""
    console_every_s: float = 10.0
    """Seconds between lines on the console."""


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Weights & Biases, an optional copy of the metrics."""

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
    """Energy is read from RAPL and NVML where the machine has them, else computed from a declared wattage."""

    declared_watts: float | None = None
    """Power of each machine, if it cannot be read; a dry run assumes one machine."""
    pue: float = 1.0
    """Power usage effectiveness: power of the data centre over power of its machines."""
    grid_kg_per_kwh: float | None = None
    """Carbon dioxide equivalents of the grid's energy; no carbon is reported when null."""


# ---- the whole


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run: the whole of a YAML file."""

    output_dir: LocalPath
    """Directory for all outputs of the run."""
    model: ModelConfig
    data: DataConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    seed: int = 0
    """Seed of initial weights and data order."""
    init_from: LocalPath | None = None
    """Checkpoint to start from; `model` is then taken from its config.json."""
    init_tokenizer: Literal["same", "other"] = "same"
    """Whether `init_from` must have the shards' tokenizer; with `other`, the ids may mean
    other tokens to the model."""
    init_moments: bool = False
    """Whether to start with its optimizer's moments too, from its `training/`."""
    anneal: LocalPath | None = None
    """Checkpoint to anneal: start from it with its learning rate, which falls linearly to 0. Sets `init_from`,
    `init_moments`, `optimizer.learning_rate` and `schedule`, unless they are given."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    stability: StabilityConfig = field(default_factory=StabilityConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)

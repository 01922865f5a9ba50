"""The settings of `sft`, `dpo` and `chat`, with their defaults. No torch here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from .formats.contract import Problem
from .settings import LocalPath, load

__all__ = [
    "FORMER_NAMES",
    "DataSettings",
    "DpoConfig",
    "EncodingSettings",
    "LoraSettings",
    "OptimizerSettings",
    "PairDataSettings",
    "PreferenceLoss",
    "RuntimeSettings",
    "SamplingSettings",
    "SequenceSettings",
    "SftConfig",
    "TemplateSettings",
    "TrainingRun",
    "TrainingSettings",
    "load_config",
]

FORMER_NAMES = {
    "optimizer.lr": "optimizer.learning_rate",
    "runtime.precision": "runtime.dtype",
    "training.batch_size": "training.batch_sequences",
    "training.micro_batch_size": "training.micro_batch_sequences",
    "training.eval_batch_size": "training.eval_batch_sequences",
}
"""Former name of a setting -> its name. Former names are accepted, and manifests still contain them."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where the rows come from: files or directories of docs/formats/chat.md (sft) or preference.md (dpo)."""

    train: list[LocalPath]
    """Files or directories with the rows to train on, read in this order."""
    eval: list[LocalPath] = field(default_factory=list)
    """Files or directories with rows held out for evaluation."""
    eval_fraction: float = 0.0
    """Instead of `eval`: fraction of the training rows to hold out, chosen by the hash of each row's text."""


@dataclass(frozen=True, kw_only=True)
class PairDataSettings(DataSettings):
    """Where the pairs come from."""

    identical_answers: Literal["refuse", "drop"] = "refuse"
    """What to do with a pair of equal answers: refuse the run and name the row, or drop the pair and count it."""


@dataclass(frozen=True, kw_only=True)
class TemplateSettings:
    """How messages become text."""

    name: LocalPath | None = None
    """Name of a shipped template, or a `.jinja` file; null: the checkpoint's template if it has one, else `tulu`."""
    add_bos: bool = False
    """Begin each conversation with the tokenizer's beginning-of-sequence token."""
    special_tokens: list[str] = field(default_factory=list)
    """For a `.jinja` file: the texts in it that must be single tokens; the tokenizer gets those that it lacks."""


@dataclass(frozen=True, kw_only=True)
class SequenceSettings:
    """How token sequences become batches."""

    max_length_tokens: int = 2048
    """Longest sequence; lowered, with a warning, to the model's maximum number of positions."""
    too_long: Literal["truncate", "drop"] = "truncate"
    """What to do with a longer sequence; either is counted and reported."""
    packing: bool = False
    """Pack several conversations into one sequence; they do not attend to each other (sft only)."""


@dataclass(frozen=True, kw_only=True)
class EncodingSettings:
    """How rows become token ids; nothing here changes the result."""

    num_processes: int = 1
    """Processes that encode; worth it from some ten thousand rows."""
    cache: LocalPath | None = None
    """Directory for encoded rows, found by the hash of all that they depend on; null: encode in every run."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW and its schedule."""

    learning_rate: float = 2e-5
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Shape after the warm-up; linear and cosine end at 0."""
    warmup_fraction: float = 0.03
    """Fraction of the steps in which the learning rate rises from 0."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.999
    """Decay of the second moment."""
    epsilon: float = 1e-8
    """Added to the denominator."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this global norm; 0 turns clipping off."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How long, how large, how often."""

    num_epochs: float = 2.0
    """Passes over the training rows."""
    max_steps: int | None = None
    """Optimizer steps; overrides `num_epochs`."""
    batch_sequences: int = 128
    """Sequences (in dpo: pairs) in one optimizer step, of all processes together."""
    micro_batch_sequences: int = 8
    """Sequences in one forward pass of a process; times the processes, divides `batch_sequences`. The loss does not
    depend on it."""
    eval_batch_sequences: int = 16
    """Sequences in one forward pass of the evaluation."""
    neftune_alpha: float | None = None
    """Noise on the embeddings in training (sft only; Jain et al. 2023, arXiv:2310.05914); 5 to 15 is usual."""
    group_by_length: bool = False
    """Put rows of similar length into the same batch, which saves padding."""
    report_to: list[Literal["tensorboard", "wandb"]] = field(default_factory=list)
    """Also log to these. TensorBoard's files are in `<output_dir>.tensorboard`; wandb reads its own variables."""
    log_every_steps: int = 10
    """Write a row of metrics.jsonl every so many steps."""
    eval_every_steps: int | None = None
    """Evaluate on the held-out rows every so many steps, in addition to the beginning and the end."""
    save_every_steps: int | None = None
    """Save what a resumed run needs every so many steps; null: an interrupted run starts over."""


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters instead of all weights (Hu et al. 2021, arXiv:2106.09685)."""

    rank: int = 64
    """Rank of the update."""
    alpha: float = 16.0
    """The update is scaled by alpha / rank."""
    dropout: float = 0.1
    """Dropout on the adapter's input."""
    target_modules: list[str] | None = None
    """Names of the matrices that get an adapter; null: all linear layers except the output."""
    keep_adapter: bool = False
    """Also save the adapter, in `adapter/`; it is merged into the checkpoint's weights either way."""


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings:
    """Device and precision."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda if there is a GPU."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: automatic mixed precision; the weights stay float32."""
    num_threads: int | None = None
    """CPU threads of torch; null: its own choice. On a CPU the last bits of the weights depend on it."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass, which saves memory."""
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    """Data type of the saved weights."""


@dataclass(frozen=True, kw_only=True)
class PreferenceLoss:
    """Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290)."""

    kind: Literal[
        "sigmoid",
        "sigmoid_norm",
        "ipo",
        "simpo",
        "robust",
        "hinge",
        "apo_zero",
        "apo_down",
        "sppo_hard",
        "nca_pair",
    ] = "sigmoid"
    """sigmoid: equation 7 of the paper; sigmoid_norm: per token (Tulu 3's `dpo_norm`); simpo: without a reference."""
    beta: float = 0.1
    """Strength of the constraint to stay near the reference model."""
    label_smoothing: float = 0.0
    """Assumed fraction of swapped labels, with kind `sigmoid`, `sigmoid_norm`, `simpo` or `robust`."""
    gamma_beta_ratio: float = 0.3
    """With kind `simpo`: by how much ln p per token of the chosen answer should exceed that of the rejected one."""
    precompute_reference: bool = True
    """Score all rows with the reference once, before training; false: keep a second model and score each batch."""

    @property
    def needs_reference(self) -> bool:
        """Whether the loss compares with a reference model."""
        return self.kind != "simpo"


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How `chat` generates an answer."""

    max_new_tokens: int = 256
    """Longest answer, in tokens."""
    temperature: float = 0.7
    """0 = greedy decoding."""
    top_p: float = 1.0
    """Sample from the most likely tokens whose probabilities sum to this."""
    seed: int = 0
    """Seed of the sampling."""


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """`open-instruct sft`."""

    model: LocalPath
    """Checkpoint directory to start from (docs/formats/checkpoint.md, or any Hugging Face directory)."""
    output_dir: LocalPath
    """Directory for the new checkpoint; must not exist, unless it contains the result of the same settings."""
    seed: int = 0
    """Seed of the order of rows, of adapters and of dropout."""
    data: DataSettings
    template: TemplateSettings = field(default_factory=TemplateSettings)
    sequence: SequenceSettings = field(default_factory=SequenceSettings)
    encoding: EncodingSettings = field(default_factory=EncodingSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    loss_reduction: Literal["token", "sum", "example"] = "token"
    """What weighs the same in a batch: each trained token, or (example) each conversation; sum: the sum over a
    conversation's tokens, averaged over conversations, as in Tulu 3, whose learning rates belong to it."""
    lora: LoraSettings | None = None
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)

    def problems(self) -> list[Problem]:
        """List the problems that the types of single fields do not show."""
        return _problems(self) + _encoding_problems(self.encoding)


@dataclass(frozen=True, kw_only=True)
class DpoConfig:
    """`open-instruct dpo`."""

    model: LocalPath
    """Checkpoint directory to start from, the result of `sft`; it is also the reference model."""
    output_dir: LocalPath
    """Directory for the new checkpoint; must not exist, unless it contains the result of the same settings."""
    seed: int = 0
    """Seed of the order of rows, of adapters and of dropout."""
    data: PairDataSettings
    template: TemplateSettings = field(default_factory=TemplateSettings)
    sequence: SequenceSettings = field(default_factory=SequenceSettings)
    encoding: EncodingSettings = field(default_factory=EncodingSettings)
    loss: PreferenceLoss = field(default_factory=PreferenceLoss)
    optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(learning_rate=5e-7, warmup_fraction=0.1)
    )
    training: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(num_epochs=1.0, batch_sequences=32, micro_batch_sequences=4)
    )
    lora: LoraSettings | None = None
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)

    def problems(self) -> list[Problem]:
        """List the problems that the types of single fields do not show."""
        found = _problems(self) + _encoding_problems(self.encoding)
        if self.sequence.packing:
            found.append(Problem('"sequence.packing" is true; expected false, pairs are not packed'))
        if self.training.neftune_alpha is not None:
            found.append(Problem(f'"training.neftune_alpha" is {self.training.neftune_alpha}; expected null in dpo'))
        if self.loss.beta <= 0:
            found.append(Problem(f'"loss.beta" is {self.loss.beta}; expected a number above 0'))
        if not 0 <= self.loss.label_smoothing < 0.5:
            found.append(
                Problem(f'"loss.label_smoothing" is {self.loss.label_smoothing}; expected 0 or more and below 0.5')
            )
        smoothed = ("sigmoid", "sigmoid_norm", "simpo", "robust")
        if self.loss.label_smoothing and self.loss.kind not in smoothed:
            found.append(
                Problem(
                    f'"loss.label_smoothing" is {self.loss.label_smoothing} with kind "{self.loss.kind}"; expected 0',
                    "use kind " + ", ".join(f'"{kind}"' for kind in smoothed[:-1]) + f' or "{smoothed[-1]}"',
                )
            )
        if self.loss.gamma_beta_ratio < 0:
            found.append(Problem(f'"loss.gamma_beta_ratio" is {self.loss.gamma_beta_ratio}; expected 0 or more'))
        return found


class TrainingRun(Protocol):
    """What the settings of every stage that trains have."""

    @property
    def model(self) -> str: ...
    @property
    def output_dir(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def data(self) -> DataSettings: ...
    @property
    def template(self) -> TemplateSettings: ...
    @property
    def sequence(self) -> SequenceSettings: ...
    @property
    def optimizer(self) -> OptimizerSettings: ...
    @property
    def training(self) -> TrainingSettings: ...
    @property
    def lora(self) -> LoraSettings | None: ...
    @property
    def runtime(self) -> RuntimeSettings: ...


_RANGES: list[tuple[str, Callable[[Any], bool], str]] = [
    ("0 or more", lambda value: value >= 0, "optimizer.weight_decay optimizer.max_grad_norm"),
    (
        "0 or more and below 1",
        lambda value: 0 <= value < 1,
        "data.eval_fraction optimizer.warmup_fraction lora.dropout",
    ),
    (
        "1 or more",
        lambda value: value >= 1,
        "training.batch_sequences training.micro_batch_sequences training.eval_batch_sequences "
        "training.log_every_steps lora.rank",
    ),
    (
        "1 or more, or null",
        lambda value: value is None or value >= 1,
        "training.max_steps training.eval_every_steps training.save_every_steps runtime.num_threads",
    ),
    ("a number above 0, or null", lambda value: value is None or value > 0, "training.neftune_alpha"),
    ("2 or more", lambda value: value >= 2, "sequence.max_length_tokens"),
    ("a number above 0", lambda value: value > 0, "optimizer.learning_rate training.num_epochs"),
]


def _problems(config: TrainingRun) -> list[Problem]:
    found = []
    if not config.data.train:
        found.append(Problem('"data.train" is empty; expected at least one file or directory'))
    for expected, is_right, names in _RANGES:
        for name in names.split():
            if name.startswith("lora.") and config.lora is None:
                continue
            value = attrgetter(name)(config)
            if not is_right(value):
                found.append(Problem(f'"{name}" is {value}; expected {expected}'))
    if config.data.eval and config.data.eval_fraction > 0:
        sentence = (
            f'"data.eval_fraction" is {config.data.eval_fraction}, but "data.eval" is set; expected one of the two'
        )
        found.append(Problem(sentence, "set data.eval_fraction to 0"))
    batch, micro_batch = config.training.batch_sequences, config.training.micro_batch_sequences
    if micro_batch >= 1 and batch % micro_batch:
        sentence = f'"training.micro_batch_sequences" is {micro_batch}, which does not divide the batch size {batch}'
        divisor = _largest_divisor(batch, micro_batch)
        found.append(Problem(f"{sentence}; expected a divisor", f"set training.micro_batch_sequences to {divisor}"))
    return found


def _encoding_problems(encoding: EncodingSettings) -> list[Problem]:
    if encoding.num_processes >= 1:
        return []
    return [Problem(f'"encoding.num_processes" is {encoding.num_processes}; expected 1 or more')]


def _largest_divisor(number: int, limit: int) -> int:
    return next((size for size in range(min(limit, number), 0, -1) if number % size == 0), 1)


Config = TypeVar("Config")


def load_config(kind: type[Config], path: Path, overrides: list[str]) -> Config:
    """Read the settings of a command; former names of settings are accepted.

    Raises: ConfigError: with every problem.
    """
    return load(kind, path, overrides, former_names=FORMER_NAMES)

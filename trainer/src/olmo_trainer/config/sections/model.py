"""The decoder and how its weights are drawn. Plain data: no defaults are worked out here, no files are looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .findings import Finding, at_most, more_than_zero, zero_or_more

__all__ = ["Family", "InitConfig", "LayerType", "ModelConfig", "RopeScalingConfig", "problems"]

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
    """A published shape, config/presets.py, for what is not said here."""
    family: Family
    """Decides norms and their places, and whether the MLP is one or many experts."""
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
    """Stretching of the rotary angles; in `olmo3` of full-attention layers alone."""
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
    """Embedding rows; worked out from the tokenizer when null."""
    init: InitConfig = field(default_factory=InitConfig)


_ONLY: dict[str, tuple[str, ...]] = {
    "attention_bias": ("olmo", "olmo2", "olmo3", "olmoe", "llama"),
    "mlp_bias": ("llama",),
    "clip_qkv": ("olmo", "olmoe"),
    "sliding_window": ("olmo3", "mistral", "mixtral"),
    "layer_types": ("olmo3",),
    "num_experts": ("olmoe", "mixtral"),
    "num_experts_per_tok": ("olmoe", "mixtral"),
    "norm_topk_prob": ("olmoe",),
    "router_aux_loss_coef": ("olmoe", "mixtral"),
    "router_z_loss_coef": ("olmoe", "mixtral"),
}
"""Options that transformers' classes have in these families alone."""


_LIMITS = {
    10_000: "num_hidden_layers",
    2**16: "num_attention_heads num_key_value_heads num_experts num_experts_per_tok",
    2**20: "hidden_size head_dim vocab_multiple",
    2**24: "intermediate_size",
    2**28: "embedding_size",
}
"""Far larger than any model, yet small enough to compute with."""


def problems(model: ModelConfig) -> list[Finding]:
    """What is wrong with the group `model` by itself."""
    names = (
        "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim rope_theta "
        "norm_eps clip_qkv sliding_window num_experts num_experts_per_tok vocab_multiple embedding_size"
    )
    found = more_than_zero({f"model.{name}": getattr(model, name) for name in names.split()})
    for limit, several in _LIMITS.items():
        found += at_most(limit, {f"model.{name}": getattr(model, name) for name in several.split()})
    found += more_than_zero({"model.init.std": model.init.std})
    found += zero_or_more({f"model.{name}": getattr(model, name) for name in _ONLY if name.endswith("_coef")})
    for name, families in _ONLY.items():
        value = getattr(model, name)
        if value not in (None, False) and model.family not in families:
            text = f"nothing, since transformers has it in {', '.join(families)} alone"
            found.append((f"model.{name}", value, text, f'use family "{families[0]}"'))
    return found + _heads(model) + _layers(model) + _scaling(model)


def _heads(model: ModelConfig) -> list[Finding]:
    found: list[Finding] = []
    width, heads = model.hidden_size, model.num_attention_heads
    groups = model.num_key_value_heads
    if model.head_dim is None and width > 0 and heads > 0 and (width % heads or (width // heads) % 2):
        text = f"a number of heads that share hidden_size {width} in even widths"
        found.append(("model.num_attention_heads", heads, text, None))
    if model.head_dim is not None and model.head_dim % 2:
        found.append(("model.head_dim", model.head_dim, "an even number", None))
    if model.head_dim is not None and model.family == "olmoe" and model.head_dim * heads != width:
        text = "hidden_size / num_attention_heads, which OlmoeForCausalLM fixes"
        found.append(("model.head_dim", model.head_dim, text, None))
    if groups is not None and groups > 0 and heads % groups:
        found.append(("model.num_key_value_heads", groups, f"a divisor of num_attention_heads {heads}", None))
    if model.tie_word_embeddings and model.init.scheme in ("llama", "llama_depth", "fan_in"):
        text = "another, since the embedding's standard deviation of one would be the output matrix's too"
        found.append(("model.init.scheme", model.init.scheme, text, "do not tie them"))
    if model.family == "olmo" and model.norm_eps not in (None, 1e-5):
        found.append(("model.norm_eps", model.norm_eps, "1e-05, which OlmoForCausalLM fixes", None))
    return found


def _layers(model: ModelConfig) -> list[Finding]:
    found: list[Finding] = []
    if model.layer_types is not None and len(model.layer_types) != model.num_hidden_layers:
        text = f"one for each of {model.num_hidden_layers} layers"
        found.append(("model.layer_types", f"of {len(model.layer_types)} items", text, None))
    experts, chosen = model.num_experts, model.num_experts_per_tok
    if experts is not None and chosen is not None and chosen > experts:
        found.append(("model.num_experts_per_tok", chosen, f"at most num_experts {experts}", None))
    return found


def _scaling(model: ModelConfig) -> list[Finding]:
    scaling = model.rope_scaling
    if scaling is None:
        return []
    values = {name: getattr(scaling, name) for name in ("original_max_position_embeddings", "attention_factor")}
    found = more_than_zero({f"model.rope_scaling.{name}": value for name, value in values.items()})
    if scaling.factor < 1:
        found.append(("model.rope_scaling.factor", scaling.factor, "1 or more", None))
    if scaling.rope_type != "linear" and scaling.original_max_position_embeddings is None:
        name = "model.rope_scaling.original_max_position_embeddings"
        found.append((name, "null", "the length that the model was trained at before", None))
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        name = "model.rope_scaling.high_freq_factor"
        found.append((name, scaling.high_freq_factor, f"more than low_freq_factor {scaling.low_freq_factor}", None))
    return found

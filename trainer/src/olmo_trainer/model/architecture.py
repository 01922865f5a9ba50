"""A model's complete shape, the seven families in its terms, its parameters and FLOPs, and how tensor groups divide it.

FLOPs as in PaLM's appendix B (arXiv 2204.02311), torchtitan and OLMo-core: 6 per matrix weight that a token is
multiplied with, and 12·heads·head width·min(length, window) per layer and token. The embedding lookup, the causal half
and recomputation are not counted.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

from ..config.schema import ModelConfig, RopeScalingConfig
from ..formats.contract import Problem
from ..parallel import ShardSpec, TensorParallel
from ..settings import SettingError

__all__ = [
    "Architecture",
    "Routing",
    "architecture_of",
    "check_divisible",
    "flops_per_token",
    "resolved",
    "shard_specs",
    "total_parameters",
]


@dataclass(frozen=True, kw_only=True)
class Routing:
    """How tokens are routed to experts (moe.py)."""

    experts: int
    chosen: int
    """Experts per token."""
    renormalise: bool
    """Whether the chosen experts' weights sum to one (Mixtral)."""
    balance_weight: float
    z_weight: float
    per_window: bool
    """Whether load is balanced within each window, else over the micro-batch."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Everything that decides the forward pass."""

    family: str
    width: int
    inner_width: int
    layers: int
    heads: int
    key_value_heads: int
    head_width: int
    embedding_rows: int
    tied: bool
    attention_bias: bool
    mlp_bias: bool
    rope_theta: float
    rope_scaling: RopeScalingConfig | None
    norm_eps: float
    norm: str
    norm_after: bool
    """Whether norms act on the outputs of attention and MLP (OLMo-2), not on their inputs."""
    qk_norm: bool
    clip_qkv: float | None
    windows: tuple[int | None, ...]
    """For each layer, the tokens that a query sees, itself included; None for all before it."""
    routing: Routing | None

    def part(self, tensor_ranks: int) -> Self:
        """The part that one rank of a tensor group computes; the width stays that of the residual stream."""
        return replace(
            self,
            heads=self.heads // tensor_ranks,
            key_value_heads=self.key_value_heads // tensor_ranks,
            inner_width=self.inner_width // tensor_ranks,
            embedding_rows=self.embedding_rows // tensor_ranks,
        )

    @property
    def scales_rope(self) -> tuple[bool, ...]:
        """For each layer whether its angles are stretched: in OLMo-3 only where attention is full."""
        scaled = self.rope_scaling is not None
        return tuple(scaled and (self.family != "olmo3" or window is None) for window in self.windows)


@dataclass(frozen=True, kw_only=True)
class _Family:
    theta: float
    eps: float = 1e-5
    norm: str = "rms_norm"
    norm_after: bool = False
    qk_norm: bool = False
    window: int | None = None
    experts: int = 0
    chosen: int = 0
    renormalise: bool = False
    balance_weight: float = 0.0
    z_weight: float = 0.0


_FAMILIES = {
    "olmo": _Family(theta=1e4, norm="layer_norm"),  # arXiv 2402.00838
    "olmo2": _Family(theta=5e5, eps=1e-6, norm_after=True, qk_norm=True),  # arXiv 2501.00656
    "olmo3": _Family(theta=5e5, eps=1e-6, norm_after=True, qk_norm=True, window=4096),  # allenai/Olmo-3-1025-7B
    # arXiv 2409.02060: 64 experts, 8 for a token, weights as they are, losses 0.01 and 0.001
    "olmoe": _Family(theta=1e4, qk_norm=True, experts=64, chosen=8, balance_weight=0.01, z_weight=0.001),
    "llama": _Family(theta=1e4),  # arXiv 2307.09288
    "mistral": _Family(theta=1e4),  # arXiv 2310.06825
    # arXiv 2401.04088; the weight of the balance is that of the released config.json
    "mixtral": _Family(theta=1e6, experts=8, chosen=2, renormalise=True, balance_weight=0.02),
}


def architecture_of(model: ModelConfig, vocab_size: int) -> Architecture:
    """Fill in the defaults of the family and of the tokenizer."""
    family, multiple = _FAMILIES[model.family], model.vocab_multiple
    return Architecture(
        family=model.family,
        width=model.hidden_size,
        inner_width=model.intermediate_size,
        layers=model.num_hidden_layers,
        heads=model.num_attention_heads,
        key_value_heads=model.num_key_value_heads or model.num_attention_heads,
        head_width=model.head_dim or model.hidden_size // model.num_attention_heads,
        embedding_rows=model.embedding_size or -(-vocab_size // multiple) * multiple,
        tied=model.tie_word_embeddings,
        attention_bias=model.attention_bias,
        mlp_bias=model.mlp_bias,
        rope_theta=model.rope_theta or family.theta,
        rope_scaling=model.rope_scaling,
        norm_eps=model.norm_eps or family.eps,
        norm=family.norm,
        norm_after=family.norm_after,
        qk_norm=family.qk_norm,
        clip_qkv=model.clip_qkv,
        windows=_windows(model, family),
        routing=_routing(model, family) if family.experts else None,
    )


def _windows(model: ModelConfig, family: _Family) -> tuple[int | None, ...]:
    window, layers = model.sliding_window or family.window, model.num_hidden_layers
    if model.family != "olmo3":
        return (window,) * layers
    # OLMo-3: three layers with the window, then one without; the last is always without (OLMo-core's rule)
    types = model.layer_types or tuple(
        "full_attention" if (layer + 1) % 4 == 0 or layer + 1 == layers else "sliding_attention"
        for layer in range(layers)
    )
    return tuple(window if kind == "sliding_attention" else None for kind in types)


def _routing(model: ModelConfig, family: _Family) -> Routing:
    balance, z = model.router_aux_loss_coef, model.router_z_loss_coef
    return Routing(
        experts=model.num_experts or family.experts,
        chosen=model.num_experts_per_tok or family.chosen,
        renormalise=family.renormalise or model.norm_topk_prob,
        balance_weight=family.balance_weight if balance is None else balance,
        z_weight=family.z_weight if z is None else z,
        per_window=model.router_balance == "window",
    )


def resolved(model: ModelConfig, shape: Architecture) -> ModelConfig:
    """The settings with every default filled in."""
    options: dict[str, Any] = {}
    if shape.family == "olmo3":
        options["sliding_window"] = next((window for window in shape.windows if window), None)
        options["layer_types"] = tuple("sliding_attention" if window else "full_attention" for window in shape.windows)
    if shape.routing:
        options["num_experts"], options["num_experts_per_tok"] = shape.routing.experts, shape.routing.chosen
        options["router_aux_loss_coef"] = shape.routing.balance_weight
        options["router_z_loss_coef"] = shape.routing.z_weight
    return replace(
        model,
        num_key_value_heads=shape.key_value_heads,
        rope_theta=shape.rope_theta,
        norm_eps=shape.norm_eps,
        embedding_size=shape.embedding_rows,
        **options,
    )


# ---- size and cost


def _block_parameters(shape: Architecture, experts: int) -> int:
    """Matrix weights of a block with that many experts (1 if it has none)."""
    attention = 2 * (shape.heads + shape.key_value_heads) * shape.head_width * shape.width
    router = shape.routing.experts * shape.width if shape.routing else 0
    return attention + router + experts * 3 * shape.width * shape.inner_width


def matrix_parameters(shape: Architecture) -> int:
    """Weights that a token is multiplied with, including the output matrix, tied or not."""
    chosen = shape.routing.chosen if shape.routing else 1
    return shape.layers * _block_parameters(shape, chosen) + shape.embedding_rows * shape.width


def total_parameters(shape: Architecture) -> int:
    """All weights, each counted once."""
    queries, keys = shape.heads * shape.head_width, shape.key_value_heads * shape.head_width
    block = _block_parameters(shape, shape.routing.experts if shape.routing else 1)
    if shape.norm == "rms_norm":
        block += 2 * shape.width
    if shape.qk_norm:
        block += queries + keys
    if shape.attention_bias:
        block += queries + 2 * keys + shape.width
    if shape.mlp_bias:
        block += 2 * shape.inner_width + shape.width
    final_norm = shape.width if shape.norm == "rms_norm" else 0
    return shape.layers * block + final_norm + (1 if shape.tied else 2) * shape.embedding_rows * shape.width


def flops_per_token(shape: Architecture, sequence_length: int) -> int:
    """FLOPs of one trained token, forward and backward."""
    seen = sum(min(sequence_length, window or sequence_length) for window in shape.windows)
    return 6 * matrix_parameters(shape) + 12 * shape.heads * shape.head_width * seen


# ---- tensor parallelism


def shard_specs(shape: Architecture, tensor_parallel: TensorParallel) -> dict[str, ShardSpec]:
    """How each sharded weight of a model is sharded, by name; all other weights are whole on every rank."""
    if tensor_parallel.size == 1:
        return {}
    queries, keys = shape.heads * shape.head_width, shape.key_value_heads * shape.head_width
    rows, inner = (shape.embedding_rows,), shape.inner_width
    kinds: dict[str, tuple[int, tuple[int, ...]]] = {
        "attention.qkv.weight": (0, (queries, keys, keys)),
        "attention.out.weight": (1, (queries,)),
        "mlp.up_gate.weight": (0, (inner, inner)),
        "mlp.down.weight": (1, (inner,)),
    }
    if shape.attention_bias:
        kinds["attention.qkv.bias"] = kinds["attention.qkv.weight"]
    if shape.mlp_bias:
        kinds["mlp.up_gate.bias"] = kinds["mlp.up_gate.weight"]
    if shape.qk_norm:
        kinds |= {"attention.query_norm.weight": (0, (queries,)), "attention.key_norm.weight": (0, (keys,))}
    named = {f"blocks.{layer}.{name}": kind for layer in range(shape.layers) for name, kind in kinds.items()}
    named["embedding"] = (0, rows)
    if not shape.tied:
        named["head.weight"] = (0, rows)
    return {
        name: ShardSpec(dim=dim, pieces=pieces, tensor_parallel=tensor_parallel)
        for name, (dim, pieces) in named.items()
    }


def check_divisible(shape: Architecture, tensor_ranks: int) -> None:
    """Check that every rank gets an equal part of every product."""
    if tensor_ranks == 1:
        return
    ranks = f"train.parallel.tensor_ranks {tensor_ranks}"
    sizes = {
        "model.num_attention_heads": shape.heads,
        "model.num_key_value_heads": shape.key_value_heads,
        "model.intermediate_size": shape.inner_width,
        "model.embedding_size": shape.embedding_rows,
    }
    problems = [
        Problem(f'"{name}" is {size}; expected a multiple of {ranks}')
        for name, size in sizes.items()
        if size % tensor_ranks
    ]
    if shape.routing:
        what = f'"train.parallel.tensor_ranks" is {tensor_ranks} and "model.family" {shape.family}'
        problems = [Problem(f"{what}; expected 1 for a model with experts", 'use train.parallel.kind "fsdp"')]
    if problems:
        raise SettingError(*problems)

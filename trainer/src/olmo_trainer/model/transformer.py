"""The decoder, top to bottom: norms, linear, rotary embedding, attention mask, KV cache, attention, MLP, block, model.

All seven families are settings of it (architecture.py). Experts are in moe.py, the loss in loss.py, generation in
generate.py, initial weights in init.py.

B batch, T time, S keys, D width, H query heads, G key/value heads, K head width, V embedding rows, E experts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts, noop_context_fn

from ..config.schema import RopeScalingConfig
from ..parallel import NO_TENSOR_PARALLEL, TensorParallel
from .architecture import Architecture, shard_specs
from .kernels import rms_norm, rotate, swiglu
from .moe import MoE

__all__ = ["LayerCache", "Transformer", "checkpoint_activations", "new_cache"]


# ---- norms: computed in float32, returned in the input's dtype


class LayerNorm(nn.Module):
    """Layer norm without weight and bias, as in OLMo-1 (arXiv 2402.00838, section 2.1)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.width, self.eps = width, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x.float(), (self.width,), eps=self.eps).to(x.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm with a weight (arXiv 1910.07467), as in OLMo-2 and Llama.

    In a tensor group, `width` is this rank's part of the normalized dimension.
    """

    def __init__(self, width: int, eps: float, tensor_parallel: TensorParallel = NO_TENSOR_PARALLEL) -> None:
        super().__init__()
        self.tensor_parallel, self.eps = tensor_parallel, eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu" or self.tensor_parallel.size > 1:
            return rms_norm(x, self.weight, self.eps, self.tensor_parallel).to(x.dtype)
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps).to(x.dtype)


def _norm(shape: Architecture) -> nn.Module:
    if shape.norm == "layer_norm":
        return LayerNorm(shape.width, shape.norm_eps)
    return RMSNorm(shape.width, shape.norm_eps)


# ---- linear


class Linear(nn.Module):
    """A float32 weight, cast to the input's dtype at each use: what autocast does, written out.

    With `reduce_from`, the ranks of that tensor group each hold some of the columns and their products are summed.
    """

    def __init__(
        self, inputs: int, outputs: int, bias: bool = False, reduce_from: TensorParallel = NO_TENSOR_PARALLEL
    ) -> None:
        super().__init__()
        self.tensor_parallel = reduce_from
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.tensor_parallel.size == 1:
            return F.linear(x, self.weight.to(x.dtype), bias)
        total = self.tensor_parallel.reduce_from(F.linear(x, self.weight.to(x.dtype)))
        return total if bias is None else total + bias


# ---- rotary embedding (arXiv 2104.09864), in the rotate-half layout of GPT-NeoX and transformers


def rotary_table(
    length: int, head_width: int, theta: float, scaling: RopeScalingConfig | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of every position, each float32 of shape (T, K/2)."""
    exponents = torch.arange(0, head_width, 2, dtype=torch.float32) / head_width
    frequencies_K, factor = 1.0 / theta**exponents, 1.0
    if scaling is not None:
        frequencies_K, factor = _scaled(frequencies_K, theta, head_width, scaling)
    angles_TK = torch.outer(torch.arange(length, dtype=torch.float32), frequencies_K)
    return angles_TK.cos() * factor, angles_TK.sin() * factor


def _scaled(
    frequencies_K: torch.Tensor, theta: float, head_width: int, scaling: RopeScalingConfig
) -> tuple[torch.Tensor, float]:
    """Frequencies stretched to a longer context, and the factor for queries and keys (YaRN's temperature)."""
    divided_K = frequencies_K / scaling.factor
    if scaling.rope_type == "linear":
        return divided_K, 1.0
    length = scaling.original_max_position_embeddings
    assert length is not None
    if scaling.rope_type == "llama3":  # Llama 3.1: by wavelength relative to the old length, smooth between two bounds
        turns_K = length * frequencies_K / (2 * math.pi)
        kept_K = (turns_K - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        return torch.lerp(divided_K, frequencies_K, kept_K.clamp(0, 1)), 1.0

    def dimension(turns: float) -> float:
        """The pair that makes that many turns over the old length (arXiv 2309.00071, equation 17 and appendix A)."""
        return head_width * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(dimension(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension(scaling.beta_slow)), head_width - 1)
    pairs_K = torch.arange(head_width // 2, dtype=torch.float32)
    divided_share_K = ((pairs_K - low) / (high - low if high != low else 0.001)).clamp(0, 1)
    temperature = 0.1 * math.log(scaling.factor) + 1.0  # arXiv 2309.00071, section 3.4
    return torch.lerp(frequencies_K, divided_K, divided_share_K), scaling.attention_factor or temperature


# ---- attention mask: causal, sliding window, document
#
# A query at position i with window W sees the W positions i−W+1 … i, itself included: transformers' `sliding_window`,
# FlashAttention's left window plus one.

_BLOCK = 256  # queries per block: keys that no query of a block sees are skipped, and its mask stays small


@dataclass(frozen=True)
class Mask:
    """Blocks of queries (first query, last + 1, first key, visible keys (B or 1, 1, Q, S)); empty for plain causal."""

    blocks: tuple[tuple[int, int, int, torch.Tensor], ...] = ()


def _visible(queries_Q: torch.Tensor, keys_S: torch.Tensor, window: int | None) -> torch.Tensor:
    """Whether the query at each position sees the key at each position (Q, S), documents aside."""
    seen_QS = keys_S <= queries_Q[:, None]
    return seen_QS if window is None else seen_QS & (keys_S > queries_Q[:, None] - window)


def mask_of(length: int, window: int | None, document_ids_BT: torch.Tensor | None, device: torch.device) -> Mask:
    """The mask of sequences of `length` tokens, made once for all layers with the same window."""
    if (window is None or window >= length) and document_ids_BT is None:
        return Mask()
    positions_T = torch.arange(length, device=device)
    first_T = [0] * length
    if document_ids_BT is not None:
        # where the earliest document begins that any sequence of the batch is in at each position
        begins_BT = torch.ones_like(document_ids_BT, dtype=torch.bool)
        begins_BT[:, 1:] = document_ids_BT[:, 1:] != document_ids_BT[:, :-1]
        starts_BT = torch.where(begins_BT, torch.arange(length, device=document_ids_BT.device), 0)
        first_T = starts_BT.cummax(dim=1).values.amin(dim=0).tolist()
        document_ids_BT = document_ids_BT.to(device, non_blocking=True)
    blocks = []
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        first = max(first_T[start], 0 if window is None else start - window + 1)
        seen = _visible(positions_T[start:stop], positions_T[first:stop], window)[None]
        if document_ids_BT is not None:
            seen = seen & (document_ids_BT[:, start:stop, None] == document_ids_BT[:, None, first:stop])
        blocks.append((start, stop, first, seen[:, None]))
    return Mask(tuple(blocks))


def attend(q_BHTK: torch.Tensor, k_BHTK: torch.Tensor, v_BHTK: torch.Tensor, mask: Mask) -> torch.Tensor:
    """Scaled dot-product attention under the mask: (B, H, T, K)."""
    if not mask.blocks:
        return F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
    parts = [
        F.scaled_dot_product_attention(
            q_BHTK[:, :, start:stop], k_BHTK[:, :, first:stop], v_BHTK[:, :, first:stop], attn_mask=seen
        )
        for start, stop, first, seen in mask.blocks
    ]
    return torch.cat(parts, dim=2)


# ---- KV cache: all tokens, or with a sliding window W the last W, in slot = position mod W


class LayerCache:
    """Keys and values of one layer. With a window, its size does not grow with the text."""

    def __init__(self, keys_BGSK: torch.Tensor, window: int | None) -> None:
        slots = keys_BGSK.shape[2]
        self.keys_BGSK, self.values_BGSK = keys_BGSK, torch.zeros_like(keys_BGSK)
        self.window = window if window is not None and window <= slots else None
        self.length = 0
        """Tokens read so far."""
        # the position in each slot; an empty slot has one after every query, so it is never seen
        self.positions_S = torch.full((slots,), torch.iinfo(torch.long).max, device=keys_BGSK.device)

    def extend(
        self, k_BGTK: torch.Tensor, v_BGTK: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Add T tokens; returns keys and values to attend to, the T queries' positions and the S keys'."""
        slots, count = self.positions_S.shape[0], k_BGTK.shape[2]
        new_T = torch.arange(self.length, self.length + count, device=k_BGTK.device)
        if self.window is None or count == 1:
            # without a window nothing is overwritten; with one, a single new token replaces the one that left it
            self._store(k_BGTK, v_BGTK, new_T, slots)
            used = min(self.length, slots)
            return self.keys_BGSK[:, :, :used], self.values_BGSK[:, :, :used], new_T, self.positions_S[:used]
        # the first tokens of a chunk need what its last ones replace: attend to both, then store
        keys, values = torch.cat((self.keys_BGSK, k_BGTK), dim=2), torch.cat((self.values_BGSK, v_BGTK), dim=2)
        positions = torch.cat((self.positions_S, new_T))
        self._store(k_BGTK[:, :, -slots:], v_BGTK[:, :, -slots:], new_T[-slots:], slots, count)
        return keys, values, new_T, positions

    def _store(self, k: torch.Tensor, v: torch.Tensor, new_T: torch.Tensor, slots: int, count: int = 0) -> None:
        slot_T = new_T % slots
        self.keys_BGSK[:, :, slot_T], self.values_BGSK[:, :, slot_T] = k, v
        self.positions_S[slot_T] = new_T
        self.length += count or len(new_T)


def new_cache(
    shape: Architecture, batch: int, length: int, dtype: torch.dtype, device: torch.device
) -> list[LayerCache]:
    """Empty caches for texts of up to `length` tokens, one per layer."""
    caches = []
    for window in shape.windows:
        size = (batch, shape.key_value_heads, min(length, window or length), shape.head_width)
        caches.append(LayerCache(torch.zeros(size, dtype=dtype, device=device), window))
    return caches


# ---- attention


class Attention(nn.Module):
    """Causal self-attention with grouped keys and values (arXiv 2305.13245).

    One fused projection (rows: all queries, all keys, all values), rotation, SDPA, output projection. `shape` is this
    rank's part of the model in a tensor group.
    """

    def __init__(self, shape: Architecture, tensor_parallel: TensorParallel) -> None:
        super().__init__()
        self.tensor_parallel = tensor_parallel
        self.heads, self.groups, self.head_width = shape.heads, shape.key_value_heads, shape.head_width
        self.sizes = [count * shape.head_width for count in (self.heads, self.groups, self.groups)]
        self.clip = shape.clip_qkv
        self.qkv = Linear(shape.width, sum(self.sizes), shape.attention_bias)
        self.out = Linear(self.sizes[0], shape.width, shape.attention_bias, reduce_from=tensor_parallel)
        # over all heads at once, before they are split: OLMo-2's (arXiv 2501.00656), not Qwen's norm per head
        norms = [RMSNorm(size, shape.norm_eps, tensor_parallel) for size in self.sizes[:2] if shape.qk_norm]
        self.query_norm: nn.Module
        self.key_norm: nn.Module
        self.query_norm, self.key_norm = norms or (nn.Identity(), nn.Identity())

    def forward(
        self,
        x_BTD: torch.Tensor,
        rope: tuple[torch.Tensor, torch.Tensor],
        mask: Mask,
        cache: LayerCache | None = None,
    ) -> torch.Tensor:
        """(B, T, D) to (B, T, D); `rope` has the cosines and sines of the T positions, which follow the cache's."""
        B, T, _ = x_BTD.shape
        q, k, v = self.qkv(self.tensor_parallel.copy_to(x_BTD)).split(self.sizes, dim=-1)
        q, k = self.query_norm(q), self.key_norm(k)
        if self.clip is not None:
            q, k, v = (x.clamp(-self.clip, self.clip) for x in (q, k, v))
        q_BHTK = q.view(B, T, self.heads, self.head_width).transpose(1, 2)
        k_BGTK = k.view(B, T, self.groups, self.head_width).transpose(1, 2)
        v_BGTK = v.view(B, T, self.groups, self.head_width).transpose(1, 2)
        q_BHTK, k_BGTK = rotate(q_BHTK, *rope), rotate(k_BGTK, *rope)
        if cache is None:
            mixed_BHTK = attend(q_BHTK, self._repeat(k_BGTK), self._repeat(v_BGTK), mask)
        else:
            k_BGSK, v_BGSK, queries_T, keys_S = cache.extend(k_BGTK, v_BGTK)
            seen_TS = _visible(queries_T, keys_S, cache.window)
            mixed_BHTK = F.scaled_dot_product_attention(
                q_BHTK, self._repeat(k_BGSK), self._repeat(v_BGSK), attn_mask=seen_TS
            )
        out: torch.Tensor = self.out(mixed_BHTK.transpose(1, 2).reshape(B, T, -1))
        return out

    def _repeat(self, x_BGTK: torch.Tensor) -> torch.Tensor:
        """Each key/value head, once for every query head of its group."""
        return x_BGTK if self.groups == self.heads else x_BGTK.repeat_interleave(self.heads // self.groups, dim=1)


# ---- MLP


class MLP(nn.Module):
    """SwiGLU (arXiv 2002.05202): `down(silu(gate) · up)`.

    The rows of `up_gate` are all of up, then all of gate, so that one product computes both.
    """

    def __init__(self, shape: Architecture, tensor_parallel: TensorParallel) -> None:
        super().__init__()
        self.tensor_parallel = tensor_parallel
        self.up_gate = Linear(shape.width, 2 * shape.inner_width, shape.mlp_bias)
        self.down = Linear(shape.inner_width, shape.width, shape.mlp_bias, reduce_from=tensor_parallel)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        down: torch.Tensor = self.down(swiglu(self.up_gate(self.tensor_parallel.copy_to(x_BTD))))
        return down


# ---- block


class Block(nn.Module):
    """Attention and MLP (or experts), each added to the residual stream."""

    def __init__(self, shape: Architecture, tensor_parallel: TensorParallel) -> None:
        super().__init__()
        self.attention = Attention(shape, tensor_parallel)
        self.mlp = MoE(shape, shape.routing) if shape.routing else MLP(shape, tensor_parallel)
        self.attention_norm, self.mlp_norm = _norm(shape), _norm(shape)
        self.norm_after = shape.norm_after

    def forward(
        self,
        x_BTD: torch.Tensor,
        rope: tuple[torch.Tensor, torch.Tensor],
        mask: Mask,
        loss_share: float = 0.0,
        cache: LayerCache | None = None,
    ) -> torch.Tensor:
        if self.norm_after:
            h_BTD: torch.Tensor = x_BTD + self.attention_norm(self.attention(x_BTD, rope, mask, cache))
            return h_BTD + self.mlp_norm(self._mlp(h_BTD, loss_share))  # type: ignore[no-any-return]
        h_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rope, mask, cache)
        return h_BTD + self._mlp(self.mlp_norm(h_BTD), loss_share)

    def _mlp(self, x_BTD: torch.Tensor, loss_share: float) -> torch.Tensor:
        out: torch.Tensor = self.mlp(x_BTD, loss_share) if isinstance(self.mlp, MoE) else self.mlp(x_BTD)
        return out


# ---- model


class Transformer(nn.Module):
    """Embedding, blocks, final norm. The loss applies the output matrix, so that all logits are never held at once.

    Weights are float32 and uninitialized (init.py draws them). `compute_dtype` is the dtype of the residual stream and
    the matrix products. In a tensor group a model holds its rank's part of the weights; `shape` is that of the whole.
    """

    def __init__(
        self,
        shape: Architecture,
        compute_dtype: torch.dtype = torch.float32,
        tensor_parallel: TensorParallel = NO_TENSOR_PARALLEL,
    ) -> None:
        super().__init__()
        self.shape, self.compute_dtype, self.tensor_parallel = shape, compute_dtype, tensor_parallel
        self.shard_specs = shard_specs(shape, tensor_parallel)
        own = shape.part(tensor_parallel.size)
        self.embedding = nn.Parameter(torch.empty(own.embedding_rows, shape.width))
        self.blocks = nn.ModuleList(Block(own, tensor_parallel) for _ in range(shape.layers))
        self.norm = _norm(shape)
        self.head = None if shape.tied else Linear(shape.width, own.embedding_rows)
        self.watch: Callable[[str, torch.Tensor], None] | None = None
        """Called with the residual stream (B, T, D) after the embedding and after each block."""
        self._rope: dict[bool, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def output_weight(self) -> torch.Tensor:
        """The (V, D) matrix from the last hidden state to logits; in a tensor group, this rank's rows of it."""
        return self.embedding if self.head is None else self.head.weight

    def forward(
        self,
        tokens_BT: torch.Tensor,
        document_ids_BT: torch.Tensor | None = None,
        *,
        loss_share: float = 0.0,
        caches: list[LayerCache] | None = None,
    ) -> torch.Tensor:
        """Token ids to the last hidden states (B, T, D), in `compute_dtype`.

        Args:
            document_ids_BT: equal within a document, different in neighbouring ones; tokens then attend within their
                own document only. On the CPU, where reading them does not wait for the device.
            loss_share: this micro-batch's share of the batch's tokens, the weight of the routers' losses.
            caches: the tokens read before, one cache per layer; these tokens are added. Not with documents.
        """
        shape, length = self.shape, tokens_BT.shape[1]
        start = caches[0].length if caches else 0
        tables = {scaled: self._rotary(start, start + length, scaled) for scaled in set(shape.scales_rope)}
        x_BTD = self._embed(tokens_BT)
        windows = set() if caches else set(shape.windows)  # with a cache, attention masks by position
        masks = {window: mask_of(length, window, document_ids_BT, x_BTD.device) for window in windows}
        if self.watch is not None:
            self.watch("embedding", x_BTD)
        for layer, block in enumerate(self.blocks):
            rope, mask = tables[shape.scales_rope[layer]], masks.get(shape.windows[layer], Mask())
            x_BTD = block(x_BTD, rope, mask, loss_share / shape.layers, caches[layer] if caches else None)
            if self.watch is not None:
                self.watch(f"blocks.{layer}", x_BTD)
        out: torch.Tensor = self.norm(x_BTD)
        return out

    def _rotary(self, start: int, stop: int, scaled: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """A rotary table, computed on the CPU (equal on every device) and kept; grows with the longest sequence."""
        kept, device = self._rope.get(scaled), self.embedding.device
        if kept is None or kept[0].shape[0] < stop or kept[0].device != device:
            scaling = self.shape.rope_scaling if scaled else None
            cos, sin = rotary_table(stop, self.shape.head_width, self.shape.rope_theta, scaling)
            kept = self._rope[scaled] = cos.to(device), sin.to(device)
        return kept[0][start:stop], kept[1][start:stop]

    def _embed(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        if self.tensor_parallel.size == 1:
            return F.embedding(tokens_BT, self.embedding).to(self.compute_dtype)
        rows = self.embedding.shape[0]
        rows_BT = tokens_BT - self.tensor_parallel.rank * rows
        here_BT = (rows_BT >= 0) & (rows_BT < rows)
        x_BTD = F.embedding(rows_BT.clamp(0, rows - 1), self.embedding)
        x_BTD = torch.where(here_BT[..., None], x_BTD, 0.0).to(self.compute_dtype)
        return self.tensor_parallel.reduce_from(x_BTD)

    def logits(self, tokens_BT: torch.Tensor, document_ids_BT: torch.Tensor | None = None) -> torch.Tensor:
        """All logits (B, T, V), in `compute_dtype`: for comparisons and small inputs."""
        hidden_BTD = self.tensor_parallel.copy_to(self(tokens_BT, document_ids_BT))
        return self.tensor_parallel.gather_from(F.linear(hidden_BTD, self.output_weight.to(self.compute_dtype)))

    def take_router_statistics(
        self, sum_of_ranks: Callable[[torch.Tensor], torch.Tensor] = lambda sums: sums
    ) -> dict[str, torch.Tensor]:
        """Routing since the last call, over layers and tokens; empty without experts.

        `balance` (1 is even) and `z`: the losses without their weights; `imbalance`: the largest load of an expert over
        the mean load, in the worst layer; `load` (layers, E): shares of the assignments.
        """
        taken = self.drop_router_statistics()
        if not taken:
            return {}
        sums = {name: sum_of_ranks(torch.stack([part[name] for part in taken])) for name in taken[0]}
        load_LE = sums["load"] / sums["load"].sum(dim=1, keepdim=True)
        return {
            "balance": (sums["balance"] / sums["tokens"]).mean(),
            "z": (sums["z"] / sums["tokens"]).mean(),
            "imbalance": load_LE.max() * load_LE.shape[1],
            "load": load_LE,
        }

    def drop_router_statistics(self) -> list[dict[str, torch.Tensor]]:
        """The sums of each layer since the last call, which begin anew."""
        taken = []
        for block in self.blocks:
            if isinstance(block, Block) and isinstance(block.mlp, MoE) and block.mlp.statistics:
                taken.append(block.mlp.statistics)
                block.mlp.statistics = {}
        return taken


# ---- activation checkpointing

_aten = torch.ops.aten
_KEPT = [  # the most expensive to compute: products and attention
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
]


def checkpoint_activations(model: Transformer, how: Literal["full", "selective"], every: int) -> None:
    """Let every n-th block keep only its input (`full`), or that and its products (`selective`), for the backward."""
    contexts = partial(create_selective_checkpoint_contexts, _KEPT) if how == "selective" else noop_context_fn
    for block in model.blocks[::every]:
        block.forward = partial(_recomputed, block.forward, contexts)


def _recomputed(forward: Callable[..., torch.Tensor], contexts: Callable[[], Any], *arguments: Any) -> torch.Tensor:
    if not torch.is_grad_enabled():
        return forward(*arguments)
    result: torch.Tensor = checkpoint(
        forward, *arguments, use_reentrant=False, context_fn=contexts, preserve_rng_state=False
    )
    return result

"""The one decoder; all seven families are settings of it (architecture.py).

B batch, T time, D width, V embedding rows, E experts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from ..runtime.tensor import UNDIVIDED, TensorGroup, divisions_of
from .architecture import Architecture
from .attention import Attention
from .cache import LayerCache
from .linear import Linear
from .mask import Mask, mask_of
from .mlp import MLP
from .moe import MoE
from .norm import build_norm
from .rope import rotary_table

__all__ = ["Block", "Transformer"]


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream."""

    def __init__(self, shape: Architecture, tensor: TensorGroup = UNDIVIDED) -> None:
        super().__init__()
        self.attention = Attention(shape, tensor)
        dense = (shape.width, shape.inner_width, shape.mlp_bias, tensor)
        self.mlp = MoE(shape, shape.routing) if shape.routing else MLP(*dense)
        self.attention_norm = build_norm(shape.norm, shape.width, shape.norm_eps)
        self.mlp_norm = build_norm(shape.norm, shape.width, shape.norm_eps)
        self.norm_after = shape.norm_after

    def forward(
        self,
        x_BTD: torch.Tensor,
        rope: tuple[torch.Tensor, torch.Tensor],
        mask: Mask,
        loss_share: float = 0.0,
        cache: LayerCache | None = None,
    ) -> torch.Tensor:
        """(B, T, D) to (B, T, D)."""
        if self.norm_after:
            h_BTD: torch.Tensor = x_BTD + self.attention_norm(self.attention(x_BTD, rope, mask, cache))
            return h_BTD + self.mlp_norm(self._mlp(h_BTD, loss_share))  # type: ignore[no-any-return]
        h_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rope, mask, cache)
        return h_BTD + self._mlp(self.mlp_norm(h_BTD), loss_share)

    def _mlp(self, x_BTD: torch.Tensor, loss_share: float) -> torch.Tensor:
        out: torch.Tensor = self.mlp(x_BTD, loss_share) if isinstance(self.mlp, MoE) else self.mlp(x_BTD)
        return out


class Transformer(nn.Module):
    """Embedding, blocks, final norm; the output matrix is applied by the loss, which need not hold all logits at once.

    Weights are float32 and unset (init.py sets them). `compute_dtype` is the type of the residual stream and the
    matrix products. In a tensor group a model has its rank's part of the weights, and `shape` is that of the whole.
    """

    def __init__(
        self, shape: Architecture, compute_dtype: torch.dtype = torch.float32, tensor: TensorGroup = UNDIVIDED
    ) -> None:
        super().__init__()
        self.shape, self.compute_dtype, self.tensor = shape, compute_dtype, tensor
        self.divisions = divisions_of(shape, tensor)
        own = shape.part(tensor.size)
        self.embedding = nn.Parameter(torch.empty(own.embedding_rows, shape.width))
        self.blocks = nn.ModuleList(Block(own, tensor) for _ in range(shape.layers))
        self.norm = build_norm(shape.norm, shape.width, shape.norm_eps)
        self.head = None if shape.tied else Linear(shape.width, own.embedding_rows)
        self.watch: Callable[[str, torch.Tensor], None] | None = None
        """Is shown the residual stream (B, T, D) behind the embedding and each block."""
        self._rope: dict[bool, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def output_weight(self) -> torch.Tensor:
        """The (V, D) matrix from the last hidden state to logits; in a tensor group this rank's rows of it."""
        return self.embedding if self.head is None else self.head.weight

    def _rotary(self, start: int, stop: int, scaled: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """A rotary table, made on the CPU (equal on every device) and kept; it grows with the longest sequence."""
        kept, device = self._rope.get(scaled), self.embedding.device
        if kept is None or kept[0].shape[0] < stop or kept[0].device != device:
            scaling = self.shape.rope_scaling if scaled else None
            cos, sin = rotary_table(stop, self.shape.head_width, self.shape.rope_theta, scaling)
            kept = self._rope[scaled] = cos.to(device), sin.to(device)
        return kept[0][start:stop], kept[1][start:stop]

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
            document_ids_BT: numbers that are equal within a document and differ between neighbours; tokens then see
                their own document alone.
            loss_share: this micro-batch's share of the batch's tokens, which the routers' losses are weighted with.
            caches: what was read before, one a layer; takes in these tokens. Without documents.
        """
        shape, length = self.shape, tokens_BT.shape[1]
        start = caches[0].length if caches else 0
        tables = {scaled: self._rotary(start, start + length, scaled) for scaled in self._scalings}
        x_BTD = self._embedded(tokens_BT)
        windows = set() if caches else set(shape.windows)  # with a cache, attention goes by positions
        masks = {window: mask_of(length, window, document_ids_BT, x_BTD.device) for window in windows}
        if self.watch is not None:
            self.watch("embedding", x_BTD)
        for layer, block in enumerate(self.blocks):
            rope, mask = tables[shape.scales_rope(layer)], masks.get(shape.windows[layer], Mask())
            x_BTD = block(x_BTD, rope, mask, loss_share / shape.layers, caches[layer] if caches else None)
            if self.watch is not None:
                self.watch(f"blocks.{layer}", x_BTD)
        out: torch.Tensor = self.norm(x_BTD)
        return out

    def _embedded(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        if self.tensor.size == 1:
            return F.embedding(tokens_BT, self.embedding).to(self.compute_dtype)
        rows = self.embedding.shape[0]
        places_BT = tokens_BT - self.tensor.rank * rows
        here_BT = (places_BT >= 0) & (places_BT < rows)
        x_BTD = F.embedding(places_BT.clamp(0, rows - 1), self.embedding)
        return self.tensor.leave(torch.where(here_BT[..., None], x_BTD, 0.0).to(self.compute_dtype))

    @property
    def _scalings(self) -> set[bool]:
        return {self.shape.scales_rope(layer) for layer in range(self.shape.layers)}

    def logits(self, tokens_BT: torch.Tensor, document_ids_BT: torch.Tensor | None = None) -> torch.Tensor:
        """All logits (B, T, V), in `compute_dtype`: for comparison and small inputs."""
        hidden_BTD = self.tensor.enter(self(tokens_BT, document_ids_BT))
        return self.tensor.joined(F.linear(hidden_BTD, self.output_weight.to(self.compute_dtype)))

    def take_router_statistics(
        self, sum_of_ranks: Callable[[torch.Tensor], torch.Tensor] = lambda sums: sums
    ) -> dict[str, torch.Tensor]:
        """What routing was like since this was last asked, over layers and tokens; nothing where there are no experts.

        `balance` (1 is even) and `z`: the losses without their weights; `imbalance`: the fullest expert's load over the
        mean's, worst layer; `load` (layers, E): shares of the assignments.
        """
        taken = []
        for block in self.blocks:
            if isinstance(block, Block) and isinstance(block.mlp, MoE) and block.mlp.statistics:
                taken.append(block.mlp.statistics)
                block.mlp.statistics = {}
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

"""What tensors are like in a step, by OLMo's names: `optim/{grad,param,exp_avg,exp_avg_sq}/<name>.{min,max,avg,norm}`.

Gradients are those before clipping, weights and moments those before the update, as OLMo has them. Activations are the
residual stream behind the embedding and behind each block: `activation/{embedding,blocks.<n>}.{min,max,avg,norm}` over
all the step's micro-batches. Everything stays on the device until `values` fetches it in one transfer.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..model.transformer import Transformer
from ..optim.update import GatedOptimizer
from ..runtime.sharded import is_shard

__all__ = ["StepStatistics"]


def _summary(tensor: torch.Tensor) -> torch.Tensor:
    """(−minimum, maximum, sum, sum of squares, elements) in float64; that of nothing changes no other."""
    if not tensor.numel():
        return torch.tensor([-torch.inf, -torch.inf, 0, 0, 0], dtype=torch.float64, device=tensor.device)
    low, high = torch.aminmax(tensor)
    norm = torch.linalg.vector_norm(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))
    total = tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32))
    count = torch.full_like(norm, tensor.numel(), dtype=torch.float64)
    return torch.stack([-low.double(), high.double(), total.double(), norm.double().square(), count])


class StepStatistics:
    """Watches one step of a model: `watching` it, then `tensors` before clipping, then `values`."""

    def __init__(self, model: Transformer, optimizer: GatedOptimizer) -> None:
        self._model, self._optimizer = model, optimizer
        self._found: dict[str, torch.Tensor] = {}
        self._elements: dict[str, int] = {}
        model.watch = self._activation

    def _activation(self, name: str, hidden_BTD: torch.Tensor) -> None:
        with torch.no_grad():
            new, old = _summary(hidden_BTD.detach()), self._found.get(f"activation/{name}")
            if old is not None:
                new = torch.cat([torch.maximum(new[:2], old[:2]), new[2:] + old[2:]])
            self._found[f"activation/{name}"] = new

    @torch.no_grad()
    def tensors(self) -> None:
        """Look at gradients, weights and moments as they are now; activations are no longer watched."""
        self._model.watch = None
        for name, parameter in self._model.named_parameters():
            state = self._optimizer.state.get(parameter, {})
            kinds = {"grad": parameter.grad, "param": parameter}
            kinds |= {kind: state[kind] for kind in ("exp_avg", "exp_avg_sq") if kind in state}
            for kind, tensor in kinds.items():
                if tensor is None:
                    continue
                parts = self._model.tensor.size if name in self._model.divisions else 1
                self._elements[f"optim/{kind}/{name}"] = tensor.numel() * parts
                if is_shard(tensor):
                    tensor = tensor.to_local()
                self._found[f"optim/{kind}/{name}"] = _summary(tensor)

    def values(self) -> dict[str, float]:
        """The numbers of all names, over the tokens and shards of all ranks, which must ask together."""
        if not self._found:
            return {}
        table_N5 = torch.stack(list(self._found.values()))
        if torch.distributed.is_initialized():
            extremes_N2, sums_N3 = table_N5[:, :2].contiguous(), table_N5[:, 2:].contiguous()
            torch.distributed.all_reduce(extremes_N2, torch.distributed.ReduceOp.MAX)
            torch.distributed.all_reduce(sums_N3)
            table_N5 = torch.cat([extremes_N2, sums_N3], dim=1)
        rows = zip(self._found, table_N5.tolist(), strict=True)
        return dict(_named(rows, self._elements, self._model.tensor.size))


def _named(
    rows: Iterable[tuple[str, list[float]]], elements: dict[str, int], tensor_ranks: int
) -> Iterable[tuple[str, float]]:
    for name, (negative_low, high, total, squares, count) in rows:
        copies = count / elements.get(name, count // tensor_ranks)  # of a tensor that several ranks hold
        yield f"{name}.min", -negative_low
        yield f"{name}.max", high
        yield f"{name}.avg", total / count
        yield f"{name}.norm", (squares / copies) ** 0.5

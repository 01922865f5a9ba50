"""Cross-entropy of the next token and its z-loss, without holding all logits.

The plain way writes and reads the logits of a micro-batch about six times. Here they are computed for a chunk of rows,
large enough that the weights are seldom read, and turned into gradients in place, a few rows at a time while those are
in the cache. The gradient is computed in the forward pass and scaled in the backward pass.
In a tensor group each rank has V of the rows, and the ranks exchange only two numbers per position.

N rows (batch and time together), D width, V embedding rows.
"""

from typing import Any

import torch
import torch.nn.functional as F

from ..parallel import NO_TENSOR_PARALLEL, TensorParallel

__all__ = ["IGNORED", "chunked_loss", "plain_loss", "token_nats"]

IGNORED = -100  # the label of a position that carries no loss
_CHUNK_LOGITS = {"cpu": 2**24, "cuda": 2**27}  # 64 MiB in float32: large products, and little memory next to the model
_BLOCK_LOGITS = {"cpu": 2**20, "cuda": 2**27}  # 4 MiB in float32 fit the cores' caches; on a GPU, all at once

LossSums = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""The scaled loss, which is differentiable, then Σ nats and Σ logsumexp²; float32 scalars."""


def plain_loss(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    labels_N: torch.Tensor,
    z_weight: float,
    scale: torch.Tensor,
    tensor_parallel: TensorParallel = NO_TENSOR_PARALLEL,
) -> LossSums:
    """`scale · Σ (nats + z_weight · logsumexp²)` over the rows with a label; the reference for `chunked_loss`."""
    logits_NV = tensor_parallel.gather_from(
        F.linear(tensor_parallel.copy_to(hidden_ND), weight_VD.to(hidden_ND.dtype)).float()
    )
    nats = F.cross_entropy(logits_NV, labels_N, ignore_index=IGNORED, reduction="sum")
    squares = (logits_NV.logsumexp(dim=-1)[labels_N != IGNORED] ** 2).sum()
    total = nats + z_weight * squares if z_weight else nats
    return scale * total, nats.detach(), squares.detach()


def _log_softmax(
    logits: torch.Tensor, label: torch.Tensor, tensor_parallel: TensorParallel
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities (N, V), those of the labels, logsumexp; then the labels' columns, and −1 if on this rank."""
    if tensor_parallel.size == 1:
        chosen = logits.gather(1, label)[:, 0]
        log_probability = F.log_softmax(logits, dim=-1)
        chosen_log_probability = log_probability.gather(1, label)[:, 0]
        norm = chosen - chosen_log_probability  # logsumexp, without another pass
        return log_probability, chosen_log_probability, norm, label, logits.new_full((), -1.0).expand_as(label)
    column = label - tensor_parallel.rank * logits.shape[1]
    is_here = (column >= 0) & (column < logits.shape[1])
    column = column.clamp(0, logits.shape[1] - 1)
    chosen = torch.where(is_here, logits.gather(1, column), 0.0)[:, 0]
    norms, chosens = torch.stack(tensor_parallel.gather(torch.stack([logits.logsumexp(dim=-1), chosen]))).unbind(dim=1)
    norm, chosen = norms.logsumexp(dim=0), chosens.sum(dim=0)
    return logits.sub_(norm[:, None]), chosen - norm, norm, column, -is_here.to(logits.dtype)


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        z_weight: float,
        scale: torch.Tensor,
        tensor_parallel: TensorParallel,
    ) -> LossSums:
        compute_weight = weight.to(hidden.dtype)
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.empty_like(weight)
        nats = torch.zeros((), device=hidden.device)
        squares = torch.zeros((), device=hidden.device)
        rows = _rows(_CHUNK_LOGITS, weight, hidden.shape[0])
        few = (
            rows if tensor_parallel.size > 1 else _rows(_BLOCK_LOGITS, weight, rows)
        )  # so that ranks seldom wait for each other
        buffer = hidden.new_empty(rows, weight.shape[0])
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            counted = labels[part] != IGNORED
            label = labels[part].clamp_min(0)[:, None]
            grad = buffer[: len(label)]
            torch.mm(hidden[part], compute_weight.T, out=grad)  # logits; turned into their gradients below
            for here in (slice(first, first + few) for first in range(0, len(label), few)):
                log_probability, chosen_log_probability, norm, column, one_less = _log_softmax(
                    grad[here].float(), label[here], tensor_parallel
                )
                nats -= torch.where(counted[here], chosen_log_probability, 0.0).sum()
                squares += torch.where(counted[here], norm**2, 0.0).sum()
                # d/dlogits of nats is softmax − onehot, of z is 2·logsumexp·softmax
                probability = log_probability.exp_()
                if z_weight:
                    probability *= 1 + 2 * z_weight * norm[:, None]
                probability.scatter_add_(1, column, one_less)
                grad[here] = probability
            # 1/tokens, and 0 for ignored rows: applied to the narrow matrices, not to the wide one
            row_scale = torch.where(counted, scale, 0.0).to(hidden.dtype)[:, None]
            torch.mm(grad, compute_weight, out=grad_hidden[part])
            grad_hidden[part] *= row_scale
            if hidden.dtype == torch.float32:
                grad_weight.addmm_(grad.T, hidden[part] * row_scale, beta=1.0 if start else 0.0)
            elif start:
                grad_weight += grad.T @ (hidden[part] * row_scale)
            else:
                grad_weight.copy_(grad.T @ (hidden[part] * row_scale))
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.mark_non_differentiable(nats, squares)
        return scale * (nats + z_weight * squares), nats, squares

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        if grads[0].device.type == "cpu" and grads[0] == 1:  # saves a pass over the widest matrix
            return grad_hidden, grad_weight, None, None, None, None
        return grad_hidden * grads[0].to(grad_hidden.dtype), grad_weight * grads[0], None, None, None, None


def _rows(logits: dict[str, int], weight: torch.Tensor, at_most: int) -> int:
    """The number of rows with about that many logits on the weight's device."""
    return max(1, min(at_most, logits.get(weight.device.type, 2**24) // weight.shape[0]))


def chunked_loss(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    labels_N: torch.Tensor,
    z_weight: float,
    scale: torch.Tensor,
    tensor_parallel: TensorParallel = NO_TENSOR_PARALLEL,
) -> LossSums:
    """The same as `plain_loss`, a chunk of rows at a time."""
    hidden_ND = tensor_parallel.copy_to(hidden_ND)
    result: LossSums = _ChunkedLoss.apply(hidden_ND, weight_VD, labels_N, z_weight, scale, tensor_parallel)  # type: ignore[no-untyped-call]
    return result


@torch.no_grad()
def token_nats(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    labels_N: torch.Tensor,
    tensor_parallel: TensorParallel = NO_TENSOR_PARALLEL,
) -> torch.Tensor:
    """−ln p of each label (N), float32; 0 where the label is IGNORED."""
    weight = weight_VD.to(hidden_ND.dtype)
    rows = _rows(_CHUNK_LOGITS, weight, hidden_ND.shape[0])
    parts = [
        F.cross_entropy(
            tensor_parallel.gather_from(F.linear(hidden, weight).float()),
            labels,
            ignore_index=IGNORED,
            reduction="none",
        )
        for hidden, labels in zip(torch.split(hidden_ND, rows), torch.split(labels_N, rows), strict=True)
    ]
    return torch.cat(parts)

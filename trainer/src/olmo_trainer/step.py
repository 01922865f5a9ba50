"""One optimizer step: micro-batches, one loss over all their tokens, clipping, an update no bad number can reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from .config.schema import TrainConfig
from .metrics.statistics import StepStatistics
from .model.loss import IGNORED, chunked_loss, plain_loss
from .model.transformer import Transformer
from .optim.clip import Clip, clip_by_history, clip_by_norm
from .optim.guard import Guard
from .optim.update import GatedOptimizer
from .runtime.ranks import ALONE
from .runtime.sharded import Gradients, norms_of

__all__ = ["StepStats", "accumulate", "labels_of", "train_step"]


@dataclass(frozen=True, kw_only=True)
class StepStats:
    """What one step was like; all but `valid_tokens` are scalars on the device."""

    nats_per_token: torch.Tensor
    z_loss: torch.Tensor | None
    grad_norm: torch.Tensor
    clipping_rate: torch.Tensor
    is_accepted: torch.Tensor
    is_outlier: torch.Tensor
    valid_tokens: int


MicroBatch = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
"""What is read, what is to be predicted and, where tokens see their own document alone, the documents' numbers."""


def labels_of(tokens_BT: torch.Tensor, counted_BT: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Split windows into what is read and what is to be predicted, each (B, T−1); what is not counted is IGNORED."""
    labels_BT = tokens_BT if counted_BT is None else torch.where(counted_BT, tokens_BT, IGNORED)
    return tokens_BT[:, :-1], labels_BT[:, 1:]


def accumulate(
    model: Transformer,
    micro_batches: Sequence[MicroBatch],
    train: TrainConfig,
    valid_tokens: int,
    batch_tokens: int,
    gradients: Gradients | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add up the gradients of micro-batches; returns nats per token and mean squared normaliser.

    Each micro-batch's sum is divided by the valid tokens of the **whole** batch, so the gradient does not depend on how
    the batch was divided, even where labels are ignored unevenly. Routers' losses (model/moe.py) are weighted by the
    micro-batch's share of `batch_tokens`, those read in the whole batch.
    """
    loss_function = chunked_loss if train.loss == "chunked" else plain_loss
    device = model.embedding.device
    nats, squares = torch.zeros((), device=device), torch.zeros((), device=device)
    scale = 1.0 / valid_tokens if valid_tokens else math.nan  # nothing to learn from: the guard refuses the step
    for number, (inputs_BT, labels_BT, documents_BT) in enumerate(micro_batches, start=1):
        if documents_BT is not None:
            documents_BT = documents_BT.to(device, non_blocking=True)
        loss_share = inputs_BT.numel() / batch_tokens
        hidden_BTD = model(inputs_BT.to(device, non_blocking=True), documents_BT, loss_share=loss_share)
        hidden_ND = hidden_BTD.flatten(0, 1)
        labels_N = labels_BT.to(device, non_blocking=True).reshape(-1)
        loss, part_nats, part_squares = loss_function(
            hidden_ND, model.output_weight, labels_N, train.z_loss, scale, model.tensor
        )
        if gradients is not None:
            gradients.begin(is_last=number == len(micro_batches))
        loss.backward()  # type: ignore[no-untyped-call]
        nats += part_nats
        squares += part_squares
    if gradients is not None:
        gradients.wait()
    return nats * scale, squares * scale


T = TypeVar("T", torch.Tensor, torch.Tensor | None)


def _cut(windows_BT: T, sequence_length: int | None) -> T:
    """Windows as pieces of `sequence_length` tokens, if that is shorter."""
    if windows_BT is None or sequence_length is None or sequence_length >= windows_BT.shape[1]:
        return windows_BT
    return windows_BT.reshape(-1, sequence_length)


def train_step(
    model: Transformer,
    optimizer: GatedOptimizer,
    tokens_BT: torch.Tensor,
    train: TrainConfig,
    learning_rate: float,
    clip: Clip,
    guard: Guard,
    sequence_length: int | None = None,
    *,
    counted_BT: torch.Tensor | None = None,
    document_ids_BT: torch.Tensor | None = None,
    gradients: Gradients | None = None,
    statistics: StepStatistics | None = None,
) -> StepStats:
    """Do one step on a batch of windows (B, T), each seen as pieces of `sequence_length` tokens if that is shorter.

    Tokens that are not `counted_BT` are not to be predicted; where `document_ids_BT` are given, tokens see their own
    document alone. With `gradients` these are one rank's share of the batch, and all that is returned is of the whole.

    A step that `guard` does not accept leaves weights, moments and running means as they are, bit for bit, and nothing
    waits for the device.
    """
    ranks = ALONE if gradients is None else gradients.ranks
    micro = train.micro_batch_windows or tokens_BT.shape[0]
    inputs_BT, labels_BT = labels_of(_cut(tokens_BT, sequence_length), _cut(counted_BT, sequence_length))
    micro *= inputs_BT.shape[0] // tokens_BT.shape[0]
    documents_BT = _cut(document_ids_BT, sequence_length)
    valid_tokens = int(ranks.sum_of_data((labels_BT != IGNORED).sum()))
    inputs, labels = torch.split(inputs_BT, micro), torch.split(labels_BT, micro)
    documents = [None] * len(inputs) if documents_BT is None else torch.split(documents_BT[:, :-1], micro)
    batches = list(zip(inputs, labels, documents, strict=True))
    sums = accumulate(model, batches, train, valid_tokens, inputs_BT.numel() * ranks.data_world, gradients)
    nats_per_token, squares = ranks.sum_of_data(torch.stack(sums)).unbind()
    if statistics is not None:
        statistics.tensors()
    grad_norm, clipping_rate, is_accepted, is_outlier = _clipped(model, optimizer, nats_per_token, clip, guard)
    optimizer.found_inf = torch.where(is_accepted, 0.0, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate_ratio"]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepStats(
        nats_per_token=nats_per_token,
        z_loss=train.z_loss * squares if train.z_loss else None,
        grad_norm=grad_norm,
        clipping_rate=clipping_rate,
        is_accepted=is_accepted,
        is_outlier=is_outlier,
        valid_tokens=valid_tokens,
    )


@torch.no_grad()
def _clipped(
    model: Transformer, optimizer: GatedOptimizer, nats: torch.Tensor, clip: Clip, guard: Guard
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Judge the step and clip its gradients; returns their norm before, the share clipped, and the two judgements."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.grad is not None}
    gradients = [parameter.grad for parameter in named.values() if parameter.grad is not None]
    norms = torch.stack(norms_of(gradients, [model.divisions.get(name) for name in named]))
    norm = torch.linalg.vector_norm(norms)
    is_accepted, is_outlier = guard.judge(nats, norm)
    rate = torch.zeros_like(norm)
    if clip.max_norm is not None:
        rate = clip_by_norm(gradients, norm, clip.max_norm)
    elif clip.max_ratio is not None:
        for parameter in named.values():
            optimizer.state[parameter].setdefault("grad_norm_exp_avg", torch.zeros((), device=norm.device))
        means = [optimizer.state[parameter]["grad_norm_exp_avg"] for parameter in named.values()]
        rate = clip_by_history(gradients, norms, means, clip, is_accepted)
    return norm, rate, is_accepted, is_outlier

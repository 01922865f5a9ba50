"""One optimizer step: micro-batches, one loss over all their tokens, clipping, an update no bad number can reach."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from .config.schema import TrainConfig
from .device import TensorBatch
from .model.loss import IGNORED, chunked_loss, plain_loss
from .model.transformer import Transformer
from .optim import Clip, GatedOptimizer, clip_by_history, clip_by_norm
from .parallel import Gradients, norms_of
from .stability import Guard

__all__ = ["Learner", "StepSettings", "StepStats", "train_step"]


@dataclass(frozen=True, kw_only=True)
class Learner:
    """What a step changes."""

    model: Transformer
    optimizer: GatedOptimizer
    guard: Guard
    gradients: Gradients


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """What a step does with its batch: a pure function of the config and the step."""

    train: TrainConfig
    learning_rate: float
    clip: Clip
    sequence_length: int | None = None
    """Tokens of the pieces that windows are cut into, each a sequence of its own; None for whole windows."""


@dataclass(frozen=True, kw_only=True)
class StepStats:
    """Results of a step, over the batches of all ranks: scalars on the device."""

    nats_per_token: torch.Tensor
    z_loss: torch.Tensor | None
    grad_norm: torch.Tensor
    clipping_rate: torch.Tensor
    is_accepted: torch.Tensor
    is_outlier: torch.Tensor
    valid_tokens: torch.Tensor


MicroBatch = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
"""Inputs, labels and, where tokens attend within their own document only, the documents' numbers."""


def labels_of(tokens_BT: torch.Tensor, loss_mask_BT: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Split windows into inputs and labels, each (B, T−1); labels that the mask excludes are IGNORED."""
    labels_BT = tokens_BT if loss_mask_BT is None else torch.where(loss_mask_BT, tokens_BT, IGNORED)
    return tokens_BT[:, :-1], labels_BT[:, 1:]


def accumulate(
    model: Transformer,
    micro_batches: Sequence[MicroBatch],
    train: TrainConfig,
    valid_tokens: torch.Tensor,
    batch_tokens: int,
    gradients: Gradients | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add up the gradients of micro-batches; returns nats per token and mean squared log normalizer.

    Each micro-batch's sum is divided by the valid tokens of the **whole** batch, so the gradient does not depend on how
    the batch is divided, even with unevenly ignored labels. Routers' losses (model/moe.py) are weighted by the
    micro-batch's share of `batch_tokens`, the tokens of the whole batch.
    """
    loss_function = chunked_loss if train.loss == "chunked" else plain_loss
    device = model.embedding.device
    nats, squares = torch.zeros((), device=device), torch.zeros((), device=device)
    valid_tokens = valid_tokens.to(device, non_blocking=True)
    # without a valid token there is nothing to learn: NaN, so that the guard rejects the step
    scale = torch.where(valid_tokens > 0, 1.0 / valid_tokens.double(), math.nan).float()
    for number, (inputs_BT, labels_BT, documents_BT) in enumerate(micro_batches, start=1):
        loss_share = inputs_BT.numel() / batch_tokens
        hidden_BTD = model(inputs_BT.to(device, non_blocking=True), documents_BT, loss_share=loss_share)
        hidden_ND = hidden_BTD.flatten(0, 1)
        labels_N = labels_BT.to(device, non_blocking=True).reshape(-1)
        loss, part_nats, part_squares = loss_function(
            hidden_ND, model.output_weight, labels_N, train.z_loss, scale, model.tensor_parallel
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
    learner: Learner, batch: TensorBatch, settings: StepSettings, on_gradients: Callable[[], None] | None = None
) -> StepStats:
    """Do one step on this rank's share of a batch; `on_gradients` is called before clipping.

    A step that the guard does not accept leaves weights, moments and running means unchanged, bit for bit. Nothing
    waits for the device.
    """
    model, optimizer, train = learner.model, learner.optimizer, settings.train
    ranks = learner.gradients.ranks
    windows, length = batch.tokens_BT.shape[0], settings.sequence_length
    inputs_BT, labels_BT = labels_of(_cut(batch.tokens_BT, length), _cut(batch.loss_mask_BT, length))
    documents_BT = _cut(batch.document_ids_BT, length)
    micro = (train.micro_batch_windows or windows) * (inputs_BT.shape[0] // windows)
    inputs, labels = torch.split(inputs_BT, micro), torch.split(labels_BT, micro)
    documents = [None] * len(inputs) if documents_BT is None else torch.split(documents_BT[:, :-1], micro)
    micro_batches = list(zip(inputs, labels, documents, strict=True))
    valid_tokens = (labels_BT != IGNORED).sum().to(model.embedding.device, non_blocking=True)
    valid_tokens = ranks.sum_of_data(valid_tokens)
    batch_tokens = inputs_BT.numel() * ranks.data_world
    sums = accumulate(model, micro_batches, train, valid_tokens, batch_tokens, learner.gradients)
    nats_per_token, squares = ranks.sum_of_data(torch.stack(sums)).unbind()
    if on_gradients is not None:
        on_gradients()
    grad_norm, clipping_rate, is_accepted, is_outlier = _clip(learner, nats_per_token, settings.clip)
    optimizer.found_inf = torch.where(is_accepted, 0.0, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * group["rate_ratio"]
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
def _clip(
    learner: Learner, nats: torch.Tensor, clip: Clip
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Judge the step and clip its gradients; returns their norm before, the share clipped, and the two verdicts."""
    model, optimizer = learner.model, learner.optimizer
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.grad is not None}
    gradients = [parameter.grad for parameter in named.values() if parameter.grad is not None]
    norms = torch.stack(norms_of(gradients, [model.shard_specs.get(name) for name in named]))
    norm = torch.linalg.vector_norm(norms)
    is_accepted, is_outlier = learner.guard.judge(nats, norm)
    rate = torch.zeros_like(norm)
    if clip.max_norm is not None:
        rate = clip_by_norm(gradients, norm, clip.max_norm)
    elif clip.max_ratio is not None:
        for parameter in named.values():
            optimizer.state[parameter].setdefault("grad_norm_exp_avg", torch.zeros((), device=norm.device))
        means = [optimizer.state[parameter]["grad_norm_exp_avg"] for parameter in named.values()]
        rate = clip_by_history(gradients, norms, means, clip, is_accepted)
    return norm, rate, is_accepted, is_outlier

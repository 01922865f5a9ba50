"""A mixture of SwiGLU experts, dropless: every token reaches all the experts it chose.

B batch, T time, D width, N tokens, E experts, C experts chosen by a token, M = N·C assignments, F inner width, W groups
over which load is balanced.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .architecture import Architecture, Routing
from .kernels import swiglu

__all__ = ["MoE"]


def route(logits_NE: torch.Tensor, routing: Routing) -> tuple[torch.Tensor, torch.Tensor]:
    """The chosen experts and their weights, each (N, C).

    Mixtral (arXiv 2401.04088) takes the softmax of the chosen logits, so that weights sum to one; OLMoE
    (arXiv 2409.02060) that of all logits and keeps what falls to the chosen.
    """
    chosen_logits_NC, experts_NC = logits_NE.topk(routing.chosen, dim=-1)
    if routing.renormalise:
        return experts_NC, chosen_logits_NC.softmax(dim=-1)
    return experts_NC, logits_NE.softmax(dim=-1).gather(1, experts_NC)


def balance_loss(logits_WNE: torch.Tensor, experts_WNC: torch.Tensor) -> torch.Tensor:
    """E · Σ fₑ·pₑ of each group (W): 1 where the load is even (arXiv 2101.03961, equation 4).

    fₑ is the share of the group's assignments that went to expert e, pₑ the mean of its probability. transformers'
    `load_balancing_loss_func` counts fₑ by token and so is C times as large.
    """
    count = logits_WNE.shape[-1]
    load_WE = F.one_hot(experts_WNC.flatten(1), count).to(torch.float32).mean(dim=1)
    return count * (load_WE * logits_WNE.softmax(dim=-1).mean(dim=1)).sum(dim=-1)


def router_z_loss(logits_NE: torch.Tensor) -> torch.Tensor:
    """The mean of logsumexp² over tokens (arXiv 2202.08906, equation 5)."""
    return (logits_NE.logsumexp(dim=-1) ** 2).mean()


def loop_product(x_MD: torch.Tensor, weight_EFD: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
    """Rows, sorted by expert and ending at `ends_E`, each times its expert's transposed weight: (M, F)."""
    sizes = torch.diff(ends_E, prepend=ends_E.new_zeros(1)).tolist()
    parts = [F.linear(rows, weight) for rows, weight in zip(torch.split(x_MD, sizes), weight_EFD, strict=True)]
    return torch.cat(parts)


def grouped_product(x_MD: torch.Tensor, weight_EFD: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
    """The same as `loop_product`, in one kernel and without waiting for the device to know how many rows each has."""
    product: torch.Tensor = torch._grouped_mm(x_MD, weight_EFD.transpose(-2, -1), offs=ends_E)
    return product


def _has_grouped(x: torch.Tensor) -> bool:
    """CUDA's kernel is only for bfloat16; the CPU's is the same loop, and older torch has neither."""
    return x.is_cuda and x.dtype == torch.bfloat16 and hasattr(torch, "_grouped_mm")


class _WithLoss(torch.autograd.Function):
    """Identity on `x` that gives `loss` the gradient one, so that it counts without being returned by the model."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(loss)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return grads[0], torch.ones_like(ctx.saved_tensors[0])


class MoE(nn.Module):
    """A router and its experts; `up_gate` and `down` are the matrices of all experts, stacked."""

    def __init__(self, shape: Architecture, routing: Routing) -> None:
        super().__init__()
        self.routing = routing
        self.router = nn.ParameterDict({"weight": nn.Parameter(torch.empty(routing.experts, shape.width))})
        self.up_gate = nn.Parameter(torch.empty(routing.experts, 2 * shape.inner_width, shape.width))
        self.down = nn.Parameter(torch.empty(routing.experts, shape.width, shape.inner_width))
        self.statistics: dict[str, torch.Tensor] = {}
        """Sums since they were last taken: `load` (E) assignments, `balance` and `z` times tokens, `tokens`."""

    def forward(self, x_BTD: torch.Tensor, loss_share: float = 0.0) -> torch.Tensor:
        """(B, T, D) to (B, T, D).

        `loss_share` is the weight of the router's losses: this micro-batch's share of the batch's tokens, divided by
        the number of layers; 0 outside training.
        """
        B, T, D = x_BTD.shape
        x_ND = x_BTD.reshape(-1, D)
        # always in float32: a rounding error here selects another expert
        logits_NE = F.linear(x_ND.float(), self.router["weight"].float())
        experts_NC, weights_NC = route(logits_NE, self.routing)
        out_ND = self._mix(x_ND, experts_NC, weights_NC.to(x_ND.dtype))
        if loss_share:
            groups = B if self.routing.per_window else 1
            per_group = (groups, B * T // groups, -1)
            balance = balance_loss(logits_NE.view(per_group), experts_NC.view(per_group)).mean()
            z = router_z_loss(logits_NE)
            loss = loss_share * (self.routing.balance_weight * balance + self.routing.z_weight * z)
            out_ND = _WithLoss.apply(out_ND, loss)  # type: ignore[no-untyped-call]
            self._count(experts_NC, balance.detach(), z.detach())
        return out_ND.view(B, T, D)

    def _mix(self, x_ND: torch.Tensor, experts_NC: torch.Tensor, weights_NC: torch.Tensor) -> torch.Tensor:
        """Sort assignments by expert, multiply, restore their order and sum over each token."""
        N, C = experts_NC.shape
        order_M = experts_NC.flatten().argsort(stable=True)
        # by expanding, not by indexing with repeats: its gradient is a sum in a fixed order
        x_MD = x_ND[:, None].expand(N, C, -1).reshape(N * C, -1)[order_M]
        ends_E = torch.bincount(experts_NC.flatten(), minlength=self.routing.experts).cumsum(0).to(torch.int32)
        product = grouped_product if _has_grouped(x_ND) else loop_product
        inner_MF = swiglu(product(x_MD, self.up_gate.to(x_ND.dtype), ends_E))
        y_MD = product(inner_MF, self.down.to(x_ND.dtype), ends_E)
        back_M = torch.empty_like(order_M).scatter_(0, order_M, torch.arange(N * C, device=order_M.device))
        return (y_MD[back_M].view(N, C, -1) * weights_NC[:, :, None]).sum(dim=1)

    @torch.no_grad()
    def _count(self, experts_NC: torch.Tensor, balance: torch.Tensor, z: torch.Tensor) -> None:
        tokens = experts_NC.shape[0]
        load_E = torch.bincount(experts_NC.flatten(), minlength=self.routing.experts).to(torch.float32)
        new = {"load": load_E, "balance": balance * tokens, "z": z * tokens, "tokens": load_E.new_tensor(tokens)}
        self.statistics = {name: value + self.statistics.get(name, 0) for name, value in new.items()}

"""AdamW, Lion and Muon in one optimizer. A step that must not count changes no bit of weights, moments and counts.

Whether it counts is a tensor on the device, `found_inf` as under torch.amp.GradScaler: nothing waits for it. What is
kept is chosen, never multiplied by 0, since NaN · 0 is NaN. All state is float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.adamw import adamw

from ..config.schema import OptimizerConfig
from ..model.transformer import Transformer
from ..runtime.sharded import local, part_like, whole
from .groups import assign

__all__ = ["GatedOptimizer", "build_optimizer", "orthogonalized"]

_Group = dict[str, Any]
_State = dict[str, torch.Tensor]


class GatedOptimizer(torch.optim.Optimizer):
    """Groups hold `params`, `names`, `rule`, `weight_decay`, `rate_ratio` (of the scheduled rate), `lr` and `splits`.

    `splits` has for each parameter the rows of the matrices that are stacked in it, `divisions` how it is divided in a
    tensor group. Where `found_inf` is 1, `step`
    leaves everything as it is; moments that do not exist yet become zeros.
    """

    def __init__(self, groups: list[_Group], optimizer: OptimizerConfig) -> None:
        betas = (optimizer.betas[0], optimizer.betas[1])
        super().__init__(groups, {"lr": 0.0, "betas": betas, "eps": optimizer.eps, "momentum": optimizer.momentum})
        self.found_inf: torch.Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            _RULES[group["rule"]](group, self.state, self.found_inf)


def _adamw(group: _Group, state: dict[torch.Tensor, _State], found_inf: torch.Tensor | None) -> None:
    """AdamW (arXiv 1711.05101) by torch's fused kernel, which returns without writing where `found_inf` is set."""
    parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
    if not parameters:
        return
    for parameter in parameters:
        if "step" not in state[parameter]:
            state[parameter]["step"] = torch.zeros((), device=parameter.device)
            state[parameter]["exp_avg"] = torch.zeros_like(parameter)
            state[parameter]["exp_avg_sq"] = torch.zeros_like(parameter)
    adamw(
        [local(parameter) for parameter in parameters],
        [local(parameter.grad) for parameter in parameters if parameter.grad is not None],
        [local(state[parameter]["exp_avg"]) for parameter in parameters],
        [local(state[parameter]["exp_avg_sq"]) for parameter in parameters],
        [],
        [state[parameter]["step"] for parameter in parameters],
        fused=True,
        found_inf=found_inf,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def _keep(place: torch.Tensor, new: torch.Tensor, found_inf: torch.Tensor | None) -> None:
    """Write `new` to `place`, unless the step must not count."""
    place.copy_(new if found_inf is None else torch.where(found_inf > 0, place, new))


def _lion(group: _Group, state: dict[torch.Tensor, _State], found_inf: torch.Tensor | None) -> None:
    """Lion (arXiv 2302.06675, algorithm 2): the sign of an average of gradients; the paper has betas 0.9, 0.99."""
    beta1, beta2 = group["betas"]
    for parameter in group["params"]:
        if parameter.grad is None:
            continue
        mean = local(state[parameter].setdefault("exp_avg", torch.zeros_like(parameter)))
        weight, gradient = local(parameter), local(parameter.grad)
        direction = torch.lerp(mean, gradient, 1 - beta1).sign_()
        decayed = weight * (1 - group["lr"] * group["weight_decay"])
        _keep(weight, decayed.sub_(direction, alpha=group["lr"]), found_inf)
        _keep(mean, torch.lerp(mean, gradient, 1 - beta2), found_inf)


def _muon(group: _Group, state: dict[torch.Tensor, _State], found_inf: torch.Tensor | None) -> None:
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): Nesterov's momentum, made orthogonal.

    The factor 0.2·√max(rows, columns) gives updates the size of AdamW's, so that rate and decay of AdamW fit
    (arXiv 2502.16982, section 2.2). Matrices that are stacked in one parameter are treated one by one. Where
    parameters are sharded, every rank gathers and orthogonalises the whole matrix.
    """
    momentum = group["momentum"]
    for parameter, splits, division in zip(group["params"], group["splits"], group["divisions"], strict=True):
        if parameter.grad is None:
            continue
        mean = state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        new_mean = torch.lerp(mean, parameter.grad, 1 - momentum)
        direction = whole(torch.lerp(parameter.grad, new_mean, momentum), division)
        matrices = torch.split(direction, splits, dim=-2)
        update = torch.cat([orthogonalized(m) * (0.2 * max(m.shape[-2:]) ** 0.5) for m in matrices], dim=-2)
        weight = local(parameter)
        decayed = weight * (1 - group["lr"] * group["weight_decay"])
        _keep(weight, decayed.sub_(local(part_like(update, parameter, division)), alpha=group["lr"]), found_inf)
        _keep(local(mean), local(new_mean), found_inf)


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """Nearly U·Vᵀ of a matrix U·S·Vᵀ (its last two dimensions), float32: singular values become 0.7 to 1.2.

    Five Newton–Schulz steps with the coefficients of Jordan et al. (2024), which rise fastest at 0. On CUDA the
    products are bfloat16.
    """
    x = matrix.to(torch.bfloat16 if matrix.is_cuda else torch.float32)
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x  # Jordan et al. 2024
    result: torch.Tensor = (x if wide else x.mT).float()
    return result


_RULES: dict[str, Callable[[_Group, dict[torch.Tensor, _State], torch.Tensor | None], None]] = {
    "adamw": _adamw,
    "lion": _lion,
    "muon": _muon,
}


def build_optimizer(model: Transformer, optimizer: OptimizerConfig, where: str) -> GatedOptimizer:
    """The optimizer of a config.

    Raises: ConfigError: groups that do not fit the model.
    """
    parameters = dict(model.named_parameters())
    groups = [
        {
            "params": [parameters[name] for name in group.names],
            "names": list(group.names),
            "splits": [_splits(name, parameters[name], model) for name in group.names],
            "divisions": [model.divisions.get(name) for name in group.names],
            "rule": group.rule,
            "weight_decay": group.weight_decay,
            "rate_ratio": group.rate_ratio,
        }
        for group in assign(parameters.items(), optimizer, where)
    ]
    return GatedOptimizer(groups, optimizer)


def _splits(name: str, parameter: torch.Tensor, model: Transformer) -> list[int]:
    """Rows of the matrices in a parameter: queries, keys and values are one, as are an MLP's two inner matrices."""
    if parameter.ndim < 2:
        return []
    division = model.divisions.get(name)
    rows = (division.size(parameter.shape) if division else parameter.shape)[-2]
    if name.endswith("attention.qkv.weight"):
        keys = model.shape.key_value_heads * model.shape.head_width
        return [rows - 2 * keys, keys, keys]
    return [rows // 2, rows // 2] if name.endswith(("up_gate.weight", "up_gate")) else [rows]

"""The optimizer: update rules (AdamW, Lion, Muon), groups of parameters, clipping, learning rate.

A step that must not count changes no bit of weights, moments and counts. Whether it counts is a tensor on the device,
`found_inf`, as under torch.amp.GradScaler, so nothing waits for it. Values are selected, never multiplied by 0, since
NaN · 0 is NaN. All state is float32.
"""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.optim.adamw import adamw

from .config.schema import GroupConfig, OptimizerConfig, RunConfig, ScheduleConfig
from .data.order import BatchSchedule
from .formats.contract import Problem
from .model.transformer import Transformer
from .parallel import local, part_like, whole
from .settings import SettingError

__all__ = [
    "Clip",
    "GatedOptimizer",
    "build_optimizer",
    "clip_by_history",
    "clip_by_norm",
    "clip_of_step",
    "rate_of_step",
]


# ---- update rules

_Group = dict[str, Any]
_State = dict[str, torch.Tensor]


class GatedOptimizer(torch.optim.Optimizer):
    """Groups hold `params`, `names`, `rule`, `weight_decay`, `rate_ratio` (of the scheduled rate), `lr` and `splits`.

    `splits` has for each parameter the rows of the matrices that are stacked in it, `specs` how it is
    divided in a tensor group. Where `found_inf` is 1, `step` changes nothing; moments that do not exist yet become
    zeros.
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


def _keep(target: torch.Tensor, new: torch.Tensor, found_inf: torch.Tensor | None) -> None:
    """Write `new` to `target`, unless the step must not count."""
    target.copy_(new if found_inf is None else torch.where(found_inf > 0, target, new))


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
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): Nesterov momentum, orthogonalized.

    The factor 0.2·√max(rows, columns) gives updates the size of AdamW's, so that rate and decay of AdamW fit
    (arXiv 2502.16982, section 2.2). Matrices stacked in one parameter are treated one by one. If
    parameters are sharded, every rank gathers and orthogonalizes the whole matrix.
    """
    momentum = group["momentum"]
    for parameter, splits, spec in zip(group["params"], group["splits"], group["specs"], strict=True):
        if parameter.grad is None:
            continue
        mean = state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        new_mean = torch.lerp(mean, parameter.grad, 1 - momentum)
        direction = whole(torch.lerp(parameter.grad, new_mean, momentum), spec)
        matrices = torch.split(direction, splits, dim=-2)
        update = torch.cat([orthogonalized(m) * (0.2 * max(m.shape[-2:]) ** 0.5) for m in matrices], dim=-2)
        weight = local(parameter)
        decayed = weight * (1 - group["lr"] * group["weight_decay"])
        _keep(weight, decayed.sub_(local(part_like(update, parameter, spec)), alpha=group["lr"]), found_inf)
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


# ---- groups


def build_optimizer(model: Transformer, optimizer: OptimizerConfig) -> GatedOptimizer:
    """The optimizer of a config, its groups in the order of their first parameters in the model."""
    parameters = dict(model.named_parameters())
    problems = _unmatched(optimizer.groups, list(parameters))
    groups: dict[tuple[int | None, str, float], _Group] = {}
    for name, parameter in parameters.items():
        matching = [i for i, group in enumerate(optimizer.groups) if any(fnmatchcase(name, g) for g in group.params)]
        if len(matching) > 1:
            several = " and ".join(f"optimizer.groups.{index}" for index in matching)
            problems.append(Problem(f'parameter "{name}" is in {several}; expected one group at most'))
        index = matching[0] if matching else None
        own = GroupConfig(params=()) if index is None else optimizer.groups[index]
        rule = own.kind or _rule(name, parameter, optimizer)
        if rule == "muon" and parameter.ndim < 2:
            problems.append(Problem(f'parameter "{name}" is a vector; expected a matrix for Muon'))
        decay = own.weight_decay
        if decay is None:
            decay = optimizer.weight_decay if _decays(name, parameter, optimizer) else 0.0
        ratio = 1.0 if own.learning_rate is None else own.learning_rate / optimizer.learning_rate
        settings = {"rule": rule, "weight_decay": decay, "rate_ratio": ratio}
        lists = {"params": parameter, "names": name, "splits": _splits(name, parameter, model)}
        group = groups.setdefault((index, rule, decay), settings)
        for key, value in (lists | {"specs": model.shard_specs.get(name)}).items():
            group.setdefault(key, []).append(value)
    if problems:
        raise SettingError(*problems)
    return GatedOptimizer(list(groups.values()), optimizer)


def _unmatched(groups: tuple[GroupConfig, ...], names: list[str]) -> list[Problem]:
    problems = []
    for index, group in enumerate(groups):
        for number, glob in enumerate(group.params):
            if not any(fnmatchcase(name, glob) for name in names):
                near = difflib.get_close_matches(glob, names, n=1, cutoff=0.0)
                message = f'"optimizer.groups.{index}.params.{number}" is "{glob}", which matches no parameter'
                problems.append(Problem(f"{message}; expected a name or glob", f'did you mean "{near[0]}"?'))
    return problems


def _rule(name: str, parameter: nn.Parameter, optimizer: OptimizerConfig) -> str:
    """Muon updates matrices between hidden states, AdamW the rest."""
    outer = name in ("embedding", "head.weight") or name.endswith("router.weight") or parameter.ndim < 2
    return "adamw" if optimizer.kind == "muon" and outer else optimizer.kind


def _decays(name: str, parameter: nn.Parameter, optimizer: OptimizerConfig) -> bool:
    """Matrices always, embedding and norms if the config says so."""
    if name == "embedding":
        return optimizer.decay_embeddings
    return optimizer.decay_norms if parameter.ndim < 2 else True


def _splits(name: str, parameter: torch.Tensor, model: Transformer) -> list[int]:
    """Rows of the matrices in a parameter: queries, keys and values are stacked, as are an MLP's two inner matrices."""
    if parameter.ndim < 2:
        return []
    spec = model.shard_specs.get(name)
    rows = (spec.size(parameter.shape) if spec else parameter.shape)[-2]
    if name.endswith("attention.qkv.weight"):
        keys = model.shape.key_value_heads * model.shape.head_width
        return [rows - 2 * keys, keys, keys]
    return [rows // 2, rows // 2] if name.endswith(("up_gate.weight", "up_gate")) else [rows]


# ---- clipping

_TINY = 1e-6  # added to a norm before it divides, as in torch


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The bounds of a step: on the global norm, or on each parameter's norm over its running mean; or none."""

    max_norm: float | None = None
    max_ratio: float | None = None
    beta: float = 0.95
    """Decay of the running means."""
    keeps_history: bool = True
    """Whether running means are updated: from the second step on."""


def clip_of_step(step: int, optimizer: OptimizerConfig) -> Clip:
    """The bounds of a step (from 1): `clip_warmup_factor` times as wide up to and including step `clip_warmup_steps`.

    OLMo-1 sets the bound of a step after it has clipped, so there the warmup lasts a step longer.
    """
    factor = optimizer.clip_warmup_factor if step <= optimizer.clip_warmup_steps else 1.0
    norm, ratio = optimizer.max_grad_norm, optimizer.max_grad_norm_ratio
    if ratio is not None:
        return Clip(max_ratio=ratio * factor, beta=max(optimizer.betas), keeps_history=step > 1)
    return Clip(max_norm=None if norm is None else norm * factor)


def clip_by_norm(gradients: list[torch.Tensor], norm: torch.Tensor, max_norm: float) -> torch.Tensor:
    """Scale gradients in place so that their global norm is at most `max_norm`; returns whether it did, 0 or 1."""
    coefficient = (max_norm / (norm + _TINY)).clamp(max=1.0)
    torch._foreach_mul_([local(gradient) for gradient in gradients], coefficient)
    return (coefficient < 1).float()


def clip_by_history(
    gradients: list[torch.Tensor],
    norms: torch.Tensor,
    means: list[torch.Tensor],
    clip: Clip,
    accepted: torch.Tensor,
) -> torch.Tensor:
    """Scale each gradient in place to at most `max_ratio` times the mean of its `norms`; returns the share scaled.

    A mean (a scalar, 0 at first) begins with the first norm, from the second step on as in OLMo-1, and continues with
    the norms after clipping of accepted steps.
    """
    assert clip.max_ratio is not None
    before = torch.stack(means)
    mean = torch.where(before == 0, norms, before)
    coefficients = (clip.max_ratio * mean / (norms + _TINY)).clamp(max=1.0)
    torch._foreach_mul_([local(gradient) for gradient in gradients], list(coefficients.unbind()))
    if clip.keeps_history:
        after = torch.where(accepted, torch.lerp(mean, norms * coefficients, 1 - clip.beta), before)
        torch._foreach_copy_(means, list(after.unbind()))
    return (coefficients < 1).float().mean()


# ---- learning rate


def learning_rate(t: float, end: float, peak: float, schedule: ScheduleConfig) -> float:
    """The rate at `t`: warmup from `warmup_min_lr`, reached at t = 0, to the peak at t = `warmup`; then the shape.

    A shape falls from the peak, at the end of the warmup, to `final_ratio · peak` at `t_max` (the run's end if null)
    and stays there. `max`, `sequential` and `bolt_on` are made of other schedules.
    """
    whole = end if schedule.t_max is None else schedule.t_max
    if schedule.kind == "max":
        return max(learning_rate(t, whole, peak, part) for part in schedule.parts)
    if schedule.kind == "sequential":
        return _sequential(t, whole, peak, schedule)
    if schedule.kind == "bolt_on":
        return _bolt_on(t, whole, peak, schedule)
    warmup = _length(schedule.warmup, whole)
    top = (1 + schedule.final_ratio) / 2 * peak if schedule.kind == "half_cosine" else peak
    if warmup and t <= warmup:
        return schedule.warmup_min_lr + (top - schedule.warmup_min_lr) * t / warmup
    return _shape(t, warmup, whole, peak, schedule)


def rate_of_step(step: int, config: RunConfig, batches: BatchSchedule) -> float:
    """The rate of update `step` (from 1) of a resolved config."""
    assert config.train.steps is not None
    t, end = step, config.train.steps
    if config.schedule.units == "tokens":
        t, end = batches.tokens(step), batches.tokens(end)
    rate = learning_rate(t, end, config.optimizer.learning_rate, config.schedule)
    if config.train.batch_lr_scaling:  # the noise of a gradient falls with the root of the batch
        rate *= math.sqrt(batches.windows(step) / config.train.batch_windows)
    return rate


def _shape(t: float, warmup: float, whole: float, peak: float, schedule: ScheduleConfig) -> float:
    low = schedule.final_ratio * peak
    x = min(1.0, (t - warmup) / (whole - warmup)) if whole > warmup else float(t > warmup)
    match schedule.kind:
        case "linear":
            return low + (peak - low) * (1 - x)
        case "cosine":
            return low + (peak - low) * (1 + math.cos(math.pi * x)) / 2
        case "half_cosine":  # the second half of a cosine of twice the length, for a run that continues from its middle
            return low + (peak - low) * (1 + math.cos(math.pi * (1 + x) / 2)) / 2
        case "cosine_linear_envelope":
            return low + (1 - x) * (peak - low) * (1 + math.cos(math.pi * x)) / 2
        case "exponential":
            return float(peak * schedule.final_ratio**x)
        case "inv_sqrt":
            return peak * math.sqrt(warmup / max(warmup, t)) if warmup else peak / math.sqrt(max(1.0, t))
        case "power":  # arXiv 2408.13359, eq. 5: min(peak, a · tᵇ)
            return min(peak, float(schedule.scale * max(t, 1.0) ** schedule.exponent))
        case "wsd":  # arXiv 2404.06395, section 4
            return _decayed(t, 0.0, whole, peak, low, schedule)
        case "wsds":  # arXiv 2410.05192: every period ends low, the next one starts at the peak
            begun = max((period for period in schedule.periods if period < t), default=0.0)
            ends = min((period for period in schedule.periods if period >= t), default=whole)
            return _decayed(t, begun, ends, peak, low, schedule)
        case _:
            return peak


def _length(value: float, whole: float) -> float:
    return value * whole if value < 1 else value


def _decayed(t: float, begun: float, ends: float, peak: float, low: float, schedule: ScheduleConfig) -> float:
    """The peak, with a linear decay in the last `decay` before `ends`."""
    decay = _length(schedule.decay, ends - begun)
    return low + (peak - low) * min(1.0, max(0.0, ends - t) / decay) if decay else peak


def _sequential(t: float, whole: float, peak: float, schedule: ScheduleConfig) -> float:
    """One part after the other, each from t = 0 and from the final rate of the one before it."""
    for part in schedule.parts[:-1]:
        assert part.length is not None
        if t <= part.length:
            return learning_rate(t, part.length, peak, part)
        peak = learning_rate(part.length, part.length, peak, part)
        t, whole = t - part.length, whole - part.length
    return learning_rate(t, whole, peak, schedule.parts[-1])


def _bolt_on(t: float, whole: float, peak: float, schedule: ScheduleConfig) -> float:
    """0 before `warmup_from`, then up to the part's rate at the end of the warmup: for a reset of the moments."""
    first, last = schedule.warmup_from, schedule.warmup_from + schedule.warmup
    (part,) = schedule.parts
    if t < first:
        return 0.0
    if t < last:
        return learning_rate(last, whole, peak, part) * (t - first) / (last - first)
    return learning_rate(t, whole, peak, part)

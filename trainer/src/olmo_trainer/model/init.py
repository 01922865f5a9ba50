"""Initial weights: every distribution in one table; each weight is a function only of its name and the seed.

| scheme | embedding | q, k, v, gate | up | attention out, down | output matrix |
|---|---|---|---|---|---|
| `normal` (OLMo-2 and 3, arXiv 2501.00656) | s | s | s | s | s |
| `mitchell` (OLMo-1, allenai/OLMo initialization.py) | 1/√d | 1/√d | 1/√d | 1/√(2·inputs·(l+1)) | 1/√d |
| `full_megatron` (the same file) | s | s | s | s/√(2L) | 1/√d |
| `llama` (OLMo-core nn/transformer/init.py) | 1 | s | s/√(2L) | s/√(2L) | 1/√d |
| `llama_depth` (the same) | 1 | s | s/√(2(l+1)) | s/√(2(l+1)) | 1/√d |
| `fan_in` (the same) | 1 | 1/√inputs | 1/√inputs | 1/√inputs | 1/√d |
| `normalized` (the same, after nGPT, arXiv 2410.01131) | 1/√d | 1/√d | 1/√d | 1/√d/√(2L) | 1/√d |

s is `init.std`, d the width, L the number of layers, l a layer's number from 0. Routers are drawn like q, k and v. All
are normal, truncated at three standard deviations. Norm weights are one, biases zero.
"""

import hashlib
import math

import torch
from torch import nn

from ..config.schema import InitConfig
from ..parallel import put
from .architecture import Architecture
from .transformer import Transformer

__all__ = ["initialize"]


def standard_deviation(name: str, shape: Architecture, init: InitConfig) -> float:
    """The standard deviation of the named weight; `…mlp.up…` and `…mlp.gate…` are the halves of `…mlp.up_gate…`."""
    narrow, std, scheme = 1 / math.sqrt(shape.width), init.std, init.scheme
    name = name.removesuffix(".weight")
    if name == "head":
        return std if scheme == "normal" else narrow
    if name == "embedding":
        return {"normal": std, "full_megatron": std, "mitchell": narrow, "normalized": narrow}.get(scheme, 1.0)
    layer = int(name.split(".")[1])
    is_out = name.endswith((".attention.out", ".mlp.down"))
    inputs = shape.width
    if is_out:
        inputs = shape.inner_width if name.endswith(".down") else shape.heads * shape.head_width
    if scheme == "fan_in":
        return 1 / math.sqrt(inputs)
    if scheme == "mitchell":
        return 1 / math.sqrt(2 * inputs * (layer + 1)) if is_out else narrow
    base = narrow if scheme == "normalized" else std
    if scheme == "normal" or not (is_out or (name.endswith(".mlp.up") and scheme.startswith("llama"))):
        return base
    return base / math.sqrt(2 * (layer + 1 if scheme == "llama_depth" else shape.layers))


def draw(name: str, size: torch.Size, shape: Architecture, init: InitConfig, seed: int) -> torch.Tensor:
    """The whole initial weight of a name, float32 on the CPU: equal however the model is sharded."""
    if name.endswith(".bias"):
        return torch.zeros(size)
    if len(size) == 1:
        return torch.ones(size)
    key = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little") >> 1
    weight = torch.empty(size, dtype=torch.float32)
    nn.init.trunc_normal_(weight, a=-3, b=3, generator=torch.Generator().manual_seed(key))
    if "up_gate" not in name:
        return weight.mul_(standard_deviation(name, shape, init))
    for part, half in zip(("up", "gate"), weight.chunk(2, dim=-2), strict=True):
        half.mul_(standard_deviation(name.replace("up_gate", part), shape, init))
    return weight


@torch.no_grad()
def initialize(model: Transformer, init: InitConfig, seed: int) -> None:
    """Draw all weights."""
    for name, parameter in model.named_parameters():
        spec = model.shard_specs.get(name)
        size = spec.size(parameter.shape) if spec else parameter.shape
        put(parameter, draw(name, size, model.shape, init, seed), spec)

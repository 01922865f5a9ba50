"""The tensors of a model directory: read, checked against what the model needs, cast, refused if not finite."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..formats.checkpoint import CheckpointDirectory
from ..formats.fields import mismatch

__all__ = ["EMBEDDING", "HEAD", "cast", "check_finite", "dtype_of_most", "needed_weights", "stored_weights", "unties"]

log = logging.getLogger(__name__)

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_CASTS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_COMPUTED = "rotary_emb.inv_freq"  # a buffer that old versions of transformers stored; it follows from the settings


def stored_weights(opened: CheckpointDirectory) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, in their stored dtypes.

    Raises: FormatError: `invalid_value`: one contains NaN or infinity; `wrong_dtype`: one contains integers.
    """
    weights: dict[str, torch.Tensor] = {}
    for path in sorted({tensor.path for tensor in opened.tensors.values()}):
        weights.update(load_file(path))
    check_finite(weights, {name: tensor.path for name, tensor in opened.tensors.items()})
    return weights


def check_finite(weights: Mapping[str, torch.Tensor], places: Mapping[str, Path] | Path) -> None:
    """Refuse weights that are not finite: whatever is computed from them means nothing.

    Raises: FormatError: `invalid_value`, `wrong_dtype`, with the tensor's name.
    """
    for name, tensor in weights.items():
        place = places if isinstance(places, Path) else places[name]
        if tensor.dtype not in _FLOATS:
            got = str(tensor.dtype).removeprefix("torch.")
            raise mismatch(place, "wrong_dtype", f"of {got}", "float32, bfloat16 or float16", field=name)
        if tensor.sum().isfinite():  # NaN and infinity survive a sum, which costs a tenth of looking at each weight
            continue
        bad = tensor.numel() - int(tensor.isfinite().sum())
        if bad:
            kind = "NaN" if tensor.isnan().any() else "infinity"
            hint = "use a checkpoint from before the weights overflowed"
            got = f"{kind} in {bad} of {tensor.numel()} places"
            raise mismatch(place, "invalid_value", got, "finite numbers", field=name, hint=hint)


def needed_weights(
    stored: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]], where: Path
) -> dict[str, torch.Tensor]:
    """The stored tensors that a model consists of; warns about the others.

    Raises: FormatError: `missing_tensor`, `wrong_shape`.
    """
    needed = {}
    for name, shape in shapes.items():
        if name not in stored:
            raise mismatch(where, "missing_tensor", "missing", f"shape {shape}", field=name)
        if stored[name].shape != shape:
            got = f"of shape {list(stored[name].shape)}"
            raise mismatch(where, "wrong_shape", got, f"{list(shape)}, as the configuration implies", field=name)
        needed[name] = stored[name]
    others = [name for name in stored if name not in shapes and not name.endswith(_COMPUTED) and name != HEAD]
    if others:
        shown = ", ".join(others[:3]) + ("…" if len(others) > 3 else "")
        log.warning("%s: skipping %d tensors that the model does not have (%s)", where, len(others), shown)
    return needed


def cast(weights: dict[str, torch.Tensor], dtype: str | None, where: Path) -> dict[str, torch.Tensor]:
    """The weights in another dtype; unchanged if it is None.

    Raises: FormatError: `invalid_value`: one overflows.
    """
    if dtype is None:
        return weights
    weights = {name: tensor.to(_CASTS[dtype]) for name, tensor in weights.items()}
    check_finite(weights, where)
    return weights


def unties(stored: Mapping[str, torch.Tensor]) -> bool:
    """Whether the stored output matrix differs from the embedding, whatever `tie_word_embeddings` says."""
    return HEAD in stored and EMBEDDING in stored and not torch.equal(stored[HEAD], stored[EMBEDDING])


def dtype_of_most(weights: Mapping[str, torch.Tensor]) -> str:
    """The dtype of most parameters, which config.json and the manifest state."""
    counts: dict[str, int] = {}
    for tensor in weights.values():
        name = str(tensor.dtype).removeprefix("torch.")
        counts[name] = counts.get(name, 0) + tensor.numel()
    return min(counts, key=lambda name: (-counts[name], name))

"""Read a checkpoint back, after every file is checked against its sha256."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..config.parse import build
from ..config.published import model_settings
from ..config.schema import ModelConfig
from ..formats.checkpoint import open_checkpoint
from ..formats.fields import mismatch
from ..formats.json_lines import read_object
from ..model.architecture import architecture_of
from ..model.transformer import Transformer
from ..runtime.sharded import is_shard, local, part_like, put, whole
from .layout import from_published, published_shapes
from .save import Progress, TrainingState
from .weights import HEAD, needed_weights, stored_weights, unties

__all__ = ["load_training", "load_weights", "read_model", "restore_optimizer"]


def load_weights(model: Transformer, directory: Path) -> None:
    """Put a checkpoint's weights into a model of the same shape.

    Raises: FormatError: `checksum_mismatch`, `missing_tensor`, `wrong_shape`, ….
    """
    opened = open_checkpoint(directory)
    stored = stored_weights(opened)
    if model.shape.tied and unties(stored):
        path, got = opened.tensors[HEAD].path, "a different matrix"
        expected, hint = "the embedding, as tie_word_embeddings says", "olmo convert hf2olmo unties them"
        raise mismatch(path, "invalid_value", got, expected, field=HEAD, hint=hint)
    published = needed_weights(stored, published_shapes(_hollow(model), model.shape), directory)
    state = from_published(published, model.shape)
    for name, tensor in model.state_dict().items():
        put(tensor, state[name], model.divisions.get(name))


def _hollow(model: Transformer) -> dict[str, torch.Tensor]:
    """The model's weights without their numbers, whole where they are sharded."""
    sizes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    sizes |= {name: division.size(sizes[name]) for name, division in model.divisions.items()}
    return {name: torch.empty(size, device="meta") for name, size in sizes.items()}


def read_model(directory: Path, compute_dtype: torch.dtype = torch.float32) -> tuple[Transformer, dict[str, Any]]:
    """The model of a checkpoint directory, ours or any of Hugging Face's, and its config.json.

    Raises: ConfigError: a model that this trainer does not have; FormatError.
    """
    where = directory / "config.json"
    config: dict[str, Any] = read_object(where)
    shape = architecture_of(build(ModelConfig, model_settings(config, where), str(where)), 0)
    model = Transformer(shape, compute_dtype)
    load_weights(model, directory)
    return model, config


def load_training(directory: Path) -> TrainingState:
    """Read `training/` but for the optimizer's state; the caller has had the checkpoint checked.

    Raises: FormatError: `missing_file` for a checkpoint that cannot be continued.
    """
    root = directory / "training"
    state = read_object(root / "state.json")
    try:
        progress = Progress(**state)
        progress = replace(progress, left_out=tuple((first, last) for first, last in progress.left_out))
    except (TypeError, ValueError) as error:
        expected = ", ".join(vars(Progress()))
        raise mismatch(root / "state.json", "missing_field", "of other fields", expected) from error
    random, guard = (load_file(root / f"{name}.safetensors") for name in ("random", "guard"))
    return TrainingState(optimizer={}, random=random, guard=guard, progress=progress)


def restore_optimizer(model: Transformer, optimizer: torch.optim.Optimizer, directory: Path) -> None:
    """Put back the optimizer's state from `training/`: one file, or the shards that any number of ranks wrote."""
    from .shards import read_shards  # of much that a model to look at does not need

    parameters = dict(model.named_parameters())
    file, shards = directory / "optimizer.safetensors", directory / "optimizer"
    tensors = load_file(file) if file.is_file() else read_shards(parameters, model.divisions, shards)
    for name, tensor in tensors.items():
        if local(tensor).isnan().any():
            where = file if file.is_file() else shards
            raise mismatch(where, "invalid_value", "NaN in places", "numbers", field=name)
    states: dict[str, dict[str, Any]] = {name: {} for name in parameters}
    for full_name, tensor in tensors.items():
        key, _, name = full_name.partition(".")
        place, division = parameters[name], model.divisions.get(name)
        if not tensor.ndim or (is_shard(tensor) and division is None):
            states[name][key] = tensor.to(place.device)
        else:
            states[name][key] = part_like(whole(tensor), place, division)
    for name, parameter in parameters.items():
        optimizer.state[parameter] = states[name]

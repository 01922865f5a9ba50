"""Read a checkpoint back, after every file is checked against its sha256."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..config.published import model_settings
from ..config.schema import ModelConfig
from ..formats.checkpoint import read_checkpoint
from ..formats.contract import FormatError, mismatch, read_object
from ..model.architecture import architecture_of
from ..model.transformer import Transformer
from ..parallel import is_shard, local, part_like, put, whole
from ..progress import Progress
from ..settings import build
from .layout import HEAD, from_published, needed_weights, published_shapes, stored_weights, unties
from .save import TrainingState

__all__ = ["load_training", "load_weights", "read_model", "restore_optimizer"]


def load_weights(model: Transformer, directory: Path) -> None:
    """Load a checkpoint's weights into a model of the same shape.

    Raises: FormatError: `checksum_mismatch`, `missing_tensor`, `wrong_shape`, ….
    """
    opened = read_checkpoint(directory)
    stored = stored_weights(opened)
    if model.shape.tied and unties(stored):
        path, got = opened.tensors[HEAD].path, "a different matrix"
        expected, hint = "the embedding, as tie_word_embeddings says", "olmo convert hf2olmo unties them"
        raise mismatch("invalid_value", path, got, expected, field=HEAD, hint=hint)
    published = needed_weights(stored, published_shapes(model.shape), directory)
    state = from_published(published, model.shape)
    for name, tensor in model.state_dict().items():
        put(tensor, state[name], model.shard_specs.get(name))


def read_model(directory: Path, compute_dtype: torch.dtype = torch.float32) -> tuple[Transformer, dict[str, Any]]:
    """The model of a checkpoint directory, ours or any of Hugging Face's, and its config.json."""
    where = directory / "config.json"
    config: dict[str, Any] = read_object(where)
    shape = architecture_of(build(ModelConfig, model_settings(config, where), str(where)), 0)
    model = Transformer(shape, compute_dtype)
    load_weights(model, directory)
    return model, config


def load_training(directory: Path) -> TrainingState:
    """Read `training/` without the optimizer's state; the caller has checked the checkpoint.

    Raises: FormatError: `missing_file` for a checkpoint that cannot be continued.
    """
    root = directory / "training"
    state = read_object(root / "state.json")
    try:
        progress = Progress.of_row(state)
    except (TypeError, ValueError) as error:
        expected = ", ".join(Progress().row())
        message = f"does not have the fields of a run; expected {expected}"
        raise FormatError("missing_field", root / "state.json", message) from error
    random, guard = (load_file(root / f"{name}.safetensors") for name in ("random", "guard"))
    return TrainingState(optimizer={}, random=random, guard=guard, progress=progress)


def restore_optimizer(model: Transformer, optimizer: torch.optim.Optimizer, directory: Path) -> None:
    """Restore the optimizer's state from `training/`: one file, or the shards of any number of ranks."""
    from .shards import read_shards  # imports torch's distributed checkpoint, which takes long

    parameters = dict(model.named_parameters())
    file, shards = directory / "optimizer.safetensors", directory / "optimizer"
    tensors = load_file(file) if file.is_file() else read_shards(parameters, model.shard_specs, shards)
    for name, tensor in tensors.items():
        if local(tensor).isnan().any():
            where = file if file.is_file() else shards
            raise FormatError("invalid_value", where, f'"{name}" contains NaN; expected numbers', field=name)
    states: dict[str, dict[str, Any]] = {name: {} for name in parameters}
    for full_name, tensor in tensors.items():
        key, _, name = full_name.partition(".")
        parameter, spec = parameters[name], model.shard_specs.get(name)
        if not tensor.ndim or (is_shard(tensor) and spec is None):
            states[name][key] = tensor.to(parameter.device)
        else:
            states[name][key] = part_like(whole(tensor), parameter, spec)
    for name, parameter in parameters.items():
        optimizer.state[parameter] = states[name]

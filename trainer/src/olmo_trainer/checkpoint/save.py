"""Write a checkpoint: into a directory under a temporary name, the manifest last, then one rename."""

import logging
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ..config.load import FORMER_DTYPES, FORMER_NAMES
from ..config.schema import CheckpointConfig, RunConfig
from ..data.sources import TrainingData, input_rows
from ..formats.checkpoint import Tensor, open_tokenizer
from ..formats.contract import FormatError, canonical_json, read_object, sha256_file
from ..formats.manifest import MANIFEST, write_manifest
from ..model.transformer import Transformer
from ..parallel import by_rows, whole
from ..progress import Progress
from ..settings import as_mapping
from .layout import ARCHITECTURES, check_finite, generation_json, model_json, to_published, tokenizer_json

__all__ = [
    "TrainingState",
    "artifact_config",
    "artifact_inputs",
    "capture_optimizer",
    "clear_unfinished",
    "copy_sidecars",
    "describe_checkpoint",
    "final_name",
    "kept_from",
    "publish",
    "remove",
    "remove_old",
    "save_checkpoint",
    "step_directories",
    "whole_weights",
    "write_json",
    "write_weights",
]

log = logging.getLogger(__name__)


_WRITING = ".writing"
_SIDECARS = (
    "generation_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """The content of `training/`."""

    optimizer: dict[str, torch.Tensor]
    random: dict[str, torch.Tensor]
    guard: dict[str, torch.Tensor]
    progress: Progress


def describe_checkpoint(
    directory: Path,
    weights: Mapping[str, torch.Tensor] | Mapping[str, Tensor],
    config: dict[str, Any],
    details: dict[str, Any],
    inputs: list[dict[str, Any]],
) -> str:
    """Write the manifest of a checkpoint whose files are complete; returns its sha256."""
    return write_manifest(
        directory,
        format="checkpoint",
        writer={"name": "olmo-trainer", "version": version("olmo-trainer")},
        config=config,
        counts={"parameters": sum(math.prod(tensor.shape) for tensor in weights.values()), "tensors": len(weights)},
        details={**details, "tokenizer_sha256": sha256_file(directory / "tokenizer.json")},
        inputs=inputs,
        files=[path for path in directory.rglob("*") if path.is_file()],
    )


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """One safetensors file.

    Raises: OSError: it cannot be written, as on a full disk.
    """
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(f"{path}: not written ({error})") from error


def write_json(path: Path, value: Any) -> None:
    """JSON with sorted keys and a line end."""
    path.write_text(canonical_json(value), encoding="utf-8")


def write_weights(directory: Path, weights: dict[str, torch.Tensor], shard_bytes: int | None) -> None:
    """One safetensors file, or files of at most `shard_bytes` (or one larger tensor) and their index."""
    shards: list[dict[str, torch.Tensor]] = [{}]
    filled = total = 0
    for name, tensor in sorted(weights.items()):
        size = tensor.numel() * tensor.element_size()
        if shards[-1] and shard_bytes is not None and filled + size > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled, total = filled + size, total + size
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = ["model.safetensors"]
    for name, shard in zip(names, shards, strict=True):
        # parts of a tensor share memory, which safetensors does not store twice: give each its own
        own = {key: tensor.contiguous().clone() for key, tensor in shard.items()}
        _save_tensors(own, directory / name, metadata={"format": "pt"})
    if len(shards) > 1:
        files = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        index = {"metadata": {"total_size": total}, "weight_map": files}
        write_json(directory / "model.safetensors.index.json", index)


def copy_sidecars(source: Path, directory: Path) -> None:
    """Copy what a model has besides its weights and config.json: tokenizer, chat templates, generation settings.

    tokenizer_config.json gets the one class that uses tokenizer.json unchanged: others in transformers, GPT2Tokenizer
    among them, replace its pre-tokenizer.
    """
    for name in _SIDECARS:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)
    templates, settings = "additional_chat_templates", "tokenizer_config.json"
    if (source / templates).is_dir():
        shutil.copytree(source / templates, directory / templates)
    if (source / settings).is_file():
        kept = {**read_object(source / settings), "tokenizer_class": "PreTrainedTokenizerFast"}
        kept.pop("auto_map", None)
        write_json(directory / settings, kept)


def _sync(paths: list[Path]) -> None:
    """Flush files and directory entries to the disk: before a rename makes them count, and after it."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def whole_weights(model: Transformer, *, keep: bool = True) -> dict[str, torch.Tensor]:
    """All weights on the CPU, gathered from all ranks (collective); empty unless `keep`."""
    weights = {}
    for name, tensor in model.state_dict().items():
        gathered = whole(tensor.detach(), model.shard_specs.get(name))
        if keep:
            weights[name] = gathered.cpu()
    return weights


def capture_optimizer(
    model: Transformer, optimizer: torch.optim.Optimizer, *, keep: bool, gather: bool
) -> dict[str, torch.Tensor]:
    """The optimizer's state by weight, on the CPU, gathered from all ranks (collective); empty unless `keep`.

    Without `gather`, each rank's own part; of weights that tensor groups divide, by rows of the whole.
    """
    tensors = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            spec = model.shard_specs.get(name) if value.ndim else None
            if not gather:
                tensors[f"{key}.{name}"] = by_rows(whole(value.detach(), spec)) if spec else value.detach()
                continue
            gathered = whole(value.detach(), spec)
            if keep:
                tensors[f"{key}.{name}"] = gathered.cpu().clone()
    return tensors


def save_checkpoint(
    destination: Path,
    model: Transformer,
    data: TrainingData,
    *,
    weights: dict[str, torch.Tensor],
    config: dict[str, Any],
    inputs: list[dict[str, Any]],
    training: TrainingState | None,
    shards: Path | None = None,
    begun_from: Path | None = None,
) -> str:
    """Write a checkpoint directory that appears whole or not at all; returns its identity.

    `begun_from` is the checkpoint whose sidecar files, such as its chat template, are copied. `shards` is a directory
    of moments written by the ranks, which moves into the checkpoint.
    """
    with publish(destination) as temporary:
        if begun_from is not None:
            copy_sidecars(begun_from, temporary)
        progress = training.progress if training else Progress()
        published = to_published(weights, model.shape)
        check_finite(published, final_name(temporary))
        _save_tensors(published, temporary / "model.safetensors", metadata={"format": "pt"})
        write_json(temporary / "config.json", model_json(model.shape, data.special, data.sequence_length, "float32"))
        if not (temporary / "generation_config.json").is_file():
            write_json(temporary / "generation_config.json", generation_json(data.special))
        shutil.copyfile(data.tokenizer_path, temporary / "tokenizer.json")
        tokenizer = open_tokenizer(data.tokenizer_path)
        path = temporary / "tokenizer_config.json"
        kept = read_object(path) if path.is_file() else {}
        write_json(path, {**kept, **tokenizer_json(tokenizer, data.special, data.sequence_length)})
        if training is not None:
            root = temporary / "training"
            root.mkdir()
            if shards is None:
                _save_tensors(training.optimizer, root / "optimizer.safetensors")
            else:
                shards.rename(root / "optimizer")
            _save_tensors(training.random, root / "random.safetensors")
            _save_tensors(training.guard, root / "guard.safetensors")
            write_json(root / "state.json", progress.row())
        details = {
            "architecture": ARCHITECTURES[model.shape.family],
            "dtype": "float32",
            "stage": "pretrain",
            "step": progress.step,
            "tokens_seen": progress.position * data.sequence_length,
        }
        return describe_checkpoint(temporary, published, config, details, inputs)


@contextmanager
def publish(destination: Path) -> Iterator[Path]:
    """A directory under a temporary name to write into: renamed if the block succeeds, removed if it fails."""
    temporary = destination.with_name(f".{destination.name}{_WRITING}")
    if temporary.exists():
        shutil.rmtree(temporary)
    new_parents = [parent for parent in destination.parents if not parent.exists()]
    temporary.mkdir(parents=True)
    try:
        yield temporary
        _sync([*temporary.rglob("*"), temporary])
        temporary.rename(destination)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in new_parents:
            with suppress(OSError):  # somebody else uses it by now
                parent.rmdir()
        raise
    _sync([destination.parent])


def final_name(directory: Path) -> Path:
    """The final name of a directory of `publish`, for messages; any other directory keeps its own."""
    if not directory.name.endswith(_WRITING):
        return directory
    return directory.with_name(directory.name.removesuffix(_WRITING).removeprefix("."))


def step_directories(root: Path) -> list[tuple[int, Path]]:
    """The finished checkpoints of a run, by rising step."""
    found = []
    for path in root.glob("step-*") if root.is_dir() else ():
        match = re.fullmatch(r"step-(\d+)", path.name)
        if match and (path / MANIFEST).is_file():
            found.append((int(match[1]), path))
    return sorted(found)


def clear_unfinished(root: Path) -> None:
    """Remove what a killed run was writing or deleting."""
    for path in [*root.glob(f".*{_WRITING}"), *root.glob(".*.deleting")]:
        log.info("removing unfinished %s", path.name)
        shutil.rmtree(path)
    whole = [path for _, path in step_directories(root)]
    for path in root.glob("step-*"):
        if path not in whole:
            raise FormatError(
                "missing_file", path / MANIFEST, "not found; expected a whole checkpoint", hint=f"remove {path}"
            )


def remove_old(root: Path, settings: CheckpointConfig) -> None:
    """Delete all checkpoints but the last ones and the pinned ones."""
    if settings.keep_last is None:
        return
    pinned, every = set(settings.pin), settings.pin_every_steps
    old = step_directories(root)[: -settings.keep_last]
    remove([path for step, path in old if step not in pinned and (every is None or step % every)])


def remove(checkpoints: Iterable[Path]) -> None:
    """Delete checkpoints; each disappears by one rename, so none is ever seen in part."""
    for path in checkpoints:
        hidden = path.with_name(f".{path.name}.deleting")
        path.rename(hidden)
        shutil.rmtree(hidden)


# ---- what a checkpoint was made from


def artifact_config(config: RunConfig, artifact: Path) -> dict[str, Any]:
    """The settings that a checkpoint's bytes depend on, with paths relative to it.

    They have their former names, so that manifests are the same bytes as before the settings were renamed.
    """
    mapping = as_mapping(config)
    mapping["train"]["dtype"] = {dtype: former for former, dtype in FORMER_DTYPES.items()}[config.train.dtype]
    for former, name in FORMER_NAMES.items():
        group = mapping[name.partition(".")[0]] if "." in name else mapping
        group[former.rpartition(".")[2]] = group.pop(name.rpartition(".")[2])
    for name in ("run_directory", "validation", "checkpoint", "logging", "wandb", "energy"):
        del mapping[name]
    del mapping["train"]["max_skipped_steps"], mapping["train"]["stop_at"], mapping["data"]["loader"]
    for name in ("max_rewinds", "slow_rise_nats", "slow_rise_action"):
        del mapping["stability"][name]

    def seen(path: str | None) -> str | None:
        return None if path is None else Path(os.path.relpath(path, artifact)).as_posix()

    mapping["init_from"], mapping["anneal"] = seen(mapping["init_from"]), seen(mapping["anneal"])
    mapping["data"]["tokenizer"] = seen(mapping["data"]["tokenizer"])
    for source in mapping["data"]["sources"]:
        source["path"], source["label_masks"] = seen(source["path"]), seen(source["label_masks"])
    return mapping


def artifact_inputs(config: RunConfig, data: TrainingData, artifact: Path) -> list[dict[str, Any]]:
    """What a checkpoint was made from: tokens, the checkpoint it began from, and validation data."""
    rows = data.inputs(artifact)
    for name in (*config.validation.documents, *(task.path for task in config.validation.tasks)):
        rows += input_rows("validation", Path(name), artifact)
    if config.init_from is not None:
        rows += input_rows("checkpoint", Path(config.init_from), artifact)
    return rows


def kept_from(config: RunConfig) -> Path | None:
    """The checkpoint whose sidecar files this run's checkpoints copy; None if it has another tokenizer."""
    return None if config.init_from is None or config.init_tokenizer == "other" else Path(config.init_from)

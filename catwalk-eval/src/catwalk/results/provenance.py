"""What a results artifact says of its making: settings, inputs, model, and whether a directory already holds it."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
import yaml

from catwalk import DISTRIBUTION, __version__
from catwalk.config import RunConfig
from catwalk.errors import ConfigError
from catwalk.formats.checkpoint import Checkpoint
from catwalk.formats.inspection import Inspection
from catwalk.formats.json_lines import atomic_file
from catwalk.formats.manifest import MANIFEST, describe_input, read_manifest
from catwalk.tasks.data import TaskData

__all__ = [
    "describe_inference",
    "describe_inputs",
    "describe_model",
    "is_finished",
    "part_settings",
    "resolve_settings",
    "save_config",
]

_DEFAULT_LENGTH = 2048  # OLMo and Paloma score with 2048 tokens
_BATCH_TOKENS = {"cpu": 1024}  # more only leaves the caches: measured 1.4 times slower at 4096
_BATCH_TOKENS_DEVICE = 32768


def resolve_settings(
    config: RunConfig,
    inspection: Inspection,
    prefix: str,
    split: str | None,
    device: torch.device,
    tasks: Sequence[str],
) -> dict[str, Any]:
    """What the bytes of the results depend on, inputs apart: `config` of the manifest.

    Raises:
        ConfigError: for a window longer than the model's positions.
    """
    limit = inspection.max_positions
    length = config.max_length or limit or _DEFAULT_LENGTH
    if limit is not None and length > limit:
        problem = f"max_length: {length} is more than the model's {limit} positions"
        raise ConfigError(problem, hint=f"--max-length {limit}")
    return {
        "batch_tokens": config.batch_tokens or _BATCH_TOKENS.get(device.type, _BATCH_TOKENS_DEVICE),
        "device": device.type,
        "dtype": config.dtype,
        "limit": config.limit,
        "max_length_tokens": length,
        "name": config.name or config.model.resolve().name,
        "prefix": prefix,
        "seed": config.seed,
        "share_context": config.share_context and inspection.plain_length != 0,
        "split": split,
        "tasks": list(tasks),
        "windowing": config.windowing,
    }


def part_settings(settings: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """What the scores of a part of the run depend on, its texts apart: settings, weights, software."""
    chosen = ("batch_tokens", "device", "dtype", "max_length_tokens", "prefix", "share_context", "windowing")
    software = {DISTRIBUTION: __version__, "torch": torch.__version__, "transformers": transformers.__version__}
    software["tokenizers"] = tokenizers.__version__
    identity = hashlib.sha256(json.dumps(checkpoint.identity, sort_keys=True).encode()).hexdigest()
    return {"checkpoint": identity, "software": software, **{key: settings[key] for key in chosen}}


def describe_inputs(
    config: RunConfig, checkpoint: Checkpoint, task_data: Sequence[TaskData], documents: Sequence[Path]
) -> list[dict[str, Any]]:
    """Manifest entries of the checkpoint, the tasks' data and the documents."""
    inputs = [entry for data in task_data for entry in data.manifest_inputs()]
    if checkpoint.manifest is None:
        for name in checkpoint.identity:
            inputs += describe_input("checkpoint", config.model / name, config.output)
    else:
        inputs += describe_input("checkpoint", config.model, config.output)
    for path in documents:
        inputs += describe_input("documents", path, config.output)
    return sorted(inputs, key=lambda entry: (entry["role"], entry["path"]))


def is_finished(output: Path, settings: dict[str, Any], inputs: list[dict[str, Any]]) -> bool:
    """Whether the output is these results; another artifact there is never overwritten."""
    if not (output / MANIFEST).is_file():
        return False
    manifest = read_manifest(output)
    writer = {"name": DISTRIBUTION, "version": __version__}
    if manifest["format"] == "results" and (manifest["config"], manifest["inputs"], manifest["writer"]) == (
        settings,
        inputs,
        writer,
    ):
        return True
    problem = f"output: {output} holds another artifact; expected these results or an empty directory"
    raise ConfigError(problem, hint="name another --output, or remove that directory")


def save_config(config: RunConfig) -> None:
    """The request as it was resolved, beside the results and not part of them."""
    values = {key: _plain(value) for key, value in vars(config).items()}
    with atomic_file(config.output / "config.yaml") as stream:
        stream.write(yaml.safe_dump(values, sort_keys=True, allow_unicode=True).encode())


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def describe_model(config: RunConfig, checkpoint: Checkpoint, inspection: Inspection) -> dict[str, Any]:
    """`model` of results.json."""
    size = inspection.text_config.get("vocab_size")
    return {
        "name": config.name or config.model.resolve().name,
        "architecture": checkpoint.architecture,
        "parameters": checkpoint.parameters,
        "vocab_size": size if type(size) is int else inspection.embedding_rows,
        "dtype": "/".join(inspection.dtypes),
        "tokenizer_sha256": checkpoint.tokenizer_sha256,
        "manifest_sha256": checkpoint.manifest_sha256,
    }


def describe_inference(settings: dict[str, Any], rule: str | None) -> dict[str, Any]:
    """`inference` of results.json. `rule` is the checkpoint's own prefix."""
    found = {key: settings[key] for key in ("dtype", "max_length_tokens", "windowing", "prefix", "split")}
    if settings["prefix"] != rule:
        reason = "requested"
    elif rule == "bos":
        reason = "the tokenizer begins a text with bos, or has no eos"
    else:
        reason = "the tokenizer puts no bos before a text"
    return {**found, "prefix_reason": reason}

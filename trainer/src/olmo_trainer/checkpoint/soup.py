"""A soup: the average of checkpoints of one model (arXiv 2203.05482), made a tensor at a time."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from ..config.published import model_settings
from ..data.sources import input_row
from ..formats.checkpoint import CheckpointDirectory, Tensor, open_checkpoint
from ..formats.fields import mismatch
from ..formats.inspection import open_tokenizer, tokenizer_difference
from .save import copy_sidecars, describe_checkpoint, publish
from .weights import check_finite

__all__ = ["average_checkpoints"]

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_COPIED = ("config.json", "model.safetensors.index.json")


def average_checkpoints(sources: list[Path], destination: Path) -> str:
    """Write the mean of the weights, in the files and types of the first checkpoint; returns its identity.

    Sums are float64; no more than one tensor of each checkpoint is in memory.
    Raises: FormatError: a checkpoint is damaged, has no manifest, or other tensors, another model or tokenizer than
        the first.
    """
    opened = [open_checkpoint(source) for source in sources]
    _check_alike(opened)
    first = opened[0]
    files: dict[Path, list[Tensor]] = defaultdict(list)
    for tensor in first.tensors.values():
        files[tensor.path].append(tensor)
    manifests = [checkpoint.manifest for checkpoint in opened if checkpoint.manifest is not None]
    with publish(destination) as temporary:
        for path, tensors in sorted(files.items()):
            _write_file(temporary / path.name, path, tensors, opened)
        copy_sidecars(first.path, temporary)
        for name in _COPIED:
            if (first.path / name).is_file():
                shutil.copyfile(first.path / name, temporary / name)
        seen = {name: max(manifest.details[name] for manifest in manifests) for name in ("step", "tokens_seen")}
        details = {**manifests[0].details, **seen}
        inputs = [input_row("checkpoint", source, destination) for source in sources]
        return describe_checkpoint(temporary, first.tensors, {"average_of": len(sources)}, details, inputs)


def _check_alike(opened: list[CheckpointDirectory]) -> None:
    first = opened[0]
    for checkpoint in opened:
        if checkpoint.manifest is None or first.manifest is None:
            raise mismatch(checkpoint.path / "manifest.json", "missing_file", "missing", "a checkpoint with a manifest")
        _check_settings(first, checkpoint)
        for name, tensor in {**first.tensors, **checkpoint.tensors}.items():
            wanted, found = first.tensors.get(name), checkpoint.tensors.get(name)
            if wanted is None or found is None or wanted.shape != found.shape:
                got = "missing" if found is None else f"of shape {list(found.shape)}"
                expected = f"none, as in {first.path}" if wanted is None else f"shape {list(wanted.shape)}"
                code = "missing_tensor" if found is None else "wrong_shape"
                raise mismatch(checkpoint.path, code, got, expected, field=name)
            if tensor.dtype not in _DTYPES:
                raise mismatch(checkpoint.path, "wrong_dtype", tensor.dtype, "F32, BF16 or F16", field=name)
        mine, others = (manifest.details["tokenizer_sha256"] for manifest in (first.manifest, checkpoint.manifest))
        if mine != others:
            path = checkpoint.path / "tokenizer.json"
            difference = tokenizer_difference(open_tokenizer(first.path / path.name), open_tokenizer(path))
            if difference is not None:
                got = f"a different tokenizer ({difference})"
                raise mismatch(path, "checksum_mismatch", got, f"that of {first.path}")


def _check_settings(first: CheckpointDirectory, other: CheckpointDirectory) -> None:
    """The same shapes may mean other models: another number of heads, another rotary base."""
    wanted, found = (model_settings(opened.config, opened.path / "config.json") for opened in (first, other))
    for name, value in wanted.items():
        if found.get(name) != value and not name.startswith("router_"):  # weights of losses are of training alone
            got, expected = f"{found.get(name)}", f"{value}, as in {first.path}"
            raise mismatch(other.path / "config.json", "invalid_value", got, expected, field=name)


def _write_file(destination: Path, source: Path, tensors: list[Tensor], opened: list[CheckpointDirectory]) -> None:
    """One safetensors file with the header of the first checkpoint's."""
    with source.open("rb") as stream:
        length = stream.read(8)
        header = stream.read(int.from_bytes(length, "little"))
    assert set(json.loads(header)) - {"__metadata__"} == {tensor.name for tensor in tensors}
    with destination.open("wb") as stream:
        stream.write(length + header)
        for tensor in sorted(tensors, key=lambda tensor: tensor.start):
            total = torch.zeros(tensor.shape, dtype=torch.float64)
            for checkpoint in opened:
                stored = checkpoint.tensors[tensor.name].path
                with safe_open(stored, framework="pt") as weights:
                    value = weights.get_tensor(tensor.name)
                check_finite({tensor.name: value}, stored)
                total += value
            mean = (total / len(opened)).to(_DTYPES[tensor.dtype]).contiguous()
            stream.seek(tensor.start)
            stream.write(mean.reshape(-1).view(torch.uint8).numpy().astype(np.uint8, copy=False).tobytes())

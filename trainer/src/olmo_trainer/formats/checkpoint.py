"""Checkpoints in the Hugging Face layout, read without torch. Implements docs/formats/checkpoint.md v1."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .fields import field_of, mismatch, shown
from .inspection import inspect_checkpoint
from .json_lines import read_object, sha256_file
from .manifest import MANIFEST, Manifest, check_files, read_manifest

__all__ = ["CheckpointDirectory", "Tensor", "dump", "open_checkpoint", "required_shapes"]

VERSION = 1
DTYPE_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_FAMILIES = "Olmo Olmo2 Olmo3 Olmoe Llama Mistral Mixtral".split()
_EXPERTS = {"Olmoe": "num_experts", "Mixtral": "num_local_experts"}
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Where one tensor lies: `start` and `end` are byte offsets within the file. `dtype` as safetensors writes it."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class CheckpointDirectory:
    """An opened checkpoint: its configuration and where its tensors are."""

    path: Path
    config: dict[str, Any]
    architecture: str
    tensors: dict[str, Tensor]
    manifest: Manifest | None


def required_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]] | None:
    """The tensors that a `config.json` requires, in the names of transformers; None for another architecture."""
    family = (config.get("architectures") or [""])[0].removesuffix("ForCausalLM")
    if family not in _FAMILIES:
        return None
    width, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads = config["num_attention_heads"]
    head_width = config.get("head_dim") or width // heads
    query = heads * head_width
    key = (config.get("num_key_value_heads") or heads) * head_width
    block: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (query, width),
        "self_attn.k_proj.weight": (key, width),
        "self_attn.v_proj.weight": (key, width),
        "self_attn.o_proj.weight": (width, query),
    }
    room, gate, up, down = "mlp", "gate_proj", "up_proj", "down_proj"
    if family == "Mixtral":
        room, gate, up, down = "block_sparse_moe", "w1", "w3", "w2"
    parts = [room]
    if family in _EXPERTS:
        parts = [f"{room}.experts.{number}" for number in range(config[_EXPERTS[family]])]
        block[f"{room}.gate.weight"] = (len(parts), width)
    for part in parts:
        block |= {f"{part}.{gate}.weight": (inner, width), f"{part}.{up}.weight": (inner, width)}
        block[f"{part}.{down}.weight"] = (width, inner)
    biased = [
        "self_attn" if config.get("attention_bias") and family not in ("Mistral", "Mixtral") else None,
        "mlp" if config.get("mlp_bias") and family == "Llama" else None,
    ]
    block |= {f"{name[:-6]}bias": shape[:1] for name, shape in block.items() if name.partition(".")[0] in biased}
    if family in ("Olmo2", "Olmo3", "Olmoe"):
        block |= {"self_attn.q_norm.weight": (query,), "self_attn.k_norm.weight": (key,)}
    if family != "Olmo":
        other = "post_feedforward_layernorm" if family in ("Olmo2", "Olmo3") else "input_layernorm"
        block |= {"post_attention_layernorm.weight": (width,), f"{other}.weight": (width,)}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, width)}
    for layer in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in block.items()}
    if family != "Olmo":
        shapes["model.norm.weight"] = (width,)
    if not config.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (vocab, width)
    return shapes


def _tensors_of(path: Path) -> dict[str, Tensor]:
    """Read a safetensors header: 8 bytes little-endian length, then JSON, then the data."""
    if not path.is_file():
        raise mismatch(path, "missing_file", "missing", "a safetensors file")
    size_bytes = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or 8 + length > size_bytes:
            raise mismatch(path, "truncated", f"{size_bytes} bytes long", "a whole safetensors header")
        raw = stream.read(length)
    try:
        header = json.loads(raw)
    except ValueError as error:
        raise mismatch(path, "not_json", "without a JSON header", "a safetensors file") from error
    tensors = {}
    for name, row in header.items():
        if name == "__metadata__":
            continue
        start, end = (8 + length + offset for offset in row["data_offsets"])
        if end > size_bytes:
            expected = f"{end} bytes, as tensor {name} says"
            raise mismatch(path, "truncated", f"{size_bytes} bytes long", expected)
        needed = math.prod(row["shape"]) * _ITEM_BYTES.get(row["dtype"], 0)
        if row["dtype"] in _ITEM_BYTES and needed != end - start:
            got = f"{end - start} bytes of {row['dtype']}"
            raise mismatch(path, "wrong_dtype", got, f"what the shape {row['shape']} needs", field=name)
        tensors[name] = Tensor(
            name=name, path=path, dtype=row["dtype"], shape=tuple(row["shape"]), start=start, end=end
        )
    return tensors


def open_checkpoint(directory: Path, *, checksums: bool = True) -> CheckpointDirectory:
    """Open a checkpoint directory and check all that docs/formats/checkpoint.md asks for.

    Raises: FormatError: `missing_file`, `checksum_mismatch`, `missing_tensor`, `wrong_shape`, …
    """
    manifest = None
    if (directory / MANIFEST).is_file():
        manifest = read_manifest(directory, wanted="checkpoint", newest=VERSION)
        check_files(manifest, checksums=checksums)
    where = directory / "config.json"
    config = read_object(where)
    names = field_of(config, "architectures", "an array", where)
    if len(names) != 1 or not isinstance(names[0], str):
        raise mismatch(where, "invalid_value", f"{len(names)} names", "one name", field="architectures")
    index_path = directory / "model.safetensors.index.json"
    if index_path.is_file():
        index = field_of(read_object(index_path), "weight_map", "an object", index_path)
        tensors = {}
        for file_name in sorted(set(index.values())):
            tensors.update(_tensors_of(directory / file_name))
        for name, file_name in index.items():
            if name not in tensors:
                raise mismatch(directory / file_name, "missing_tensor", "missing", "a tensor of the index", field=name)
    else:
        if not (directory / "model.safetensors").is_file():
            _ = inspect_checkpoint(directory).tensors  # raises, naming weights of another kind
        tensors = _tensors_of(directory / "model.safetensors")
    if manifest is not None:
        _check_details(manifest, {DTYPE_NAMES.get(tensor.dtype, tensor.dtype) for tensor in tensors.values()})
    _check_tensors(directory, config, where, tensors)
    return CheckpointDirectory(path=directory, config=config, architecture=names[0], tensors=tensors, manifest=manifest)


def _check_details(manifest: Manifest, stored: set[str]) -> None:
    kinds = {"architecture": "a string", "dtype": "a string", "stage": "a string", "tokenizer_sha256": "a string"}
    for name, kind in {**kinds, "step": "an integer", "tokens_seen": "an integer"}.items():
        field_of(manifest.details, name, kind, manifest.path, prefix="details.")
    if manifest.details["dtype"] not in stored:
        expected = f"a dtype of the weights: {' or '.join(sorted(stored))}"
        raise mismatch(manifest.path, "wrong_dtype", shown(manifest.details["dtype"]), expected, field="details.dtype")
    tokenizer = manifest.directory / "tokenizer.json"
    if not tokenizer.is_file():
        raise mismatch(tokenizer, "missing_file", "missing", "the tokenizer of the checkpoint")
    if sha256_file(tokenizer) != manifest.details["tokenizer_sha256"]:
        expected = "the sha256 in the manifest's details.tokenizer_sha256"
        raise mismatch(tokenizer, "checksum_mismatch", "another tokenizer", expected)


def _check_tensors(directory: Path, config: dict[str, Any], where: Path, tensors: dict[str, Tensor]) -> None:
    heads = config.get("num_attention_heads")
    sizes = "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads".split()
    family = config["architectures"][0].removesuffix("ForCausalLM")
    if family in _FAMILIES:
        for name in (*sizes, *([_EXPERTS[family]] if family in _EXPERTS else ())):
            if field_of(config, name, "an integer", where) < 1:
                raise mismatch(where, "invalid_value", shown(config[name]), "1 or more", field=name)
        for name in ("num_key_value_heads", "head_dim"):
            field_of(config, name, "an integer", where, optional=True)
        for name in ("num_hidden_layers", *([_EXPERTS[family]] if family in _EXPERTS else ())):
            if config[name] > len(tensors):
                expected = f"{len(tensors)} or less, the number of tensors"
                raise mismatch(where, "invalid_value", shown(config[name]), expected, field=name)
        if config["hidden_size"] % config["num_attention_heads"] and not config.get("head_dim"):
            expected = f"a divisor of hidden_size {config['hidden_size']}"
            raise mismatch(where, "invalid_value", shown(heads), expected, field="num_attention_heads")
    index = directory / "model.safetensors.index.json"
    listing = index if index.is_file() else directory / "model.safetensors"
    for name, shape in (required_shapes(config) or {}).items():
        tensor = tensors.get(name)
        if tensor is None:
            raise mismatch(listing, "missing_tensor", "missing", f"shape {shape}", field=name)
        if tensor.shape != shape:
            got = f"of shape {list(tensor.shape)}"
            raise mismatch(tensor.path, "wrong_shape", got, f"{list(shape)}, as config.json implies", field=name)


def dump(directory: Path) -> Iterator[dict[str, Any]]:
    """Yield a row a tensor, sorted by name, with the hash of its bytes.

    Raises: FormatError: also where the manifest's counts are not the content's.
    """
    opened = open_checkpoint(directory)
    if opened.manifest is not None:
        parameters = sum(math.prod(tensor.shape) for tensor in opened.tensors.values())
        for name, value in (("parameters", parameters), ("tensors", len(opened.tensors))):
            stated = field_of(opened.manifest.counts, name, "an integer", opened.manifest.path, prefix="counts.")
            if stated != value:
                where = opened.manifest.path
                raise mismatch(where, "invalid_value", str(stated), str(value), field=f"counts.{name}")
    for name in sorted(opened.tensors):
        tensor = opened.tensors[name]
        with tensor.path.open("rb") as stream:
            stream.seek(tensor.start)
            data = stream.read(tensor.end - tensor.start)
        digest = hashlib.sha256(data).hexdigest()
        yield {"tensor": name, "dtype": tensor.dtype, "shape": list(tensor.shape), "sha256": digest}

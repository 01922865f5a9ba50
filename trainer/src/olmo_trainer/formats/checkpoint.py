"""A checkpoint in Hugging Face layout, checked without loading it. Implements docs/formats/checkpoint.md, version 1.

The packages that read checkpoints carry this file, byte for byte.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .errors import FormatError
from .fields import Fields
from .inspection import inspect_checkpoint
from .json_lines import read_object, sha256_file
from .manifest import Manifest, check_files, find_manifest

__all__ = ["DTYPES", "Checkpoint", "Tensor", "dump", "read_checkpoint", "read_tensors", "required_shapes"]

DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_FAMILIES = ("Olmo", "Olmo2", "Olmo3", "Olmoe", "Llama", "Mistral", "Mixtral")
_EXPERTS = {"Olmoe": "num_experts", "Mixtral": "num_local_experts"}
_OTHER_FILES = (
    *("config.json", "generation_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "merges.txt"),
)
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A stored tensor: `dtype` as safetensors writes it, `start` and `end` are byte offsets within the file."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    def sha256(self) -> str:
        """Of its little-endian bytes."""
        digest, rest = hashlib.sha256(), self.end - self.start
        with self.path.open("rb") as stream:
            stream.seek(self.start)
            while block := stream.read(min(rest, _BLOCK_BYTES)):
                digest.update(block)
                rest -= len(block)
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checked checkpoint; `tensors` by name, in sorted order."""

    directory: Path
    config: dict[str, Any]
    manifest: Manifest | None
    tensors: dict[str, Tensor]

    @property
    def architecture(self) -> str:
        """The one name of `architectures`."""
        return str(self.config["architectures"][0])

    @property
    def parameters(self) -> int:
        """Stored numbers."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())

    @cached_property
    def sha256(self) -> dict[str, str]:
        """By file name: of the manifest's files, or of the weights, configurations and tokenizer."""
        if self.manifest is not None:
            return {row["path"]: row["sha256"] for row in self.manifest.files}
        weights = {tensor.path for tensor in self.tensors.values()}
        files = sorted(weights | {self.directory / name for name in _OTHER_FILES})
        return {file.name: sha256_file(file) for file in files if file.is_file()}


def read_checkpoint(directory: Path, *, checksums: bool = True) -> Checkpoint:
    """Check a checkpoint: manifest, every sha256, and that the tensors are those that config.json requires.

    Raises:
        FormatError: `missing_file`, `wrong_size`, `checksum_mismatch`, `truncated`, `missing_tensor`, `wrong_shape`, …
    """
    manifest = find_manifest(directory, "checkpoint")
    if manifest is not None:
        for error in check_files(manifest, checksums=checksums):
            raise error
    config = Fields(read_object(directory / "config.json"), directory / "config.json")
    names = config.array("architectures")
    if len(names) != 1 or not isinstance(names[0], str):
        raise config.error("invalid_value", "architectures", f"is {json.dumps(names)}; expected one name")
    tensors = read_tensors(directory)
    _check_tensors(config, tensors, directory)
    if manifest is not None:
        _check_details(manifest, tensors)
    return Checkpoint(directory=directory, config=config.value, manifest=manifest, tensors=tensors)


def _check_details(manifest: Manifest, tensors: dict[str, Tensor]) -> None:
    details, tokenizer = manifest.fields("details"), manifest.directory / "tokenizer.json"
    for name in ("architecture", "stage"):
        details.string(name)
    for name in ("step", "tokens_seen"):
        details.integer(name)
    dtype = details.string("dtype")
    stored = sorted({DTYPES.get(tensor.dtype, tensor.dtype) for tensor in tensors.values()})
    if dtype not in stored:  # dtypes may be mixed: this is that of most parameters
        raise details.error("wrong_dtype", "dtype", f'is "{dtype}"; expected {" or ".join(stored)}, as the weights are')
    if not tokenizer.is_file():
        raise FormatError("missing_file", tokenizer, "not found; expected the checkpoint's tokenizer")
    if details.hash("tokenizer_sha256") != sha256_file(tokenizer):
        message = 'has another sha256; expected "details.tokenizer_sha256" of the manifest'
        raise FormatError("checksum_mismatch", tokenizer, message)


# ---- tensors


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """The tensors of the weight files, by name, from the files' headers.

    Raises:
        FormatError: `missing_file`, `truncated`, `missing_tensor` for one that the index names and its file lacks.
    """
    index = directory / _INDEX
    if not index.is_file():
        if not (directory / _SINGLE).is_file():
            _ = inspect_checkpoint(directory).tensors  # raises, naming weights of another kind
        return dict(sorted(_header(directory / _SINGLE).items()))
    weight_map = Fields(read_object(index), index).object("weight_map")
    names = {name: weight_map.string(name) for name in sorted(weight_map.value)}
    for name, file in names.items():
        if "/" in file or "\\" in file:
            raise weight_map.error("unsafe_path", name, f'is "{file}"; expected a plain file name')
    headers = {file: _header(directory / file) for file in sorted(set(names.values()))}
    for name, file in names.items():
        if name not in headers[file]:
            message = f'"{name}" not found; expected it, since {_INDEX} lists it'
            raise FormatError("missing_tensor", directory / file, message, field=name)
    return {name: headers[file][name] for name, file in names.items()}


def _header(path: Path) -> dict[str, Tensor]:
    """Check a file with the safetensors library; offsets, which it does not tell, are in the header's JSON."""
    if not path.is_file():
        raise FormatError("missing_file", path, "not found; expected a safetensors file")
    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        wrong = _wrong_dtype(path)
        message = f"is not a complete safetensors file ({error})"
        raise wrong or FormatError("truncated", path, message, hint="copy or create the file again") from error
    return _entries(path)


def _entries(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as stream:
        data = 8 + int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(data - 8))
    return {
        name: Tensor(
            name=name,
            path=path,
            dtype=row["dtype"],
            shape=tuple(row["shape"]),
            start=data + row["data_offsets"][0],
            end=data + row["data_offsets"][1],
        )
        for name, row in header.items()
        if name != "__metadata__"
    }


def _wrong_dtype(path: Path) -> FormatError | None:
    """The error of a tensor whose bytes do not fit its dtype and shape: the library does not name it."""
    try:
        for tensor in _entries(path).values():
            item_bytes = int((re.search(r"\d+", tensor.dtype) or ["8"])[0]) // 8
            found, expected = tensor.end - tensor.start, math.prod(tensor.shape) * item_bytes
            if found != expected:
                message = f'"{tensor.name}" has {found} bytes; expected {expected} of {tensor.dtype}'
                return FormatError("wrong_dtype", path, message, field=tensor.name)
    except (ValueError, KeyError, TypeError, AttributeError):  # the header itself is damaged
        return None
    return None


# ---- what a configuration requires


def _check_tensors(config: Fields, tensors: dict[str, Tensor], directory: Path) -> None:
    listing = directory / (_INDEX if (directory / _INDEX).is_file() else _SINGLE)
    for name, shape in required_shapes(config, len(tensors)).items():
        tensor = tensors.get(name)
        if tensor is None:
            message = f'"{name}" not found; expected it with shape {list(shape)}, as config.json implies'
            raise FormatError("missing_tensor", listing, message, field=name, hint="export the checkpoint again")
        if tensor.shape != shape:
            message = f'"{name}" has shape {list(tensor.shape)}; expected {list(shape)}, as config.json implies'
            raise FormatError("wrong_shape", tensor.path, message, field=name, hint="export the checkpoint again")


def required_shapes(config: Fields, most: int | None = None) -> dict[str, tuple[int, ...]]:
    """The tensors that config.json requires, in transformers' names; nothing for an architecture of no page.

    With `most` tensors in the file, no more layers or experts are listed.
    Raises:
        FormatError: a size that is missing, not a number or below 1.
    """
    family = str((config.value.get("architectures") or [""])[0]).removesuffix("ForCausalLM")
    if family not in _FAMILIES:
        return {}
    width, inner, vocabulary, layers, heads = (
        config.integer(name, minimum=1)
        for name in ("hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers", "num_attention_heads")
    )
    experts = config.integer(_EXPERTS[family], minimum=1) if family in _EXPERTS else 0
    for name, count in (("num_hidden_layers", layers), (_EXPERTS.get(family, ""), experts)):
        if most is not None and count > most:
            raise config.error("invalid_value", name, f"is {count}; expected at most {most}, the number of tensors")
    head_width = config.optional_integer("head_dim", minimum=1)
    if head_width is None and width % heads:
        raise config.error("invalid_value", "num_attention_heads", f"is {heads}; expected a divisor of {width}")
    head_width = head_width or width // heads
    query, key = heads * head_width, (config.optional_integer("num_key_value_heads", minimum=1) or heads) * head_width
    room, gate, up, down = "mlp", "gate_proj", "up_proj", "down_proj"
    if family == "Mixtral":
        room, gate, up, down = "block_sparse_moe", "w1", "w3", "w2"
    attention = {"q_proj": (query, width), "k_proj": (key, width), "v_proj": (key, width), "o_proj": (width, query)}
    matrices = {f"self_attn.{name}": shape for name, shape in attention.items()}
    for part in [f"{room}.experts.{number}" for number in range(experts)] or [room]:
        matrices |= {f"{part}.{gate}": (inner, width), f"{part}.{up}": (inner, width), f"{part}.{down}": (width, inner)}
    biased = {
        "self_attn": bool(config.value.get("attention_bias")) and family not in ("Mistral", "Mixtral"),
        "mlp": bool(config.value.get("mlp_bias")) and family == "Llama",
    }
    block: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in matrices.items()}
    block |= {f"{name}.bias": shape[:1] for name, shape in matrices.items() if biased.get(name.partition(".")[0])}
    if experts:
        block[f"{room}.gate.weight"] = (experts, width)
    if family in ("Olmo2", "Olmo3", "Olmoe"):
        block |= {"self_attn.q_norm.weight": (query,), "self_attn.k_norm.weight": (key,)}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    if family != "Olmo":  # its layer norms have no parameters
        other = "post_feedforward_layernorm" if family in ("Olmo2", "Olmo3") else "input_layernorm"
        block |= {"post_attention_layernorm.weight": (width,), f"{other}.weight": (width,)}
        shapes["model.norm.weight"] = (width,)
    if not config.value.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (vocabulary, width)
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def dump(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each tensor."""
    for name, tensor in read_checkpoint(path).tensors.items():
        yield {"tensor": name, "dtype": tensor.dtype, "shape": list(tensor.shape), "sha256": tensor.sha256()}

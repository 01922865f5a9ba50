"""docs/formats/checkpoint.md, version 1: a model directory in Hugging Face layout, checked without torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catwalk.formats.errors import FormatError
from catwalk.formats.fields import Record
from catwalk.formats.inspection import inspect_checkpoint
from catwalk.formats.json_lines import read_object, sha256_file
from catwalk.formats.manifest import MANIFEST, check_files, manifest_sha256, read_manifest
from catwalk.formats.safetensors import Tensor, read_header, tensor_sha256

__all__ = ["Checkpoint", "dump", "read_checkpoint", "validate"]

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_FAMILIES = ("Olmo", "Olmo2", "Olmo3", "Olmoe", "Llama", "Mistral", "Mixtral")
_EXPERTS = {"Olmoe": "num_experts", "Mixtral": "num_local_experts"}
_IDENTITY_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is known of a checkpoint before any weight is read. `identity` maps file names to sha256."""

    directory: Path
    config: dict[str, Any]
    manifest: dict[str, Any] | None
    manifest_sha256: str | None
    tensors: tuple[Tensor, ...]
    identity: dict[str, str]

    @property
    def architecture(self) -> str:
        """The one name of `architectures`, or empty."""
        return str(self.config["architectures"][0])

    @property
    def parameters(self) -> int:
        """Number of stored parameters."""
        return sum(tensor.items for tensor in self.tensors)

    @property
    def tokenizer_sha256(self) -> str | None:
        """Of tokenizer.json, when there is one."""
        return self.identity.get("tokenizer.json")


def read_checkpoint(directory: Path) -> Checkpoint:
    """Check a checkpoint as its readers must: manifest, every sha256, tensor names and shapes.

    Raises:
        FormatError: `missing_file`, `wrong_size`, `checksum_mismatch`, `truncated`, `missing_tensor`, `wrong_shape`, …
    """
    manifest = None
    if (directory / MANIFEST).is_file():
        manifest = read_manifest(directory, "checkpoint")
        check_files(directory, manifest, hashes=True)
    config_path = directory / "config.json"
    config = read_object(config_path)
    architectures = Record(value=config, path=config_path).array("architectures")
    if len(architectures) != 1 or not isinstance(architectures[0], str):
        message = f'"architectures" is {architectures}; expected one name'
        raise FormatError("invalid_value", config_path, message, field="architectures")
    tensors = _read_tensors(directory)
    _check_tensors(Record(value=config, path=config_path), tensors, directory)
    if manifest is None:
        files = {tensor.file for tensor in tensors} | {directory / name for name in _IDENTITY_FILES}
        identity = {file.name: sha256_file(file) for file in sorted(files) if file.is_file()}
    else:
        identity = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
    checkpoint = Checkpoint(
        directory=directory,
        config=config,
        manifest=manifest,
        manifest_sha256=None if manifest is None else manifest_sha256(directory),
        tensors=tuple(sorted(tensors, key=lambda tensor: tensor.name)),
        identity=identity,
    )
    _check_details(checkpoint)
    return checkpoint


def _check_details(checkpoint: Checkpoint) -> None:
    """What the manifest says of the weights is what they are."""
    if checkpoint.manifest is None:
        return
    path = checkpoint.directory / MANIFEST
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (checkpoint.directory / name).is_file():
            raise FormatError("missing_file", checkpoint.directory / name, "the file is absent; expected the tokenizer")
    counts = Record(value=checkpoint.manifest["counts"], path=path, prefix="counts.")
    for key, count in (("parameters", checkpoint.parameters), ("tensors", len(checkpoint.tensors))):
        if counts.integer(key) != count:
            raise counts.error("invalid_value", key, f"is {counts.value[key]}; the weights give {count}")
    details = Record(value=checkpoint.manifest["details"], path=path, prefix="details.")
    if details.text("architecture") != checkpoint.architecture:
        message = f'is "{details.value["architecture"]}"; config.json says "{checkpoint.architecture}"'
        raise details.error("invalid_value", "architecture", message)
    dtype = details.text("dtype", choices=tuple(_DTYPES.values()))
    stored = {_DTYPES.get(tensor.dtype, tensor.dtype) for tensor in checkpoint.tensors}
    if dtype not in stored:  # dtypes may be mixed
        raise details.error("wrong_dtype", "dtype", f'is "{dtype}"; the weights are {", ".join(sorted(stored))}')
    details.text("stage")
    details.integer("step")
    details.integer("tokens_seen")
    if details.hash("tokenizer_sha256") != checkpoint.tokenizer_sha256:
        raise details.error("checksum_mismatch", "tokenizer_sha256", "is not the sha256 of tokenizer.json")


def _read_tensors(directory: Path) -> list[Tensor]:
    index_path = directory / _INDEX
    if not index_path.is_file():
        if not (directory / _SINGLE).is_file():
            _ = inspect_checkpoint(directory).tensors  # raises, naming what was found instead
        return read_header(directory / _SINGLE)
    weight_map = Record(value=read_object(index_path), path=index_path).record("weight_map")
    files = {weight_map.text(name) for name in weight_map.value}
    for name in files:
        if "/" in name or "\\" in name:
            raise FormatError("unsafe_path", index_path, f'"{name}" is not a plain file name', field="weight_map")
    tensors = [tensor for name in sorted(files) for tensor in read_header(directory / name)]
    stored = {tensor.name: tensor.file.name for tensor in tensors}
    for name, file in weight_map.value.items():
        if stored.get(name) != file:
            message = f'"{name}" is not in {file}; {_INDEX} says that it is'
            raise FormatError("missing_tensor", directory / file, message, field=name)
    return tensors


def _check_tensors(config: Record, tensors: list[Tensor], directory: Path) -> None:
    """Names and shapes against the configuration, for the architectures that the contract defines."""
    expected = _expected_shapes(config, config.value["architectures"][0])
    stored = {tensor.name: tensor for tensor in tensors}
    where = directory / (_INDEX if (directory / _INDEX).is_file() else _SINGLE)
    for name, shape in expected.items():
        if name not in stored:
            message = f'"{name}" is absent; config.json requires it with shape {list(shape)}'
            raise FormatError("missing_tensor", where, message, field=name, hint="export the checkpoint again")
        if stored[name].shape != shape:
            message = f'"{name}" has shape {list(stored[name].shape)}; config.json requires {list(shape)}'
            raise FormatError("wrong_shape", stored[name].file, message, field=name, hint="export the checkpoint again")


def _expected_shapes(config: Record, architecture: str) -> dict[str, tuple[int, ...]]:
    """Tensor names as transformers writes them; nothing for an architecture that the contract does not define."""
    family = architecture.removesuffix("ForCausalLM")
    if family not in _FAMILIES:
        return {}
    value = config.value
    width, inner, vocabulary = (config.integer(key) for key in ("hidden_size", "intermediate_size", "vocab_size"))
    heads = config.integer("num_attention_heads", minimum=1)
    key_heads = heads if value.get("num_key_value_heads") is None else config.integer("num_key_value_heads")
    head_width = width // heads if value.get("head_dim") is None else config.integer("head_dim")
    query, key = heads * head_width, key_heads * head_width
    attention_bias = bool(value.get("attention_bias")) and family not in ("Mistral", "Mixtral")
    mlp_bias = bool(value.get("mlp_bias")) and family == "Llama"
    matrices = [
        ("self_attn.q_proj", (query, width), attention_bias),
        ("self_attn.k_proj", (key, width), attention_bias),
        ("self_attn.v_proj", (key, width), attention_bias),
        ("self_attn.o_proj", (width, query), attention_bias),
    ]
    room, gate, up, down = "mlp", "gate_proj", "up_proj", "down_proj"
    if family == "Mixtral":
        room, gate, up, down = "block_sparse_moe", "w1", "w3", "w2"
    parts = [room]
    if family in _EXPERTS:
        count = config.integer(_EXPERTS[family], minimum=1)
        parts = [f"{room}.experts.{number}" for number in range(count)]
        matrices.append((f"{room}.gate", (count, width), False))
    for part in parts:
        matrices += [(f"{part}.{name}", (inner, width), mlp_bias) for name in (gate, up)]
        matrices.append((f"{part}.{down}", (width, inner), mlp_bias))
    norms: dict[str, int] = {}
    if family in ("Olmo2", "Olmo3", "Olmoe"):
        norms |= {"self_attn.q_norm": query, "self_attn.k_norm": key}
    if family in ("Olmo2", "Olmo3"):
        norms |= {"post_attention_layernorm": width, "post_feedforward_layernorm": width}
    elif family != "Olmo":  # its layer norm has no parameters
        norms |= {"input_layernorm": width, "post_attention_layernorm": width}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    if norms:
        shapes["model.norm.weight"] = (width,)
    # transformers ties by default for none of them: an absent key means false
    if not value.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (vocabulary, width)
    for layer in range(config.integer("num_hidden_layers")):
        prefix = f"model.layers.{layer}."
        for name, (rows, columns), bias in matrices:
            shapes[f"{prefix}{name}.weight"] = (rows, columns)
            if bias:
                shapes[f"{prefix}{name}.bias"] = (rows,)
        shapes |= {f"{prefix}{name}.weight": (size,) for name, size in norms.items()}
    return shapes


def validate(path: Path) -> None:
    """Full check of a checkpoint directory."""
    read_checkpoint(path)


def dump(path: Path) -> Iterator[dict[str, Any]]:
    """Head line, then a row a tensor."""
    checkpoint = read_checkpoint(path)
    counts = {"parameters": checkpoint.parameters, "tensors": len(checkpoint.tensors)}
    yield {"format": "checkpoint", "version": 1, "counts": counts}
    for tensor in checkpoint.tensors:
        yield {
            "tensor": tensor.name,
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "sha256": tensor_sha256(tensor),
        }

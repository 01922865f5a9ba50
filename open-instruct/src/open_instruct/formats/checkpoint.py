"""A model directory in Hugging Face layout: check it without loading it. Implements docs/formats/checkpoint.md v1."""

from pathlib import Path
from typing import Any

from .errors import FormatError
from .json_lines import read_object, sha256_file
from .manifest import NAME, check_files, read_manifest
from .rows import require
from .safetensors import Tensor, read_header

__all__ = ["DTYPES", "check_checkpoint", "count_tensors", "read_tensors", "required_shapes"]

_INDEX, _SINGLE, _CONFIG = "model.safetensors.index.json", "model.safetensors", "config.json"
_DETAILS: dict[str, type] = {
    "architecture": str,
    "dtype": str,
    "stage": str,
    "step": int,
    "tokens_seen": int,
    "tokenizer_sha256": str,
}
# safetensors' names -> those of torch and of the manifest
DTYPES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_FAMILIES = ("Olmo", "Olmo2", "Olmo3", "Olmoe", "Llama", "Mistral", "Mixtral")
_EXPERTS = {"Olmoe": "num_experts", "Mixtral": "num_local_experts"}


def _read_config(directory: Path) -> tuple[dict[str, Any], str]:
    path = directory / _CONFIG
    config = read_object(path)
    names = require(config, "architectures", list, path)
    if len(names) != 1 or not isinstance(names[0], str):
        sentence = f'"architectures" is {names!r}; expected an array of one name'
        raise FormatError("invalid_value", path, sentence, field="architectures")
    return config, names[0]


def required_shapes(config: dict[str, Any], architecture: str, path: Path) -> dict[str, tuple[int, ...]]:
    """Give the tensors that a configuration requires, by the contract's table; none for an architecture it lacks.

    Raises:
        FormatError: `missing_field` or `wrong_type` in `config.json`.
    """
    family = architecture.removesuffix("ForCausalLM")
    if family not in _FAMILIES:
        return {}
    sizes = ("hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers", "num_attention_heads")
    width, inner, vocabulary, layers, heads = (int(require(config, name, int, path)) for name in sizes)
    optional = {key: value for key, value in config.items() if value is not None}
    head_width = require(optional, "head_dim", int, path) if "head_dim" in optional else width // max(heads, 1)
    key_heads = require(optional, "num_key_value_heads", int, path) if "num_key_value_heads" in optional else heads
    queries, keys = heads * head_width, key_heads * head_width
    attention = {
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries),
    }
    room, gate, up, down = "mlp", "gate_proj", "up_proj", "down_proj"
    if family == "Mixtral":
        room, gate, up, down = "block_sparse_moe", "w1", "w3", "w2"
    parts = [room]
    if family in _EXPERTS:
        parts = [f"{room}.experts.{number}" for number in range(int(require(config, _EXPERTS[family], int, path)))]
    feed_forward = {f"{part}.{name}": (inner, width) for part in parts for name in (gate, up)}
    feed_forward |= {f"{part}.{down}": (width, inner) for part in parts}
    norms: dict[str, int] = {}
    if family in ("Olmo2", "Olmo3", "Olmoe"):
        norms |= {"self_attn.q_norm": queries, "self_attn.k_norm": keys}
    if family in ("Olmo2", "Olmo3"):
        norms |= {"post_attention_layernorm": width, "post_feedforward_layernorm": width}
    elif family != "Olmo":
        norms |= {"input_layernorm": width, "post_attention_layernorm": width}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (vocabulary, width)
    if norms:
        shapes["model.norm.weight"] = (width,)
    attention_bias = config.get("attention_bias") and family not in ("Mistral", "Mixtral")
    mlp_bias = family == "Llama" and config.get("mlp_bias")
    for layer in range(layers):
        start = f"model.layers.{layer}."
        for matrices, bias in ((attention, attention_bias), (feed_forward, mlp_bias)):
            for name, shape in matrices.items():
                shapes[f"{start}{name}.weight"] = shape
                if bias:
                    shapes[f"{start}{name}.bias"] = shape[:1]
        if family in _EXPERTS:
            shapes[f"{start}{room}.gate.weight"] = (len(parts), width)
        shapes |= {f"{start}{name}.weight": (size,) for name, size in norms.items()}
    return shapes


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """Read the headers of a checkpoint's tensor files, as one table sorted by name.

    Raises:
        FormatError: `missing_file`, `missing_tensor` where the index names a tensor that its file lacks, and those
            of `read_header`.
    """
    index_path = directory / _INDEX
    if not index_path.is_file():
        return dict(sorted(read_header(directory / _SINGLE).items()))
    weight_map = require(read_object(index_path), "weight_map", dict, index_path)
    headers = {name: read_header(directory / name) for name in sorted(set(weight_map.values()))}
    tensors = {}
    for name, file in sorted(weight_map.items()):
        if name not in headers[file]:
            sentence = f'"{name}" is absent; expected it, as the index says'
            raise FormatError("missing_tensor", directory / file, sentence, field=name)
        tensors[name] = headers[file][name]
    return tensors


def count_tensors(tensors: dict[str, Tensor]) -> dict[str, int]:
    """Give the manifest's counts: parameters and tensors that are stored."""
    return {"parameters": sum(tensor.items for tensor in tensors.values()), "tensors": len(tensors)}


def check_checkpoint(directory: Path, *, tokenizer: bool = False) -> dict[str, Tensor]:
    """Check a checkpoint whole, manifest and hashes included, and return its tensors; `tokenizer` requires one.

    Raises:
        FormatError: the first rule of docs/formats/checkpoint.md that the directory breaks.
    """
    manifest = None
    if (directory / NAME).is_file():
        manifest = read_manifest(directory, "checkpoint")
        check_files(directory, manifest, hashes=True)
        for field, expected in _DETAILS.items():
            require(manifest["details"], field, expected, directory / NAME, prefix="details.")
    config, architecture = _read_config(directory)
    shapes = required_shapes(config, architecture, directory / _CONFIG)
    tensors = read_tensors(directory)
    holder = directory / (_INDEX if (directory / _INDEX).is_file() else _SINGLE)
    for name, shape in shapes.items():
        if name not in tensors:
            sentence = f'"{name}" is absent; expected a tensor of shape {list(shape)}'
            raise FormatError("missing_tensor", holder, sentence, field=name)
        if tensors[name].shape != shape:
            sentence = f'"{name}" has the shape {list(tensors[name].shape)}; expected {list(shape)}'
            raise FormatError("wrong_shape", tensors[name].path, sentence, field=name)
    stored = {DTYPES.get(tensor.dtype, tensor.dtype) for tensor in tensors.values()}
    dtype = manifest["details"]["dtype"] if manifest else None
    if manifest and dtype not in stored:  # dtypes may be mixed: this is that of most parameters
        sentence = f'"details.dtype" is "{dtype}"; expected {" or ".join(sorted(stored))}, as the weights are'
        raise FormatError("wrong_dtype", directory / NAME, sentence, field="details.dtype")
    path = directory / "tokenizer.json"
    if (manifest or tokenizer) and not path.is_file():
        raise FormatError("missing_file", path, "not found; expected the checkpoint's tokenizer")
    if manifest and sha256_file(path) != manifest["details"]["tokenizer_sha256"]:
        raise FormatError("checksum_mismatch", path, 'has another sha256; expected "details.tokenizer_sha256"')
    return tensors

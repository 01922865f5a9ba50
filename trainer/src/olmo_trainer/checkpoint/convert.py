"""New checkpoints from existing ones: import other layouts, export, average.

Reads Hugging Face directories, and OLMo's and OLMo-core's own files. Nothing is unpickled: `model.pt` is read as
tensors only, and of the pickles that OLMo uses as names only the text is taken. `logit_difference` checks a conversion
against transformers.
"""

import base64
import json
import logging
import pickletools
import re
import shutil
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer

from ..config.check import model_problems
from ..config.olmo import core_model, olmo_eos, olmo_model
from ..config.published import model_settings
from ..config.schema import ModelConfig
from ..data.sources import SpecialTokens, input_rows
from ..formats.checkpoint import (
    DTYPES,
    Checkpoint,
    Tensor,
    inspect_checkpoint,
    open_tokenizer,
    read_checkpoint,
    tokenizer_difference,
)
from ..formats.contract import ConfigError, FormatError, mismatch, read_object
from ..formats.manifest import MANIFEST
from ..model.architecture import architecture_of
from ..settings import SettingError, build, in_file, read_settings
from .layout import (
    ARCHITECTURES,
    HEAD,
    cast,
    check_finite,
    dtype_of_most,
    generation_json,
    model_json,
    needed_weights,
    published_shapes,
    stored_weights,
    tokenizer_json,
    unties,
)
from .restore import read_model
from .save import copy_sidecars, describe_checkpoint, final_name, publish, write_json, write_weights

__all__ = ["average_checkpoints", "export_checkpoint", "import_checkpoint", "logit_difference"]

log = logging.getLogger(__name__)


# ---- read other layouts


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A model in another layout; `weights` under transformers' names."""

    model: ModelConfig
    weights: dict[str, torch.Tensor]
    eos: int | None
    bos: int | None
    pad: int | None
    max_positions: int
    config: dict[str, Any] = field(default_factory=dict)
    """Its config.json; empty unless transformers can read the directory."""


def read_foreign(directory: Path) -> Foreign:
    """Read a directory of config.json and safetensors (Hugging Face), config.yaml and model.pt or model.safetensors
    (OLMo), or config.json and either (OLMo-core).
    """
    if (directory / "config.yaml").is_file():
        return _olmo(directory)
    config = read_object(directory / "config.json")
    if "architectures" not in config and isinstance(config.get("model"), dict):
        return _core(directory, config)
    return _hugging_face(directory)


def _hugging_face(directory: Path) -> Foreign:
    opened, found = read_checkpoint(directory), inspect_checkpoint(directory)
    config, where = opened.config, directory / "config.json"
    model = _build(model_settings(config, where), where)
    weights = stored_weights(opened)
    if model.tie_word_embeddings and unties(weights):
        log.warning("%s: %s is stored and is not the embedding; tie_word_embeddings becomes false", where, HEAD)
        model = replace(model, tie_word_embeddings=False)
    ends = [end for stated in (config, found.generation_config) for end in _listed(stated.get("eos_token_id"))]
    if not ends and (directory / "tokenizer.json").is_file():
        ends = _listed(found.special_token_id("eos"))
    pad = config.get("pad_token_id")
    if pad is not None and not 0 <= pad < (model.embedding_size or 0):
        log.warning(
            '%s: "pad_token_id" is %d, beyond the embedding of %d rows; dropping it', where, pad, model.embedding_size
        )
        pad = None
    return Foreign(
        model=model,
        weights=weights,
        eos=ends[0] if ends else None,
        bos=config.get("bos_token_id"),
        pad=pad,
        max_positions=found.max_positions or 2048,
        config=config,
    )


def _listed(value: Any) -> list[int]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _build(settings: dict[str, Any], where: Path) -> ModelConfig:
    model = build(ModelConfig, settings, str(where))
    with in_file(where):
        if problems := model_problems(model):
            raise SettingError(*problems)
    return model


def _tensors(directory: Path) -> dict[str, torch.Tensor]:
    """`model.pt` or `model.safetensors`, whole."""
    path = directory / "model.safetensors"
    if path.is_file():
        return {_name(key): tensor for key, tensor in load_file(path).items()}
    path = directory / "model.pt"
    if not path.is_file():
        raise FormatError("missing_file", path, "not found; expected model.pt or model.safetensors")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises several kinds for damage and forbidden content
        raise mismatch("invalid_value", path, "not a plain file of tensors", "a state dict") from error
    nested = loaded.get("model", loaded) if isinstance(loaded, dict) else {}
    return {name: tensor for name, tensor in nested.items() if isinstance(tensor, torch.Tensor)}


def _name(key: str) -> str:
    """A tensor's name; OLMo writes the base64 of a pickled (names, flag), whose text can be read without running it."""
    if "." in key:
        return key
    try:
        opcodes = pickletools.genops(base64.urlsafe_b64decode(key))
        return ".".join(str(value) for opcode, value, _ in opcodes if "UNICODE" in opcode.name)
    except ValueError:
        return key


_OLMO = {
    "transformer.wte.weight": "model.embed_tokens.weight",
    "transformer.ln_f.weight": "model.norm.weight",
    "transformer.ff_out.weight": "lm_head.weight",
}
_CORE = {
    "embeddings.weight": "model.embed_tokens.weight",
    "lm_head.norm.weight": "model.norm.weight",
    "lm_head.w_out.weight": "lm_head.weight",
}


def _olmo(directory: Path) -> Foreign:
    where = directory / "config.yaml"
    config = read_settings(where, [])
    if not isinstance(config.get("model"), dict):
        raise ConfigError(f'{where}: "model" is missing; expected a config.yaml of OLMo')
    described = config["model"]
    model = _build(olmo_model(described, where), where)
    heads = model.num_key_value_heads or model.num_attention_heads
    key_rows = heads * (model.hidden_size // model.num_attention_heads)
    before, after = _norms(model.family)
    block = {
        "att_proj": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
        "attn_out": "self_attn.o_proj",
        "ff_proj": "mlp.up_proj mlp.gate_proj",
        "ff_out": "mlp.down_proj",
        "q_norm": "self_attn.q_norm",
        "k_norm": "self_attn.k_norm",
        "attn_norm": before,
        "ff_norm": after,
    }
    rows = {"att_proj": [key_rows, key_rows], "ff_proj": [model.intermediate_size]}
    weights = _renamed(directory, "transformer.blocks.", block, _OLMO, rows)
    return Foreign(
        model=replace(model, tie_word_embeddings=model.tie_word_embeddings and not unties(weights)),
        weights=weights,
        eos=olmo_eos(described),
        bos=None,
        pad=described.get("pad_token_id"),
        max_positions=described.get("max_sequence_length", 2048),
    )


def _core(directory: Path, config: dict[str, Any]) -> Foreign:
    where = directory / "config.json"
    model = _build(core_model(config["model"], where), where)
    before, after = _norms(model.family)
    block = {
        **{f"attention.w_{x}": f"self_attn.{x}_proj" for x in "qkv"},
        "attention.w_out": "self_attn.o_proj",
        "attention.q_norm": "self_attn.q_norm",
        "attention.k_norm": "self_attn.k_norm",
        "attention_norm": before,
        "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w2": "mlp.down_proj",
        "feed_forward.w3": "mlp.up_proj",
        "feed_forward_norm": after,
    }
    dataset = config.get("dataset") or {}
    tokenizer = dataset.get("tokenizer") or {}
    return Foreign(
        model=model,
        weights=_renamed(directory, "blocks.", block, _CORE),
        eos=tokenizer.get("eos_token_id"),
        bos=tokenizer.get("bos_token_id"),
        pad=tokenizer.get("pad_token_id"),
        max_positions=dataset.get("sequence_length", 4096),
    )


def _norms(family: str) -> tuple[str, str]:
    if family == "llama":
        return "input_layernorm", "post_attention_layernorm"
    return "post_attention_layernorm", "post_feedforward_layernorm"


def _renamed(
    directory: Path,
    prefix: str,
    block: dict[str, str],
    others: dict[str, str],
    rows: dict[str, list[int]] | None = None,
) -> dict[str, torch.Tensor]:
    """The tensors of a directory under transformers' names; `rows`: of a fused one's parts but the first."""
    published = {}
    for name, tensor in _tensors(directory).items():
        match = re.fullmatch(rf"{re.escape(prefix)}(\d+)\.(.+)\.weight", name)
        if match and match[2] in block:
            further = (rows or {}).get(match[2], [])
            pieces = torch.split(tensor, [tensor.shape[0] - sum(further), *further])
            for part, piece in zip(block[match[2]].split(), pieces, strict=True):
                published[f"model.layers.{match[1]}.{part}.weight"] = piece
        elif name in others:
            published[others[name]] = tensor
        else:
            raise mismatch("invalid_value", directory, "a tensor with an unknown name", "OLMo's names", field=name)
    check_finite(published, directory)
    return published


# ---- import

# settings of config.json that are dropped, as they name code that is not copied or are written anew
_DROPPED = ("auto_map", "_name_or_path", "transformers_version", "torch_dtype", "rope_scaling", "rope_parameters")
# settings that keep their value, though our model has no use for it: training's, and further stop ids
_UNCHANGED = ("attention_dropout", "initializer_range", "use_cache", "output_router_logits", "eos_token_id")


def import_checkpoint(
    source: Path, directory: Path, dtype: str | None, shard_bytes: int | None, tokenizer: Path | None
) -> Foreign:
    """Write a checkpoint of ours from a Hugging Face, OLMo or OLMo-core directory to an empty directory.

    Sidecar files are kept, and each weight keeps its dtype unless one is given.
    """
    foreign = read_foreign(source)
    tokenizer = tokenizer or source / "tokenizer.json"
    try:
        opened = open_tokenizer(tokenizer)
    except FormatError as error:
        hint = error.hint or "name one with --tokenizer"
        raise ConfigError(f"{error.path}: {error.message}", hint=hint) from error
    if foreign.eos is None:
        raise ConfigError(f"{source}: eos_token_id is missing; expected the id that ends a document")
    special = SpecialTokens(eos=foreign.eos, bos=foreign.bos, pad=foreign.pad)
    shape = architecture_of(foreign.model, 0)
    largest = max(opened.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= shape.embedding_rows:
        rows = f"the embedding of {shape.embedding_rows} rows"
        log.warning("%s: has ids up to %d, beyond %s; the model cannot read texts with them", tokenizer, largest, rows)
    weights = cast(needed_weights(foreign.weights, published_shapes(shape), source), dtype, source)
    main_dtype = dtype_of_most(weights)
    write_weights(directory, weights, shard_bytes)
    kept = {name: value for name, value in foreign.config.items() if name not in _DROPPED}
    unchanged = {name: kept[name] for name in _UNCHANGED if kept.get(name) is not None}
    config = {**kept, **model_json(shape, special, foreign.max_positions, main_dtype), **unchanged}
    write_json(directory / "config.json", config)
    generation = {**generation_json(special), "eos_token_id": config["eos_token_id"]}
    write_json(directory / "generation_config.json", generation)
    write_json(directory / "tokenizer_config.json", tokenizer_json(opened, special, foreign.max_positions))
    copy_sidecars(source, directory)
    shutil.copyfile(tokenizer, directory / "tokenizer.json")
    check_tokenizer(directory)
    details = {
        "architecture": ARCHITECTURES[shape.family],
        "dtype": main_dtype,
        "stage": "pretrain",
        "step": 0,
        "tokens_seen": 0,
    }
    describe_checkpoint(directory, weights, {"dtype": main_dtype}, details, _inputs(source, directory))
    return foreign


def check_tokenizer(directory: Path) -> None:
    """Compare what AutoTokenizer makes of a directory with its tokenizer.json, if transformers is installed.

    Raises: FormatError: `invalid_value`: they give different ids.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError:
        return
    loaded = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    theirs = Tokenizer.from_str(loaded.backend_tokenizer.to_str())
    theirs.no_truncation()
    theirs.no_padding()
    theirs.encode_special_tokens = True
    difference = tokenizer_difference(open_tokenizer(directory / "tokenizer.json"), theirs)
    if difference is not None:
        path = final_name(directory) / "tokenizer.json"
        got = f"not the tokenizer that transformers loads ({difference})"
        hint = "remove the tokens from tokenizer_config.json that tokenizer.json does not have"
        raise mismatch("invalid_value", path, got, "the same ids from both", hint=hint)


def _inputs(source: Path, directory: Path) -> list[dict[str, Any]]:
    paths = [source] if (source / MANIFEST).is_file() else [path for path in sorted(source.iterdir()) if path.is_file()]
    return [row for path in paths for row in input_rows("checkpoint", path, directory)]


def logit_difference(ours: Path, reference: Path) -> tuple[float, float]:
    """The largest difference between our logits and transformers' on random tokens, and the largest logit; float32.

    The difference is not finite if any logit is not.
    """
    import transformers

    model, _ = read_model(ours)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(reference, dtype=torch.float32)
    draw = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(0, model.shape.embedding_rows, (2, 64), generator=draw)
    with torch.no_grad():
        expected = theirs(tokens_BT).logits
        return float((model.logits(tokens_BT) - expected).abs().max()), float(expected.abs().max())


# ---- export


def export_checkpoint(source: Path, directory: Path, dtype: str | None, shard_bytes: int | None = None) -> None:
    """Copy a checkpoint to an empty directory, without what only continues training.

    Each weight keeps its dtype unless one is given; weights are in files of at most `shard_bytes`, or in one.
    """
    opened = read_checkpoint(source)
    if opened.manifest is None:
        raise FormatError("missing_file", source / "manifest.json", "not found; expected a checkpoint with a manifest")
    weights = cast(stored_weights(opened), dtype, source)
    main_dtype = dtype_of_most(weights)
    write_weights(directory, weights, shard_bytes)
    write_json(directory / "config.json", {**opened.config, "dtype": main_dtype})
    copy_sidecars(source, directory)
    check_tokenizer(directory)
    details = {**opened.manifest.details, "dtype": main_dtype}
    inputs = input_rows("checkpoint", source, directory)
    describe_checkpoint(directory, weights, {"dtype": main_dtype}, details, inputs)


# ---- average

_COPIED = ("config.json", "model.safetensors.index.json")


def average_checkpoints(sources: list[Path], destination: Path) -> str:
    """Write the mean of the weights, in the files and types of the first checkpoint; returns its identity.

    Sums are float64; no more than one tensor of each checkpoint is in memory.
    """
    opened = [read_checkpoint(source) for source in sources]
    _check_alike(opened)
    first = opened[0]
    files: dict[Path, list[Tensor]] = defaultdict(list)
    for tensor in first.tensors.values():
        files[tensor.path].append(tensor)
    manifests = [checkpoint.manifest for checkpoint in opened if checkpoint.manifest is not None]
    with publish(destination) as temporary:
        for path, tensors in sorted(files.items()):
            _write_file(temporary / path.name, path, tensors, opened)
        copy_sidecars(first.directory, temporary)
        for name in _COPIED:
            if (first.directory / name).is_file():
                shutil.copyfile(first.directory / name, temporary / name)
        seen = {name: max(manifest.details[name] for manifest in manifests) for name in ("step", "tokens_seen")}
        details = {**manifests[0].details, **seen}
        inputs = [row for source in sources for row in input_rows("checkpoint", source, destination)]
        return describe_checkpoint(temporary, first.tensors, {"average_of": len(sources)}, details, inputs)


def _check_alike(opened: list[Checkpoint]) -> None:
    first = opened[0]
    for checkpoint in opened:
        if checkpoint.manifest is None or first.manifest is None:
            where = checkpoint.directory / "manifest.json"
            raise FormatError("missing_file", where, "not found; expected a checkpoint with a manifest")
        _check_settings(first, checkpoint)
        for name, tensor in {**first.tensors, **checkpoint.tensors}.items():
            wanted, found = first.tensors.get(name), checkpoint.tensors.get(name)
            if wanted is None or found is None or wanted.shape != found.shape:
                got = "missing" if found is None else f"of shape {list(found.shape)}"
                expected = f"none, as in {first.directory}" if wanted is None else f"shape {list(wanted.shape)}"
                code = "missing_tensor" if found is None else "wrong_shape"
                raise mismatch(code, checkpoint.directory, got, expected, field=name)
            if tensor.dtype not in DTYPES:
                raise mismatch("wrong_dtype", checkpoint.directory, tensor.dtype, "F32, BF16 or F16", field=name)
        mine, others = (manifest.details["tokenizer_sha256"] for manifest in (first.manifest, checkpoint.manifest))
        if mine != others:
            path = checkpoint.directory / "tokenizer.json"
            difference = tokenizer_difference(open_tokenizer(first.directory / path.name), open_tokenizer(path))
            if difference is not None:
                got = f"a different tokenizer ({difference})"
                raise mismatch("checksum_mismatch", path, got, f"that of {first.directory}")


def _check_settings(first: Checkpoint, other: Checkpoint) -> None:
    """The same shapes may mean other models: another number of heads, another rotary base."""
    wanted, found = (model_settings(opened.config, opened.directory / "config.json") for opened in (first, other))
    for name, value in wanted.items():
        if found.get(name) != value and not name.startswith("router_"):  # loss weights matter only for training
            got, expected = f"{found.get(name)}", f"{value}, as in {first.directory}"
            raise mismatch("invalid_value", other.directory / "config.json", got, expected, field=name)


def _write_file(destination: Path, source: Path, tensors: list[Tensor], opened: list[Checkpoint]) -> None:
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
            mean = (total / len(opened)).to(getattr(torch, DTYPES[tensor.dtype])).contiguous()
            stream.seek(tensor.start)
            stream.write(mean.reshape(-1).view(torch.uint8).numpy().astype(np.uint8, copy=False).tobytes())

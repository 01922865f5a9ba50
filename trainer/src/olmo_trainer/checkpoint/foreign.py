"""Weights as others store them: Hugging Face directories, and OLMo's and OLMo-core's own files.

Nothing is unpickled: `model.pt` is read as tensors alone, and of the pickles that OLMo makes of names only the text is
taken.
"""

from __future__ import annotations

import base64
import logging
import pickletools
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..config.errors import ConfigError, Problem
from ..config.native import core_model, olmo_eos, olmo_model
from ..config.parse import build, read_mapping
from ..config.published import model_settings
from ..config.schema import ModelConfig
from ..config.sections.model import problems
from ..formats.checkpoint import open_checkpoint
from ..formats.fields import mismatch
from ..formats.inspection import inspect_checkpoint
from ..formats.json_lines import read_object
from .weights import HEAD, check_finite, stored_weights, unties

__all__ = ["Foreign", "read_foreign"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A model of others; `weights` under transformers' names."""

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

    Raises: ConfigError: a model that this trainer does not have; FormatError: files are missing or damaged.
    """
    if (directory / "config.yaml").is_file():
        return _olmo(directory)
    config = read_object(directory / "config.json")
    if "architectures" not in config and isinstance(config.get("model"), dict):
        return _core(directory, config)
    return _hugging_face(directory)


def _hugging_face(directory: Path) -> Foreign:
    opened, found = open_checkpoint(directory), inspect_checkpoint(directory)
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
    if found := problems(model):
        raise ConfigError(*(Problem(f'{where}: "{key}" is {value}; expected {text}') for key, value, text, _ in found))
    return model


def _tensors(directory: Path) -> dict[str, torch.Tensor]:
    """`model.pt` or `model.safetensors`, whole."""
    path = directory / "model.safetensors"
    if path.is_file():
        return {_name(key): tensor for key, tensor in load_file(path).items()}
    path = directory / "model.pt"
    if not path.is_file():
        raise mismatch(path, "missing_file", "missing", "model.pt or model.safetensors")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch tells damage and forbidden content by several kinds
        raise mismatch(path, "invalid_value", "not a plain file of tensors", "a state dict") from error
    nested = loaded.get("model", loaded) if isinstance(loaded, dict) else {}
    return {name: tensor for name, tensor in nested.items() if isinstance(tensor, torch.Tensor)}


def _name(key: str) -> str:
    """A tensor's name; OLMo writes the base64 of a pickled (names, flag), whose text can be told without running it."""
    if "." in key:
        return key
    try:
        opcodes = pickletools.genops(base64.urlsafe_b64decode(key))
        return ".".join(str(value) for opcode, value, _ in opcodes if "UNICODE" in opcode.name)
    except ValueError:
        return key


_OLMO = {
    "transformer.wte.weight": ["model.embed_tokens.weight"],
    "transformer.ln_f.weight": ["model.norm.weight"],
    "transformer.ff_out.weight": ["lm_head.weight"],
}
_CORE = {
    "embeddings.weight": ["model.embed_tokens.weight"],
    "lm_head.norm.weight": ["model.norm.weight"],
    "lm_head.w_out.weight": ["lm_head.weight"],
}


def _olmo(directory: Path) -> Foreign:
    where = directory / "config.yaml"
    config = read_mapping(where, [])
    if not isinstance(config.get("model"), dict):
        raise ConfigError(Problem(f'{where}: "model" is missing; expected a config.yaml of OLMo'))
    described = config["model"]
    model = _build(olmo_model(described, where), where)
    heads = model.num_key_value_heads or model.num_attention_heads
    key_rows = heads * (model.hidden_size // model.num_attention_heads)
    before, after = _norms(model.family)
    block = {
        "att_proj": (["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], [-1, key_rows, key_rows]),
        "attn_out": (["self_attn.o_proj"], [-1]),
        "ff_proj": (["mlp.up_proj", "mlp.gate_proj"], [-1, model.intermediate_size]),
        "ff_out": (["mlp.down_proj"], [-1]),
        "q_norm": (["self_attn.q_norm"], [-1]),
        "k_norm": (["self_attn.k_norm"], [-1]),
        "attn_norm": ([before], [-1]),
        "ff_norm": ([after], [-1]),
    }
    weights = _renamed(_tensors(directory), "transformer.blocks.", block, _OLMO, directory)
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
        **{f"attention.w_{x}": ([f"self_attn.{x}_proj"], [-1]) for x in "qkv"},
        "attention.w_out": (["self_attn.o_proj"], [-1]),
        "attention.q_norm": (["self_attn.q_norm"], [-1]),
        "attention.k_norm": (["self_attn.k_norm"], [-1]),
        "attention_norm": ([before], [-1]),
        "feed_forward.w1": (["mlp.gate_proj"], [-1]),
        "feed_forward.w2": (["mlp.down_proj"], [-1]),
        "feed_forward.w3": (["mlp.up_proj"], [-1]),
        "feed_forward_norm": ([after], [-1]),
    }
    dataset = config.get("dataset") or {}
    tokenizer = dataset.get("tokenizer") or {}
    return Foreign(
        model=model,
        weights=_renamed(_tensors(directory), "blocks.", block, _CORE, directory),
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
    tensors: dict[str, torch.Tensor],
    prefix: str,
    block: dict[str, tuple[list[str], list[int]]],
    others: dict[str, list[str]],
    directory: Path,
) -> dict[str, torch.Tensor]:
    """Tensors under transformers' names; −1 rows are what the other parts leave."""
    published = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(rf"{re.escape(prefix)}(\d+)\.(.+)\.weight", name)
        if match and match[2] in block:
            parts, rows = block[match[2]]
            sizes = [tensor.shape[0] - sum(rows[1:]), *rows[1:]]
            for part, piece in zip(parts, torch.split(tensor, sizes), strict=True):
                published[f"model.layers.{match[1]}.{part}.weight"] = piece
        elif name in others:
            published.update(dict.fromkeys(others[name], tensor))
        else:
            raise mismatch(directory, "invalid_value", "a tensor of no known place", "OLMo's names", field=name)
    check_finite(published, directory)
    return published

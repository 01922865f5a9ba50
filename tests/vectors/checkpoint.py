"""Vectors of docs/formats/checkpoint.md: tiny models with random weights, and the logits that transformers computes.

The weights come from NumPy's PCG64 and the probe from transformers in float32, rounded to six decimals.
"""

import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cases import Case, canonical_line, head, invalid, manifest, pretty, sha256
from .tokenizer import CONFIG as TOKENIZER_CONFIG
from .tokenizer import END, TOKENIZER

__all__ = ["cases"]

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]  # name -> safetensors dtype, shape, little-endian bytes
_MODEL, _CONFIG, _INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"

TEMPLATE = b"""{%- for message in messages -%}
{{- "<|" + message["role"] + "|>" -}}
{%- if message["role"] == "assistant" -%}
{% generation %}{{- message["content"] + eos_token -}}{% endgeneration %}
{%- else -%}
{{- message["content"] -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|assistant|>" -}}{%- endif -%}
"""


_FAMILIES = "Olmo Olmo2 Olmo3 Olmoe Llama Mistral Mixtral".split()
_ROUTED = {"Olmoe": "num_experts", "Mixtral": "num_local_experts"}
_EXPERT = {
    "Olmoe": ("mlp", "gate_proj", "up_proj", "down_proj"),
    "Mixtral": ("block_sparse_moe", "w1", "w3", "w2"),
}


def _config(family: str, **changes: Any) -> dict[str, Any]:
    return {
        "architectures": [f"{family}ForCausalLM"],
        "model_type": family.lower(),
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "eos_token_id": END,
        "bos_token_id": None,
        "pad_token_id": 1,
        "use_cache": True,
    } | changes


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Tensors of docs/formats/checkpoint.md, section Tensors."""
    family = config["architectures"][0].removesuffix("ForCausalLM")
    width, inner = config["hidden_size"], config["intermediate_size"]
    head_width = width // config["num_attention_heads"]
    key_width = config["num_key_value_heads"] * head_width
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], width)}
    norms: dict[str, int] = {}
    if family in ("Olmo2", "Olmo3", "Olmoe"):
        norms |= {"self_attn.q_norm": width, "self_attn.k_norm": key_width}
    if family in ("Olmo2", "Olmo3"):
        norms |= {"post_attention_layernorm": width, "post_feedforward_layernorm": width}
    elif family != "Olmo":
        norms |= {"input_layernorm": width, "post_attention_layernorm": width}
    room, gate, up, down = _EXPERT.get(family, ("mlp", "gate_proj", "up_proj", "down_proj"))
    experts = [f"{room}.experts.{number}" for number in range(config.get(_ROUTED.get(family, ""), 0))] or [room]
    for layer in range(config["num_hidden_layers"]):
        matrices: dict[str, tuple[int, ...]] = {
            "self_attn.q_proj": (width, width),
            "self_attn.k_proj": (key_width, width),
            "self_attn.v_proj": (key_width, width),
            "self_attn.o_proj": (width, width),
        }
        if family in _ROUTED:
            matrices[f"{room}.gate"] = (len(experts), width)
        for expert in experts:
            matrices |= {f"{expert}.{gate}": (inner, width), f"{expert}.{up}": (inner, width)}
            matrices[f"{expert}.{down}"] = (width, inner)
        matrices |= {name: (size,) for name, size in norms.items()}
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in matrices.items()}
    if norms:
        shapes["model.norm.weight"] = (width,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    return shapes


def _bytes(array: NDArray[np.float32], dtype: str) -> bytes:
    if dtype == "BF16":  # the upper half of a float32; the values are drawn with a lower half of zero
        return (array.view("<u4") >> 16).astype("<u2").tobytes()
    return array.astype("<f4").tobytes()


def _draw(config: dict[str, Any], seed: int, dtype: str = "F32") -> Tensors:
    generator = np.random.Generator(np.random.PCG64(seed))
    tensors: Tensors = {}
    for name, shape in _shapes(config).items():
        array = generator.standard_normal(shape, dtype=np.float32) * np.float32(0.25)
        if len(shape) == 1:
            array += np.float32(1)
        array = (array.view("<u4") & np.uint32(0xFFFF0000)).view("<f4")
        tensors[name] = (dtype, shape, _bytes(array, dtype))
    return tensors


def _safetensors(tensors: Tensors) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    content = b""
    for name, (dtype, shape, data) in sorted(tensors.items()):
        offsets = [len(content), len(content) + len(data)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        content += data
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded + content


def _sharded(tensors: Tensors, shards: int) -> dict[str, bytes]:
    names = sorted(tensors)
    files, weight_map = {}, {}
    for number in range(shards):
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {key: tensors[key] for key in names[number::shards]}
        files[name] = _safetensors(part)
        weight_map |= dict.fromkeys(part, name)
    total = sum(len(data) for _, _, data in tensors.values())
    return {**files, _INDEX: pretty({"metadata": {"total_size": total}, "weight_map": weight_map})}


def _counts(tensors: Tensors) -> dict[str, int]:
    sizes = [int(np.prod(shape)) for _, shape, _ in tensors.values()]
    return {"parameters": sum(sizes), "tensors": len(tensors)}


def _dump(tensors: Tensors) -> list[dict[str, Any]]:
    rows = [
        {"tensor": name, "dtype": dtype, "shape": list(shape), "sha256": sha256(data)}
        for name, (dtype, shape, data) in sorted(tensors.items())
    ]
    return [head("checkpoint", _counts(tensors)), *rows]


def _probe(data: dict[str, bytes]) -> bytes:
    """Logits of two rows of ids, by transformers in float32 with eager attention."""
    import torch
    from transformers import AutoModelForCausalLM

    input_ids = [[0, 5, 9, 7, 26, 63], [3, 31, 4, 15, 2, 6]]
    with tempfile.TemporaryDirectory() as folder:
        for name, content in data.items():
            (Path(folder) / name).parent.mkdir(exist_ok=True)
            (Path(folder) / name).write_bytes(content)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        with torch.no_grad():
            logits = model(torch.tensor(input_ids)).logits.double().numpy().round(6)
    return canonical_line({"input_ids": input_ids, "logits": logits.tolist()}).encode()


def _details(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "architecture": config["architectures"][0],
        "dtype": "float32",
        "stage": "pretrain",
        "step": 20,
        "tokens_seen": 1280,
        "tokenizer_sha256": sha256(TOKENIZER),
    } | changes


def _ours(
    config: dict[str, Any], tensors: Tensors, more: dict[str, bytes] | None = None, **details: Any
) -> dict[str, bytes]:
    data = {
        _CONFIG: pretty(config),
        _MODEL: _safetensors(tensors),
        "tokenizer.json": TOKENIZER,
        "tokenizer_config.json": TOKENIZER_CONFIG,
    } | (more or {})
    value = manifest("checkpoint", data, _counts(tensors), details=_details(config, **details))
    return {**data, "manifest.json": pretty(value)}


def _valid() -> list[Case]:
    # 70 rows of embedding over 64 tokens: the last six are padding
    olmo = _config("Olmo", vocab_size=70)
    olmo2 = _config("Olmo2", rms_norm_eps=1e-6)
    llama = _config("Llama", rms_norm_eps=1e-5, num_key_value_heads=1, tie_word_embeddings=True)
    narrow_llama = _config("Llama", hidden_size=8, intermediate_size=12, num_hidden_layers=1, rms_norm_eps=1e-5)
    state = _safetensors({"exp_avg.0": ("F32", (2,), b"\x00" * 8)})
    first, second, third = _draw(olmo, 1), _draw(olmo2, 2, "BF16"), _draw(llama, 3)
    # norms in float32, matrices in bfloat16
    mixed = {name: tensor for name, tensor in _draw(narrow_llama, 9).items() if len(tensor[1]) == 1}
    mixed |= {name: tensor for name, tensor in _draw(narrow_llama, 9, "BF16").items() if len(tensor[1]) == 2}
    more = {
        "chat_template.jinja": TEMPLATE,
        "training/optimizer.safetensors": state,
        "training/state.json": b'{"step":20}\n',
    }
    made = [
        ("olmo_padded_vocabulary", _ours(olmo, first), first),
        ("olmo2_sharded_bfloat16", {_CONFIG: pretty(olmo2), **_sharded(second, 2)}, second),
        ("llama_tied_after_sft", _ours(llama, third, more, stage="sft"), third),
        ("llama_mixed_dtypes", _ours(narrow_llama, mixed, dtype="bfloat16"), mixed),
    ]
    narrow = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_key_value_heads": 1}
    narrow |= {"rms_norm_eps": 1e-5}
    # transformers 5 gives the sliding layers its own default, whatever the top-level rope_theta is
    narrow_olmo3 = narrow | {"rope_theta": 500000.0}
    windows = {"num_hidden_layers": 2, "sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}
    routed = {"num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": False}
    others = {
        "olmo3_one_layer_with_a_window": _config("Olmo3", **narrow_olmo3 | windows),
        "olmoe_four_experts": _config("Olmoe", **narrow | routed),
        "mistral_window_of_three": _config("Mistral", **narrow, sliding_window=3, head_dim=4),
        "mixtral_four_experts": _config("Mixtral", **narrow, num_local_experts=4, num_experts_per_tok=2),
    }
    for seed, (name, config) in enumerate(others.items(), start=5):
        tensors = _draw(config, seed)
        made.append((name, {_CONFIG: pretty(config), _MODEL: _safetensors(tensors)}, tensors))
    return [
        Case(name=name, data=data, dump=_dump(tensors), extra={"probe.json": _probe(data)})
        for name, data, tensors in made
    ]


def cases() -> list[Case]:
    """Valid: the seven architectures, whole, in shards and tied. Invalid: one case per rule, on a smaller model."""
    config = _config("Llama", hidden_size=8, intermediate_size=8, num_hidden_layers=1, rms_norm_eps=1e-5)
    config |= {"tie_word_embeddings": True}
    tensors = _draw(config, 4)
    name = "model.layers.0.self_attn.k_proj.weight"
    dtype, _, content = tensors[name]
    whole = _safetensors(tensors)
    ours = _ours(config, tensors)
    shards = _sharded(tensors, 2)
    second = "model-00002-of-00002.safetensors"
    no_architecture = {key: value for key, value in config.items() if key != "architectures"}
    damaged = ours[_MODEL][:-3] + b"\x00\x00\x7f"
    no_stage = _details(config)
    del no_stage["stage"]
    without = {path: data for path, data in ours.items() if path not in ("tokenizer.json", "manifest.json")}

    def weights(case: str, code: str, field: str | None, data: bytes) -> Case:
        return invalid(case, {_CONFIG: pretty(config), _MODEL: data}, code, _MODEL, None, field)

    def settings(case: str, code: str, field: str | None, data: bytes) -> Case:
        return invalid(case, {_CONFIG: data, _MODEL: whole}, code, _CONFIG, None, field)

    def described(case: str, code: str, field: str, change: Callable[[dict[str, Any]], Any]) -> Case:
        value = json.loads(ours["manifest.json"])
        change(value)
        return invalid(case, ours | {"manifest.json": pretty(value)}, code, "manifest.json", None, field)

    mixtral = _config("Mixtral", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_local_experts=2)
    experts = _draw(mixtral, 9)
    expert = "model.layers.0.block_sparse_moe.experts.1.w2.weight"
    without_expert = _safetensors({key: value for key, value in experts.items() if key != expert})
    untold_experts = {key: value for key, value in mixtral.items() if key != "num_local_experts"}
    untold = manifest("checkpoint", without, _counts(tensors), details=_details(config))
    return [
        *_valid(),
        invalid("no_configuration", {_MODEL: whole}, "missing_file", _CONFIG),
        settings("configuration_not_json", "not_json", None, b'{"architectures": [}\n'),
        settings("no_architectures", "missing_field", "architectures", pretty(no_architecture)),
        settings("two_architectures", "invalid_value", "architectures", pretty(config | {"architectures": ["A", "B"]})),
        settings("width_is_word", "wrong_type", "hidden_size", pretty(config | {"hidden_size": "8"})),
        weights("wrong_shape", "wrong_shape", name, _safetensors(tensors | {name: (dtype, (4, 16), content)})),
        weights("wrong_dtype", "wrong_dtype", name, _safetensors(tensors | {name: ("BF16", (8, 8), content)})),
        weights("truncated", "truncated", None, whole[:-100]),
        invalid(
            "missing_expert",
            {_CONFIG: pretty(mixtral), _MODEL: without_expert},
            "missing_tensor",
            _MODEL,
            None,
            expert,
        ),
        invalid(
            "untold_experts",
            {_CONFIG: pretty(untold_experts), _MODEL: _safetensors(experts)},
            "missing_field",
            _CONFIG,
            None,
            "num_local_experts",
        ),
        invalid(
            "missing_shard",
            {_CONFIG: pretty(config), **{k: v for k, v in shards.items() if k != second}},
            "missing_file",
            second,
        ),
        invalid("damaged_weights", ours | {_MODEL: damaged}, "checksum_mismatch", _MODEL),
        invalid("no_tokenizer", {**without, "manifest.json": pretty(untold)}, "missing_file", "tokenizer.json"),
        described("no_stage", "missing_field", "details.stage", lambda value: value["details"].pop("stage")),
        described(
            "dtype_of_no_tensor",
            "wrong_dtype",
            "details.dtype",
            lambda value: value["details"].update(dtype="bfloat16"),
        ),
        described("unknown_format", "unknown_format", "format", lambda value: value.update(format="tokens")),
        described("newer_version", "unsupported_version", "version", lambda value: value.update(version=2)),
    ]

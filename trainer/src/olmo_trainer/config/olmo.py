"""Configuration files of OLMo and OLMo-core: their model as the group `model`, and a whole run file of OLMo."""

import glob
import os
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from ..formats.contract import ConfigError, Problem
from ..settings import read_settings
from .published import unknown_options

__all__ = ["core_model", "import_run", "olmo_eos", "olmo_model"]


# ---- the model


def _refuse(where: Path, *wanted: tuple[str, Any, Collection[Any]]) -> None:
    """Refuse options, as (name, value, allowed values), that this trainer does not have."""
    if problems := unknown_options(where, list(wanted)):
        raise ConfigError(*problems)


def _need(mapping: dict[str, Any], names: str, where: Path) -> None:
    missing = [Problem(f'{where}: "model.{name}" is missing') for name in names.split() if mapping.get(name) is None]
    if missing:
        raise ConfigError(*missing)


def olmo_eos(model: dict[str, Any]) -> int | None:
    """The id that ends a document.

    Configs of OLMo-1's vocabulary that say 0 are mistaken, as OLMo's own converter knows: its end-of-text token is the
    last.
    """
    eos: int | None = model.get("eos_token_id")
    return 50279 if eos == 0 and model.get("vocab_size") == 50280 else eos


def olmo_model(model: dict[str, Any], where: Path) -> dict[str, Any]:
    """The group `model` of a config.yaml of allenai/OLMo (OLMo-1, OLMo-2 and its ladder, OLMoE)."""
    _need(model, "d_model n_heads n_layers vocab_size", where)
    norm, affine = model.get("layer_norm_type", "default"), bool(model.get("layer_norm_with_affine", True))
    block = model.get("block_type", "sequential")
    kind = (
        block,
        "rms_norm" if norm == "rms" else "layer_norm",
        affine,
        bool(model.get("norm_after", False)),
        bool(model.get("attention_layer_norm", False)),
    )
    families = {
        ("sequential", "layer_norm", False, False, False): "olmo",
        ("sequential", "rms_norm", True, True, True): "olmo2",
        ("sequential", "rms_norm", True, False, False): "llama",
        ("moe", "rms_norm", True, False, True): "olmoe",
    }
    no = (False, None)
    _refuse(
        where,
        ("model.layer_norm_type", norm, ("default", "low_precision", "rms")),
        ("model.activation_type", model.get("activation_type", "swiglu"), ("swiglu",)),
        ("model.block_type", block, ("sequential", "moe")),
        ("model.moe_dropless", block == "moe" and not model.get("moe_dropless", True), (False,)),
        ("model.rope", model.get("rope", False), (True,)),
        *((f"model.{name}", model.get(name), no) for name in ("alibi", "include_bias", "bias_for_layer_norm")),
        *((f"model.{name}", model.get(name), no) for name in ("embedding_layer_norm", "scale_logits")),
        *((f"model.{name}_dropout", model.get(f"{name}_dropout") or 0, (0,)) for name in _DROPOUTS),
        ("(block, layer norm, affine, norm_after, attention_layer_norm)", kind, tuple(families)),
    )
    width, heads = model["d_model"], model["n_heads"]
    # what OLMo calls the hidden size counts both halves of the SwiGLU product (arXiv 2402.00838, footnote 2)
    hidden = model.get("mlp_hidden_size") or model.get("mlp_ratio", 4) * width
    settings = {
        "family": families[kind],
        "hidden_size": width,
        "intermediate_size": int(hidden) // 2,
        "num_hidden_layers": model["n_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": model.get("n_kv_heads") or (1 if model.get("multi_query_attention") else heads),
        "rope_theta": float(model.get("rope_theta") or 10000),
        "norm_eps": float(model.get("layer_norm_eps") or 1e-5),
        "tie_word_embeddings": bool(model.get("weight_tying", True)),
        "clip_qkv": model.get("clip_qkv"),
        "embedding_size": model.get("embedding_size") or model["vocab_size"],
    }
    if block == "moe":
        settings |= {name: model[theirs] for name, theirs in _MOE.items() if model.get(theirs) is not None}
    return settings


_MOE = {
    "num_experts": "moe_num_experts",
    "num_experts_per_tok": "moe_top_k",
    "router_aux_loss_coef": "moe_loss_weight",
    "router_z_loss_coef": "moe_zloss_weight",
}
_DROPOUTS = ("attention", "residual", "embedding")


def core_model(model: dict[str, Any], where: Path) -> dict[str, Any]:
    """The group `model` of the `model` in a config.json of OLMo-core (OLMo-2, OLMo-3, and Llama's order of norms)."""
    _need(model, "d_model n_layers vocab_size block", where)
    block = model["block"]
    attention = block.get("attention") or block.get("sequence_mixer") or {}
    norm, hidden = block.get("layer_norm") or {}, (block.get("feed_forward") or {}).get("hidden_size")
    _need({**attention, "hidden_size": hidden}, "n_heads hidden_size", where)
    reordered, rope = block.get("name", "default") == "reordered_norm", attention.get("rope") or {}
    heads, layers = attention["n_heads"], model["n_layers"]
    window, types = _core_windows(attention.get("sliding_window"), layers, where)
    no = (False, None)
    _refuse(
        where,
        ("model.block.name", block.get("name", "default"), ("default", "reordered_norm")),
        ("model.block.layer_norm.name", norm.get("name", "rms"), ("rms", "fused_rms")),
        ("model.block.attention.qk_norm", attention.get("qk_norm") is not None, (reordered,)),
        ("model.block.attention.use_head_qk_norm", attention.get("use_head_qk_norm"), no),
        ("model.block.attention.bias", attention.get("bias"), no),
        ("model.block.attention.clip_qkv", attention.get("clip_qkv"), (None,)),
        ("model.block.attention.rope.scaling", rope.get("scaling"), (None,)),
        ("model.block.attention.sliding_window", window is not None and not reordered, (False,)),
        ("model.block_overrides", model.get("block_overrides") or None, (None,)),
    )
    settings = {
        "family": ("olmo3" if window else "olmo2") if reordered else "llama",
        "hidden_size": model["d_model"],
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": attention.get("n_kv_heads") or heads,
        "rope_theta": float(rope.get("theta") or 500_000),
        "norm_eps": float(norm.get("eps") or 1e-5),
        "embedding_size": model["vocab_size"],
    }
    if window:
        settings |= {"sliding_window": window, "layer_types": types}
    return settings


def _core_windows(sliding: dict[str, Any] | None, layers: int, where: Path) -> tuple[int | None, list[str]]:
    """The window and each layer's type; None without a window."""
    if not sliding or not sliding.get("enabled", True):
        return None, []
    pattern, first = sliding.get("pattern") or [-1], bool(sliding.get("force_full_attention_on_first_layer", True))
    windows = [pattern[(layer - first) % len(pattern)] for layer in range(layers)]
    if first:
        windows[0] = -1
    if sliding.get("force_full_attention_on_last_layer", True):
        windows[-1] = -1
    sizes = {window for window in windows if window != -1}
    if len(sizes) > 1:
        raise ConfigError(f"{where}: sliding windows are of {sorted(sizes)} tokens; expected one size")
    return next(iter(sizes), None), ["full_attention" if window == -1 else "sliding_attention" for window in windows]


# ---- a run file

_SCHEDULES = {
    "cosine_with_warmup": "cosine",
    "linear_with_warmup": "linear",
    "inverse_sqrt_with_warmup": "inv_sqrt",
    "constant": "constant",
    "constant_with_warmup": "constant",
    "cosine_linear_envelope": "cosine_linear_envelope",
    "max_scheduler": "max",
}
_OPTIMIZERS = {"adamw": "adamw", "lionw": "lion"}
_INITS = ("mitchell", "normal", "full_megatron", "fan_in")
_PRECISIONS = {"amp_bf16": "bfloat16", "fp32": "float32"}
# settings of launching, kernels and hardware, which do not change results
_SILENT = set(
    "run_name dry_run fsdp ddp compile fused_loss speed_monitor gen1_gc_interval save_folder remote_save_folder "
    "save_overwrite sharded_checkpointer save_interval_ephemeral save_num_unsharded_checkpoints_to_keep "
    "console_log_interval activation_checkpointing distributed_strategy python_profiling torch_profiling "
    "device_eval_batch_size no_pre_train_checkpoint force_save_unsharded restore_dataloader time_limit".split()
)


def import_run(path: Path, replacements: list[tuple[str, str]]) -> tuple[str, list[str]]:
    """The YAML text of a run and notes on what was dropped; every (old, new) is replaced in data paths first."""
    given = _resolved(read_settings(path, []), path)
    if not isinstance(given.get("model"), dict) or not isinstance(given.get("optimizer"), dict):
        raise ConfigError(f'{path}: "model" and "optimizer" are needed; expected a run file of OLMo')
    notes: list[str] = []
    described = given["model"]
    init = described.get("init_fn", "normal")
    _refuse(path, ("model.init_fn", init, _INITS))
    length = described.get("max_sequence_length", 1024)
    batch = given.get("global_train_batch_size", 512)
    run: dict[str, Any] = {
        "output_dir": f"runs/{given.get('run_name') or path.stem}",
        "seed": given.get("seed", 6198),
        "model": {
            **olmo_model(described, path),
            "init": {"scheme": init, "std": float(described.get("init_std", 0.02))},
        },
        "data": _data(given, length, replacements, notes, path),
        "optimizer": _optimizer(given, batch * length, path),
        "schedule": _schedule(given.get("scheduler") or {}, float(given["optimizer"]["learning_rate"]), path),
        "train": _train(given, batch, path),
        "checkpoint": _checkpoint(given),
    }
    if given.get("load_path"):
        notes.append(f'load_path {given["load_path"]}: convert it with "olmo convert hf2olmo" and name it in init_from')
    wandb = given.get("wandb") or {}
    if wandb:
        run["wandb"] = {"enabled": True, "project": wandb.get("project") or "olmo-trainer", "name": wandb.get("name")}
    used = set(
        "seed model optimizer scheduler data tokenizer load_path wandb global_train_batch_size max_duration stop_at "
        "device_train_microbatch_size precision max_grad_norm max_grad_norm_ratio softmax_auxiliary_loss "
        "auxiliary_loss_multiplier save_interval save_interval_unsharded save_num_checkpoints_to_keep".split()
    )
    left = [name for name, value in given.items() if name not in used | _SILENT and value not in (None, False, [], {})]
    if left:
        notes.append(f"skipped settings: {', '.join(sorted(left))}")
    return yaml.safe_dump(run, sort_keys=False, allow_unicode=True), notes


def _resolved(mapping: dict[str, Any], where: Path) -> dict[str, Any]:
    """The mapping with every `${…}` filled in: references, `oc.env` and `path.choose|glob|last_checkpoint`."""

    def reference(name: str) -> Any:
        found: Any = mapping
        for key in name.split("."):
            if not isinstance(found, dict) or key not in found:
                raise ConfigError(f"{where}: ${{{name}}} refers to no setting; expected the name of one")
            found = found[key]
        return value_of(found)

    def called(text: str) -> Any:
        name, colon, rest = text.partition(":")
        arguments = [argument.strip() for argument in rest.split(",")]
        match name if colon else "":
            case "":
                return reference(text)
            case "oc.env":
                return os.environ.get(arguments[0], arguments[1] if len(arguments) > 1 else "")
            case "path.choose":
                return next((argument for argument in arguments if Path(argument).exists()), arguments[0])
            case "path.glob":
                return sorted(glob.glob(rest)) or [rest]
            case "path.last_checkpoint":
                steps = [step for step in Path(rest).glob("step*") if re.match(r"step\d+", step.name)]
                last = max(steps, key=lambda step: int(re.findall(r"\d+", step.name)[0]), default=Path(rest) / "latest")
                return str(last)
        raise ConfigError(f"{where}: ${{{text}}} is unknown; expected path.choose, path.glob, … or a setting")

    def value_of(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: value_of(item) for key, item in value.items()}
        if isinstance(value, list):
            return [value_of(item) for item in value]
        while isinstance(value, str) and (match := re.search(r"\$\{([^${}]*)\}", value)):
            filled = called(match[1])
            if match[0] == value:
                return filled
            value = value.replace(match[0], str(filled))
        return value

    resolved: dict[str, Any] = value_of(mapping)
    return resolved


def _data(
    given: dict[str, Any], length: int, replacements: list[tuple[str, str]], notes: list[str], where: Path
) -> dict[str, Any]:
    """Directories of the listed files, each once, in the order in which they are first named."""
    data, model = given.get("data") or {}, given["model"]
    paths = data.get("paths") or [path for group in (data.get("datasets") or {}).values() for path in group]
    if not paths:
        raise ConfigError(f'{where}: "data.paths" is missing; expected the token files')
    for old, new in replacements:
        paths = [path.replace(old, new) for path in paths]
    folders = [path.rpartition("/")[0] or "." for path in paths]
    repeated = sorted(path for path, count in Counter(paths).items() if count > 1)
    if repeated:
        notes.append(f"{len(repeated)} files are listed more than once, such as {repeated[0]}; each is read once here")
    if any("://" in path for path in paths):
        notes.append("data.sources are remote; expected local directories (--replace OLD=NEW)")
    if data.get("label_mask_paths"):
        notes.append("data.label_mask_paths: name each source's directory in data.sources.N.label_masks")
    shard = {
        "dtype": data.get("effective_memmap_dtype") or data.get("memmap_dtype") or "uint16",
        "eos_token_id": olmo_eos(model),
        "pad_token_id": model.get("pad_token_id"),
    }
    settings: dict[str, Any] = {
        "sources": [{"path": folder, **shard} for folder in dict.fromkeys(folders)],
        "sequence_length": length,
        "order": "legacy",  # seed + epoch, as OLMo draws it
    }
    if data.get("generate_doc_lengths"):
        settings["document_mask"] = True
    if data.get("instance_filter"):
        settings["window_filter"] = dict(data["instance_filter"])
    identifier = (given.get("tokenizer") or {}).get("identifier")
    if identifier and str(identifier).endswith(".json"):
        settings["tokenizer"] = identifier
    elif identifier:
        notes.append(f"tokenizer {identifier}: name its tokenizer.json in data.tokenizer")
    return settings


def _optimizer(given: dict[str, Any], batch_tokens: int, where: Path) -> dict[str, Any]:
    optimizer, scheduler = given["optimizer"], given.get("scheduler") or {}
    _refuse(where, ("optimizer.name", optimizer.get("name", "lionw"), _OPTIMIZERS))
    settings = {
        "kind": _OPTIMIZERS[optimizer.get("name", "lionw")],
        "learning_rate": float(optimizer["learning_rate"]),
        "betas": [float(beta) for beta in optimizer.get("betas", (0.9, 0.95))],
        "eps": float(optimizer.get("eps", 1e-5)),
        "weight_decay": float(optimizer.get("weight_decay", 0.01)),
        "decay_norms": bool(optimizer.get("decay_norm_and_bias", False)),
        "decay_embeddings": bool(optimizer.get("decay_embeddings", False)),
        "max_grad_norm": given.get("max_grad_norm"),
        "max_grad_norm_ratio": given.get("max_grad_norm_ratio"),
    }
    wide = scheduler.get("grad_clip_warmup_steps")
    if wide:
        tokens = scheduler.get("units") == "tokens"
        settings["clip_warmup_steps"] = int(float(wide) // batch_tokens) if tokens else int(wide)
        settings["clip_warmup_factor"] = float(scheduler.get("grad_clip_warmup_factor") or 1)
    return settings


def _schedule(scheduler: dict[str, Any], peak: float, where: Path) -> dict[str, Any]:
    name = scheduler.get("name", "cosine_with_warmup")
    _refuse(where, ("scheduler.name", name, _SCHEDULES))
    least = scheduler.get("warmup_min_lr")
    shape: dict[str, Any] = {
        "warmup": 0.0 if name == "constant" else float(scheduler.get("t_warmup", 100)),
        "warmup_min_lr": 0.1 * peak if least is None else float(least),  # OLMo's rule where nothing is said
    }
    if scheduler.get("t_max") is not None:
        shape["t_max"] = float(scheduler["t_max"])
    final = {"final_ratio": float(scheduler.get("alpha_f", 0.1))}
    units = {"units": scheduler.get("units", "steps")}
    if name != "max_scheduler":
        return {"kind": _SCHEDULES[name], **units, **shape, **final}
    parts = [{"kind": "cosine", **shape, **final}, {"kind": "inv_sqrt", **shape}]
    return {"kind": "max", **units, "parts": parts}


def _train(given: dict[str, Any], batch: int, where: Path) -> dict[str, Any]:
    precision = given.get("precision", "amp_bf16")
    _refuse(where, ("precision", precision, _PRECISIONS))
    settings: dict[str, Any] = {
        "batch_windows": batch,
        "micro_batch_windows": given.get("device_train_microbatch_size", 16),
        "dtype": _PRECISIONS[precision],
    }
    duration, stop = given.get("max_duration", 10000), given.get("stop_at")
    settings.update({"steps": duration} if isinstance(duration, int) else {"duration": str(duration)})
    if stop is not None:
        settings["stop_at"] = f"{stop} steps" if isinstance(stop, int) else str(stop)
    if given.get("softmax_auxiliary_loss"):
        settings["z_loss"] = float(given.get("auxiliary_loss_multiplier") or 1e-4)
    return settings


def _checkpoint(given: dict[str, Any]) -> dict[str, Any]:
    kept = given.get("save_num_checkpoints_to_keep")
    return {
        "every_steps": given.get("save_interval_unsharded") or given.get("save_interval") or 1000,
        "keep_last": kept if isinstance(kept, int) and kept > 0 else None,
    }

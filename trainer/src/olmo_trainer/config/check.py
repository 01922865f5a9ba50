"""What no single field shows: values out of range and settings that contradict each other."""

from __future__ import annotations

import math
from collections.abc import Mapping

from .errors import ConfigError, Problem
from .schema import (
    CheckpointConfig,
    DataConfig,
    EnergyConfig,
    InstanceFilterConfig,
    LoggingConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    StabilityConfig,
    TrainConfig,
    ValidationConfig,
)

__all__ = ["check", "model_problems"]

_Finding = tuple[str, object, str, str | None]
"""(key, value, what is expected, hint)."""


def _more_than_zero(values: Mapping[str, float | None]) -> list[_Finding]:
    """A finding for each value that is 0 or less."""
    return [(key, value, "more than 0", None) for key, value in values.items() if value is not None and value <= 0]


def _at_most(limit: int, values: Mapping[str, float | None]) -> list[_Finding]:
    """A finding for each value above a limit."""
    return [
        (key, value, f"{limit} or less", None) for key, value in values.items() if value is not None and value > limit
    ]


def _zero_or_more(values: Mapping[str, float | None]) -> list[_Finding]:
    """A finding for each value below 0."""
    return [(key, value, "0 or more", None) for key, value in values.items() if value is not None and value < 0]


def check(config: RunConfig, where: str) -> None:
    """Check ranges and contradictions.

    Raises: ConfigError: with every problem.
    """
    found = [
        *model_problems(config.model),
        *_data_problems(config.data),
        *_optimizer_problems(config.optimizer, config.schedule),
        *_training_problems(config.train),
        *_stability_problems(config.stability),
        *_evaluation_problems(config.validation),
        *_outputs_problems(config.checkpoint, config.logging, config.energy),
        *_contradictions(config),
    ]
    if found:
        raise ConfigError(
            *(Problem(f'{where}: "{key}" is {value}; expected {text}', hint) for key, value, text, hint in found)
        )


def _contradictions(config: RunConfig) -> list[_Finding]:
    found: list[_Finding] = []
    if not 0 <= config.seed < 2**32:
        found.append(("seed", config.seed, "0 to 4294967295", None))
    if any(sign in config.run_directory for sign in "*?"):
        found.append(("run_directory", config.run_directory, "one directory, not a pattern", None))
    if config.init_moments and config.init_from is None:
        found.append(("init_moments", "true", "false without init_from", None))
    if config.schedule.units == "steps" and config.schedule.warmup > (config.train.steps or math.inf):
        text = f"at most train.steps {config.train.steps}"
        found.append(("schedule.warmup", config.schedule.warmup, text, None))
    whole = config.data.sequence_length
    for index, phase in enumerate(config.train.length_warmup):
        if phase.sequence_length < 2 or whole % phase.sequence_length:
            key = f"train.length_warmup.{index}.sequence_length"
            found.append((key, phase.sequence_length, f"a divisor of data.sequence_length {whole}, 2 or more", None))
    return found


# ---- model

_ONLY: dict[str, tuple[str, ...]] = {
    "attention_bias": ("olmo", "olmo2", "olmo3", "olmoe", "llama"),
    "mlp_bias": ("llama",),
    "clip_qkv": ("olmo", "olmoe"),
    "sliding_window": ("olmo3", "mistral", "mixtral"),
    "layer_types": ("olmo3",),
    "num_experts": ("olmoe", "mixtral"),
    "num_experts_per_tok": ("olmoe", "mixtral"),
    "norm_topk_prob": ("olmoe",),
    "router_aux_loss_coef": ("olmoe", "mixtral"),
    "router_z_loss_coef": ("olmoe", "mixtral"),
}
"""Options that only the transformers classes of these families have."""


_LIMITS = {
    10_000: "num_hidden_layers",
    2**16: "num_attention_heads num_key_value_heads num_experts num_experts_per_tok",
    2**20: "hidden_size head_dim vocab_multiple",
    2**24: "intermediate_size",
    2**28: "embedding_size",
}
"""Far larger than any model, yet small enough to compute with."""


def model_problems(model: ModelConfig) -> list[_Finding]:
    """What is wrong with the group `model` by itself."""
    names = (
        "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim rope_theta "
        "norm_eps clip_qkv sliding_window num_experts num_experts_per_tok vocab_multiple embedding_size"
    )
    found = _more_than_zero({f"model.{name}": getattr(model, name) for name in names.split()})
    for limit, several in _LIMITS.items():
        found += _at_most(limit, {f"model.{name}": getattr(model, name) for name in several.split()})
    found += _more_than_zero({"model.init.std": model.init.std})
    found += _zero_or_more({f"model.{name}": getattr(model, name) for name in _ONLY if name.endswith("_coef")})
    for name, families in _ONLY.items():
        value = getattr(model, name)
        if value not in (None, False) and model.family not in families:
            text = f"null: transformers has it only in {', '.join(families)}"
            found.append((f"model.{name}", value, text, f'use family "{families[0]}"'))
    return found + _heads(model) + _layers(model) + _scaling(model)


def _heads(model: ModelConfig) -> list[_Finding]:
    found: list[_Finding] = []
    width, heads = model.hidden_size, model.num_attention_heads
    groups = model.num_key_value_heads
    if model.head_dim is None and width > 0 and heads > 0 and (width % heads or (width // heads) % 2):
        text = f"a number of heads that share hidden_size {width} in even widths"
        found.append(("model.num_attention_heads", heads, text, None))
    if model.head_dim is not None and model.head_dim % 2:
        found.append(("model.head_dim", model.head_dim, "an even number", None))
    if model.head_dim is not None and model.family == "olmoe" and model.head_dim * heads != width:
        text = "hidden_size / num_attention_heads, which OlmoeForCausalLM fixes"
        found.append(("model.head_dim", model.head_dim, text, None))
    if groups is not None and groups > 0 and heads % groups:
        found.append(("model.num_key_value_heads", groups, f"a divisor of num_attention_heads {heads}", None))
    if model.tie_word_embeddings and model.init.scheme in ("llama", "llama_depth", "fan_in"):
        text = "another, since the embedding's standard deviation of one would be the output matrix's too"
        found.append(("model.init.scheme", model.init.scheme, text, "do not tie them"))
    if model.family == "olmo" and model.norm_eps not in (None, 1e-5):
        found.append(("model.norm_eps", model.norm_eps, "1e-05, which OlmoForCausalLM fixes", None))
    return found


def _layers(model: ModelConfig) -> list[_Finding]:
    found: list[_Finding] = []
    if model.layer_types is not None and len(model.layer_types) != model.num_hidden_layers:
        text = f"one for each of {model.num_hidden_layers} layers"
        found.append(("model.layer_types", f"of {len(model.layer_types)} items", text, None))
    experts, chosen = model.num_experts, model.num_experts_per_tok
    if experts is not None and chosen is not None and chosen > experts:
        found.append(("model.num_experts_per_tok", chosen, f"at most num_experts {experts}", None))
    return found


def _scaling(model: ModelConfig) -> list[_Finding]:
    scaling = model.rope_scaling
    if scaling is None:
        return []
    values = {name: getattr(scaling, name) for name in ("original_max_position_embeddings", "attention_factor")}
    found = _more_than_zero({f"model.rope_scaling.{name}": value for name, value in values.items()})
    if scaling.factor < 1:
        found.append(("model.rope_scaling.factor", scaling.factor, "1 or more", None))
    if scaling.rope_type != "linear" and scaling.original_max_position_embeddings is None:
        name = "model.rope_scaling.original_max_position_embeddings"
        found.append((name, "null", "the length that the model was trained at before", None))
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        name = "model.rope_scaling.high_freq_factor"
        found.append((name, scaling.high_freq_factor, f"more than low_freq_factor {scaling.low_freq_factor}", None))
    return found


# ---- data


def _data_problems(data: DataConfig) -> list[_Finding]:
    """What is wrong with the group `data` by itself."""
    found: list[_Finding] = []
    if data.sequence_length < 2:
        found.append(("data.sequence_length", data.sequence_length, "2 or more", None))
    found += _at_most(2**31, {"data.sequence_length": data.sequence_length})
    found += _at_most(1024, {"data.loader.threads": data.loader.threads, "data.loader.ahead": data.loader.ahead})
    if not data.sources:
        found.append(("data.sources", "empty", "at least one directory of token shards", None))
    ratios = [source.ratio for source in data.sources]
    if any(ratio is None for ratio in ratios) and any(ratio is not None for ratio in ratios):
        found.append(("data.sources", "given a ratio in part", "a ratio for every source, or for none", None))
    if data.order == "legacy" and any(ratio is not None for ratio in ratios):
        found.append(("data.order", '"legacy" with ratios', "no ratios, which OLMo does not have", None))
    for index, source in enumerate(data.sources):
        key = f"data.sources.{index}"
        if source.ratio is not None and source.ratio <= 0:
            found.append((f"{key}.ratio", source.ratio, "more than 0", "remove the source instead"))
        limits = {f"{key}.max_tokens": source.max_tokens, f"{key}.max_repetition": source.max_repetition}
        found += _more_than_zero(limits)
        if source.max_tokens is not None and 0 < source.max_tokens < data.sequence_length:
            text = f"data.sequence_length {data.sequence_length} or more, a window"
            found.append((f"{key}.max_tokens", source.max_tokens, text, None))
    found += _zero_or_more({"data.loader.threads": data.loader.threads})
    found += _more_than_zero({"data.loader.ahead": data.loader.ahead})
    return found + _filter_problems(data.instance_filter)


def _filter_problems(chosen: InstanceFilterConfig | None) -> list[_Finding]:
    if chosen is None:
        return []
    key = "data.instance_filter"
    found: list[_Finding] = []
    if chosen.repetition_min_period < 1:
        found.append((f"{key}.repetition_min_period", chosen.repetition_min_period, "1 or more", None))
    if chosen.repetition_max_period < chosen.repetition_min_period:
        text = f"{chosen.repetition_min_period}, repetition_min_period, or more"
        found.append((f"{key}.repetition_max_period", chosen.repetition_max_period, text, None))
    if chosen.repetition_max_count < 3:
        found.append((f"{key}.repetition_max_count", chosen.repetition_max_count, "3 or more", None))
    return found


# ---- optimizer and schedule


def _optimizer_problems(optimizer: OptimizerConfig, schedule: ScheduleConfig) -> list[_Finding]:
    """What is wrong with the groups `optimizer` and `schedule` by themselves."""
    found = _more_than_zero(
        {
            "optimizer.learning_rate": optimizer.learning_rate,
            "optimizer.eps": optimizer.eps,
            "optimizer.max_grad_norm": optimizer.max_grad_norm,
            "optimizer.max_grad_norm_ratio": optimizer.max_grad_norm_ratio,
            "optimizer.clip_warmup_factor": optimizer.clip_warmup_factor,
            **{f"optimizer.groups.{i}.learning_rate": group.learning_rate for i, group in enumerate(optimizer.groups)},
        }
    ) + _zero_or_more(
        {
            "optimizer.weight_decay": optimizer.weight_decay,
            "optimizer.clip_warmup_steps": optimizer.clip_warmup_steps,
            **{f"optimizer.groups.{i}.weight_decay": group.weight_decay for i, group in enumerate(optimizer.groups)},
        }
    )
    if len(optimizer.betas) != 2 or any(not 0 <= beta < 1 for beta in optimizer.betas):
        found.append(("optimizer.betas", list(optimizer.betas), "two numbers from 0 to below 1", None))
    if not 0 <= optimizer.momentum < 1:
        found.append(("optimizer.momentum", optimizer.momentum, "0 to below 1", None))
    if optimizer.max_grad_norm is not None and optimizer.max_grad_norm_ratio is not None:
        text = "null with optimizer.max_grad_norm_ratio"
        found.append(("optimizer.max_grad_norm", optimizer.max_grad_norm, text, "set optimizer.max_grad_norm=null"))
    return found + _schedule_problems("schedule", schedule)


def _schedule_problems(key: str, schedule: ScheduleConfig) -> list[_Finding]:
    zero = ("warmup", "warmup_min_lr", "final_ratio", "decay", "warmup_from")
    found = _zero_or_more({f"{key}.{name}": getattr(schedule, name) for name in zero})
    positive: dict[str, float | None] = {f"{key}.t_max": schedule.t_max, f"{key}.length": schedule.length}
    if schedule.kind == "power":
        positive[f"{key}.scale"] = schedule.scale
    found += _more_than_zero(positive)
    made, count = schedule.kind in ("max", "sequential", "bolt_on"), len(schedule.parts)
    if made != bool(count) or (schedule.kind == "bolt_on" and count != 1):
        text = {"max": "one schedule or more", "sequential": "one schedule or more", "bolt_on": "one schedule"}
        found.append(
            (f"{key}.parts", f"a list of {count}", text.get(schedule.kind, f'none for "{schedule.kind}"'), None)
        )
    if schedule.kind == "sequential" and any(part.length is None for part in schedule.parts[:-1]):
        found.append((f"{key}.parts", "without a length in part", "length for every part but the last", None))
    if list(schedule.periods) != sorted(set(schedule.periods)) or any(end <= 0 for end in schedule.periods):
        found.append((f"{key}.periods", list(schedule.periods), "rising numbers above 0", None))
    for index, part in enumerate(schedule.parts):
        found += _schedule_problems(f"{key}.parts.{index}", part)
    return found


# ---- train


def _training_problems(train: TrainConfig) -> list[_Finding]:
    """What is wrong with the group `train` by itself."""
    found = _more_than_zero(
        {
            "train.steps": train.steps,
            "train.batch_windows": train.batch_windows,
            "train.micro_batch_windows": train.micro_batch_windows,
            "train.num_threads": train.num_threads,
            "train.parallel.shard_ranks": train.parallel.shard_ranks,
            "train.parallel.tensor_ranks": train.parallel.tensor_ranks,
            "train.recompute_every": train.recompute_every,
            "train.max_skipped_steps": train.max_skipped_steps,
        }
    ) + _zero_or_more({"train.z_loss": train.z_loss})
    found += _at_most(2**31, {"train.batch_windows": train.batch_windows})
    found += _at_most(4096, {"train.num_threads": train.num_threads})
    if (train.steps is None) == (train.duration is None):
        got = "missing" if train.steps is None else "set as well as train.duration"
        found.append(("train.steps", got, "one of train.steps and train.duration", None))
    if (train.parallel.kind == "hsdp") != (train.parallel.shard_ranks is not None):
        text = 'a number of ranks with train.parallel.kind "hsdp", null with another'
        found.append(("train.parallel.shard_ranks", train.parallel.shard_ranks, text, None))
    for name, phases in (("batch_warmup", train.batch_warmup), ("length_warmup", train.length_warmup)):
        ends = [phase.until_tokens for phase in phases]
        if ends != sorted(set(ends)) or any(end <= 0 for end in ends):
            found.append((f"train.{name}", f"until {ends}", "rising numbers of tokens", None))
    sizes = {f"train.batch_warmup.{index}.batch_windows": p.batch_windows for index, p in enumerate(train.batch_warmup)}
    return found + _more_than_zero(sizes)


# ---- stability


def _stability_problems(stability: StabilityConfig) -> list[_Finding]:
    """What is wrong with the group `stability` by itself."""
    found = _more_than_zero(
        {
            "stability.outlier_sigma": stability.outlier_sigma,
            "stability.rewind_after": stability.rewind_after,
            "stability.slow_rise_steps": stability.slow_rise_steps,
        }
    ) + _zero_or_more(
        {"stability.slow_rise_nats": stability.slow_rise_nats, "stability.max_rewinds": stability.max_rewinds}
    )
    if stability.outlier_window < 4:
        found.append(("stability.outlier_window", stability.outlier_window, "4 or more", None))
    return found


# ---- validation


def _evaluation_problems(validation: ValidationConfig) -> list[_Finding]:
    """What is wrong with the group `validation` by itself."""
    return _more_than_zero(
        {
            "validation.every_steps": validation.every_steps,
            "validation.documents_per_domain": validation.documents_per_domain,
            "validation.items_per_task": validation.items_per_task,
            "validation.batch_tokens": validation.batch_tokens,
        }
    )


# ---- checkpoint, logging, wandb, energy


def _outputs_problems(checkpoint: CheckpointConfig, logging: LoggingConfig, energy: EnergyConfig) -> list[_Finding]:
    """What is wrong with the groups `checkpoint`, `logging` and `energy` by themselves."""
    found = _more_than_zero(
        {
            "checkpoint.every_steps": checkpoint.every_steps,
            "checkpoint.keep_last": checkpoint.keep_last,
            "checkpoint.pin_every_steps": checkpoint.pin_every_steps,
            "logging.metrics_every_steps": logging.metrics_every_steps,
            "logging.statistics_every_steps": logging.statistics_every_steps,
            "logging.console_every_s": logging.console_every_s,
            "energy.declared_watts": energy.declared_watts,
        }
    )
    found += _zero_or_more({"energy.grid_kg_per_kwh": energy.grid_kg_per_kwh or 0.0})
    if energy.pue < 1:
        found.append(("energy.pue", energy.pue, "1.0 or more", None))
    return found

"""What no single field shows: values out of range and settings that contradict each other."""

from __future__ import annotations

import math
from operator import attrgetter

from ..formats.contract import ConfigError, Problem
from .schema import DataConfig, ModelConfig, OptimizerConfig, RunConfig, ScheduleConfig, TrainConfig

__all__ = ["check", "model_problems"]


class _Findings(list[tuple[str, object, str, str | None]]):
    """(key, value, what is expected, hint) of each wrong setting."""

    def add(self, key: str, value: object, expected: str, hint: str | None = None) -> None:
        """Add one."""
        self.append((key, value, expected, hint))

    def _limit(self, key: str, group: object, names: str, expected: str, low: float, high: float = math.inf) -> None:
        for name in names.split():
            value = attrgetter(name)(group)
            if value is not None and not low <= value <= high:
                self.add(f"{key}.{name}", value, expected)

    def above_zero(self, key: str, group: object, names: str) -> None:
        """Check that the named fields are above 0 or null."""
        self._limit(key, group, names, "more than 0", math.ulp(0.0))

    def not_negative(self, key: str, group: object, names: str) -> None:
        """Check that the named fields are 0 or more, or null."""
        self._limit(key, group, names, "0 or more", 0)

    def at_most(self, limit: int, key: str, group: object, names: str) -> None:
        """Check that the named fields are no larger than a limit, or null."""
        self._limit(key, group, names, f"{limit} or less", -math.inf, limit)


def check(config: RunConfig, where: str) -> None:
    """Check ranges and contradictions.

    Raises: ConfigError: with every problem.
    """
    found = _Findings(model_problems(config.model))
    _check_data(config.data, found)
    _check_optimizer(config.optimizer, found)
    _check_schedule("schedule", config.schedule, found)
    _check_train(config.train, found)
    _check_others(config, found)
    _check_contradictions(config, found)
    if found:
        raise ConfigError(
            *(Problem(f'{where}: "{key}" is {value}; expected {text}', hint) for key, value, text, hint in found)
        )


def _check_contradictions(config: RunConfig, found: _Findings) -> None:
    if not 0 <= config.seed < 2**32:
        found.add("seed", config.seed, "0 to 4294967295")
    if any(sign in config.run_directory for sign in "*?"):
        found.add("run_directory", config.run_directory, "one directory, not a pattern")
    if config.init_moments and config.init_from is None:
        found.add("init_moments", "true", "false without init_from")
    if config.schedule.units == "steps" and config.schedule.warmup > (config.train.steps or math.inf):
        found.add("schedule.warmup", config.schedule.warmup, f"at most train.steps {config.train.steps}")
    whole = config.data.sequence_length
    for index, phase in enumerate(config.train.length_warmup):
        if phase.sequence_length < 2 or whole % phase.sequence_length:
            key = f"train.length_warmup.{index}.sequence_length"
            found.add(key, phase.sequence_length, f"a divisor of data.sequence_length {whole}, 2 or more")


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


def model_problems(model: ModelConfig) -> list[tuple[str, object, str, str | None]]:
    """(key, value, what is expected, hint) of each problem of the group `model`."""
    found = _Findings()
    found.above_zero(
        "model",
        model,
        "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim rope_theta "
        "norm_eps clip_qkv sliding_window num_experts num_experts_per_tok vocab_multiple embedding_size init.std",
    )
    for limit, names in _LIMITS.items():
        found.at_most(limit, "model", model, names)
    found.not_negative("model", model, "router_aux_loss_coef router_z_loss_coef")
    for name, families in _ONLY.items():
        value = getattr(model, name)
        if value not in (None, False) and model.family not in families:
            text = f"null: transformers has it only in {', '.join(families)}"
            found.add(f"model.{name}", value, text, f'use family "{families[0]}"')
    _check_heads(model, found)
    if model.layer_types is not None and len(model.layer_types) != model.num_hidden_layers:
        got, text = f"of {len(model.layer_types)} items", f"one for each of {model.num_hidden_layers} layers"
        found.add("model.layer_types", got, text)
    experts, chosen = model.num_experts, model.num_experts_per_tok
    if experts is not None and chosen is not None and chosen > experts:
        found.add("model.num_experts_per_tok", chosen, f"at most num_experts {experts}")
    if (scaling := model.rope_scaling) is not None:
        key = "model.rope_scaling"
        found.above_zero(key, scaling, "original_max_position_embeddings attention_factor")
        if scaling.factor < 1:
            found.add(f"{key}.factor", scaling.factor, "1 or more")
        if scaling.rope_type != "linear" and scaling.original_max_position_embeddings is None:
            text = "the length that the model was trained at before"
            found.add(f"{key}.original_max_position_embeddings", "null", text)
        if scaling.high_freq_factor <= scaling.low_freq_factor:
            text = f"more than low_freq_factor {scaling.low_freq_factor}"
            found.add(f"{key}.high_freq_factor", scaling.high_freq_factor, text)
    return found


def _check_heads(model: ModelConfig, found: _Findings) -> None:
    width, heads, groups = model.hidden_size, model.num_attention_heads, model.num_key_value_heads
    if model.head_dim is None and width > 0 and heads > 0 and (width % heads or (width // heads) % 2):
        text = f"a number of heads that share hidden_size {width} in even widths"
        found.add("model.num_attention_heads", heads, text)
    if model.head_dim is not None and model.head_dim % 2:
        found.add("model.head_dim", model.head_dim, "an even number")
    if model.head_dim is not None and model.family == "olmoe" and model.head_dim * heads != width:
        text = "hidden_size / num_attention_heads, which OlmoeForCausalLM fixes"
        found.add("model.head_dim", model.head_dim, text)
    if groups is not None and groups > 0 and heads % groups:
        found.add("model.num_key_value_heads", groups, f"a divisor of num_attention_heads {heads}")
    if model.tie_word_embeddings and model.init.scheme in ("llama", "llama_depth", "fan_in"):
        text = "another, since the embedding's standard deviation of one would be the output matrix's too"
        found.add("model.init.scheme", model.init.scheme, text, "do not tie them")
    if model.family == "olmo" and model.norm_eps not in (None, 1e-5):
        found.add("model.norm_eps", model.norm_eps, "1e-05, which OlmoForCausalLM fixes")


# ---- data


def _check_data(data: DataConfig, found: _Findings) -> None:
    if data.sequence_length < 2:
        found.add("data.sequence_length", data.sequence_length, "2 or more")
    found.at_most(2**31, "data", data, "sequence_length")
    found.at_most(1024, "data.loader", data.loader, "threads ahead")
    found.not_negative("data.loader", data.loader, "threads")
    found.above_zero("data.loader", data.loader, "ahead")
    if not data.sources:
        found.add("data.sources", "empty", "at least one directory of token shards")
    ratios = [source.ratio for source in data.sources]
    if any(ratio is None for ratio in ratios) and any(ratio is not None for ratio in ratios):
        found.add("data.sources", "given a ratio in part", "a ratio for every source, or for none")
    if data.order == "legacy" and any(ratio is not None for ratio in ratios):
        found.add("data.order", '"legacy" with ratios', "no ratios, which OLMo does not have")
    for index, source in enumerate(data.sources):
        key = f"data.sources.{index}"
        if source.ratio is not None and source.ratio <= 0:
            found.add(f"{key}.ratio", source.ratio, "more than 0", "remove the source instead")
        found.above_zero(key, source, "max_tokens max_repetition")
        if source.max_tokens is not None and 0 < source.max_tokens < data.sequence_length:
            text = f"data.sequence_length {data.sequence_length} or more, a window"
            found.add(f"{key}.max_tokens", source.max_tokens, text)
    if (chosen := data.instance_filter) is not None:
        key, low, high = "data.instance_filter", chosen.repetition_min_period, chosen.repetition_max_period
        if low < 1:
            found.add(f"{key}.repetition_min_period", low, "1 or more")
        if high < low:
            found.add(f"{key}.repetition_max_period", high, f"{low}, repetition_min_period, or more")
        if chosen.repetition_max_count < 3:
            found.add(f"{key}.repetition_max_count", chosen.repetition_max_count, "3 or more")


# ---- optimizer and schedule


def _check_optimizer(optimizer: OptimizerConfig, found: _Findings) -> None:
    names = "learning_rate eps max_grad_norm max_grad_norm_ratio clip_warmup_factor"
    found.above_zero("optimizer", optimizer, names)
    found.not_negative("optimizer", optimizer, "weight_decay clip_warmup_steps")
    for index, group in enumerate(optimizer.groups):
        found.above_zero(f"optimizer.groups.{index}", group, "learning_rate")
        found.not_negative(f"optimizer.groups.{index}", group, "weight_decay")
    if len(optimizer.betas) != 2 or any(not 0 <= beta < 1 for beta in optimizer.betas):
        found.add("optimizer.betas", list(optimizer.betas), "two numbers from 0 to below 1")
    if not 0 <= optimizer.momentum < 1:
        found.add("optimizer.momentum", optimizer.momentum, "0 to below 1")
    if optimizer.max_grad_norm is not None and optimizer.max_grad_norm_ratio is not None:
        text, hint = "null with optimizer.max_grad_norm_ratio", "set optimizer.max_grad_norm=null"
        found.add("optimizer.max_grad_norm", optimizer.max_grad_norm, text, hint)


def _check_schedule(key: str, schedule: ScheduleConfig, found: _Findings) -> None:
    found.not_negative(key, schedule, "warmup warmup_min_lr final_ratio decay warmup_from")
    found.above_zero(key, schedule, "t_max length" + (" scale" if schedule.kind == "power" else ""))
    made, count = schedule.kind in ("max", "sequential", "bolt_on"), len(schedule.parts)
    if made != bool(count) or (schedule.kind == "bolt_on" and count != 1):
        texts = {"max": "one schedule or more", "sequential": "one schedule or more", "bolt_on": "one schedule"}
        found.add(f"{key}.parts", f"a list of {count}", texts.get(schedule.kind, f'none for "{schedule.kind}"'))
    if schedule.kind == "sequential" and any(part.length is None for part in schedule.parts[:-1]):
        found.add(f"{key}.parts", "without a length in part", "length for every part but the last")
    if list(schedule.periods) != sorted(set(schedule.periods)) or any(end <= 0 for end in schedule.periods):
        found.add(f"{key}.periods", list(schedule.periods), "rising numbers above 0")
    for index, part in enumerate(schedule.parts):
        _check_schedule(f"{key}.parts.{index}", part, found)


# ---- train, stability, and what is measured and written


def _check_train(train: TrainConfig, found: _Findings) -> None:
    found.above_zero(
        "train",
        train,
        "steps batch_windows micro_batch_windows num_threads parallel.shard_ranks parallel.tensor_ranks "
        "recompute_every max_skipped_steps",
    )
    found.not_negative("train", train, "z_loss")
    found.at_most(2**31, "train", train, "batch_windows")
    found.at_most(4096, "train", train, "num_threads")
    if (train.steps is None) == (train.duration is None):
        got = "missing" if train.steps is None else "set as well as train.duration"
        found.add("train.steps", got, "one of train.steps and train.duration")
    if (train.parallel.kind == "hsdp") != (train.parallel.shard_ranks is not None):
        text = 'a number of ranks with train.parallel.kind "hsdp", null with another'
        found.add("train.parallel.shard_ranks", train.parallel.shard_ranks, text)
    for name, phases in (("batch_warmup", train.batch_warmup), ("length_warmup", train.length_warmup)):
        ends = [phase.until_tokens for phase in phases]
        if ends != sorted(set(ends)) or any(end <= 0 for end in ends):
            found.add(f"train.{name}", f"until {ends}", "rising numbers of tokens")
    for index, phase in enumerate(train.batch_warmup):
        found.above_zero(f"train.batch_warmup.{index}", phase, "batch_windows")


def _check_others(config: RunConfig, found: _Findings) -> None:
    found.above_zero("stability", config.stability, "outlier_sigma rewind_after slow_rise_steps")
    found.not_negative("stability", config.stability, "slow_rise_nats max_rewinds")
    if config.stability.outlier_window < 4:
        found.add("stability.outlier_window", config.stability.outlier_window, "4 or more")
    names = "every_steps documents_per_domain items_per_task batch_tokens"
    found.above_zero("validation", config.validation, names)
    found.above_zero("checkpoint", config.checkpoint, "every_steps keep_last pin_every_steps")
    names = "metrics_every_steps statistics_every_steps console_every_s"
    found.above_zero("logging", config.logging, names)
    found.above_zero("energy", config.energy, "declared_watts")
    found.not_negative("energy", config.energy, "grid_kg_per_kwh")
    if config.energy.pue < 1:
        found.add("energy.pue", config.energy.pue, "1.0 or more")

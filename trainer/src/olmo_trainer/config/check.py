"""What no single field shows: values out of range and settings that contradict each other."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from ..formats.contract import Problem
from .schema import DataConfig, ModelConfig, RunConfig, ScheduleConfig

__all__ = ["config_problems", "model_problems"]


def _problem(key: str, value: object, expected: str, hint: str | None = None) -> Problem:
    return Problem(f'"{key}" is {value}; expected {expected}', hint)


# ---- ranges

_Range = tuple[str, Callable[[Any], bool], str]
"""What is expected, the test of it, and the names of settings; `*` is every item of a list. Null is always allowed."""


def _above_zero(names: str) -> _Range:
    return "more than 0", lambda value: value > 0, names


def _not_negative(names: str) -> _Range:
    return "0 or more", lambda value: value >= 0, names


def _at_least(limit: float, names: str) -> _Range:
    return f"{limit} or more", lambda value: value >= limit, names


def _at_most(limit: int, names: str) -> _Range:
    return f"{limit} or less", lambda value: value <= limit, names


_MODEL = (
    _above_zero(
        "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim rope_theta "
        "norm_eps clip_qkv sliding_window num_experts num_experts_per_tok vocab_multiple embedding_size init.std "
        "rope_scaling.original_max_position_embeddings rope_scaling.attention_factor"
    ),
    _not_negative("router_aux_loss_coef router_z_loss_coef"),
    _at_least(1, "rope_scaling.factor"),
    # far larger than any model, yet small enough to compute with
    _at_most(10_000, "num_hidden_layers"),
    _at_most(2**16, "num_attention_heads num_key_value_heads num_experts num_experts_per_tok"),
    _at_most(2**20, "hidden_size head_dim vocab_multiple"),
    _at_most(2**24, "intermediate_size"),
    _at_most(2**28, "embedding_size"),
)
_SCHEDULE = (
    _above_zero("t_max length"),
    _not_negative("warmup warmup_min_lr final_ratio decay warmup_from"),
)
_RUN = (
    ("0 to 4294967295", lambda value: 0 <= value < 2**32, "seed"),
    ("one directory, not a pattern", lambda value: "*" not in value and "?" not in value, "output_dir"),
    _above_zero(
        "data.loader.ahead data.sources.*.max_tokens data.sources.*.max_repetition "
        "optimizer.learning_rate optimizer.eps optimizer.max_grad_norm optimizer.max_grad_norm_ratio "
        "optimizer.clip_warmup_factor optimizer.groups.*.learning_rate "
        "train.steps train.batch_windows train.micro_batch_windows train.num_threads train.max_skipped_steps "
        "train.activation_checkpointing_every train.parallel.shard_ranks train.parallel.tensor_ranks "
        "train.batch_warmup.*.batch_windows "
        "stability.outlier_sigma stability.rewind_after stability.slow_rise_steps "
        "validation.every_steps validation.documents_per_domain validation.items_per_task validation.batch_tokens "
        "checkpoint.every_steps checkpoint.keep_last checkpoint.pin_every_steps "
        "logging.metrics_every_steps logging.statistics_every_steps logging.console_every_s energy.declared_watts"
    ),
    _not_negative(
        "data.loader.threads optimizer.weight_decay optimizer.clip_warmup_steps optimizer.groups.*.weight_decay "
        "train.z_loss stability.slow_rise_nats stability.max_rewinds energy.grid_kg_per_kwh"
    ),
    ("0 to below 1", lambda value: 0 <= value < 1, "optimizer.momentum"),
    _at_least(1, "data.window_filter.repetition_min_period"),
    _at_least(1.0, "energy.pue"),
    _at_least(2, "data.sequence_length"),
    _at_least(3, "data.window_filter.repetition_max_count"),
    _at_least(4, "stability.outlier_window"),
    _at_most(1024, "data.loader.threads data.loader.ahead"),
    _at_most(4096, "train.num_threads"),
    _at_most(2**31, "data.sequence_length train.batch_windows"),
)


def _out_of_range(group: object, prefix: str, ranges: tuple[_Range, ...]) -> list[Problem]:
    return [
        _problem(key, value, expected)
        for expected, fits, names in ranges
        for name in names.split()
        for key, value in _values(group, name, prefix)
        if value is not None and not fits(value)
    ]


def _values(group: Any, name: str, prefix: str) -> Iterator[tuple[str, Any]]:
    """The key and value of each setting that a name means; none in a group that is null."""
    first, _, rest = name.partition(".")
    if first == "*":
        for index, item in enumerate(group):
            yield from _values(item, rest, f"{prefix}{index}.")
    elif rest and group is not None:
        yield from _values(getattr(group, first), rest, f"{prefix}{first}.")
    elif group is not None:
        yield f"{prefix}{first}", getattr(group, first)


# ---- the whole


def config_problems(config: RunConfig) -> list[Problem]:
    """Every problem of a config, in messages that begin with the key."""
    found = [*model_problems(config.model), *_out_of_range(config, "", _RUN), *_data_problems(config.data)]
    found += _schedule_problems("schedule", config.schedule)
    optimizer, train, whole = config.optimizer, config.train, config.data.sequence_length
    if config.init_moments and config.init_from is None:
        found.append(_problem("init_moments", "true", "false without init_from"))
    if config.schedule.units == "steps" and config.schedule.warmup > (train.steps or math.inf):
        found.append(_problem("schedule.warmup", config.schedule.warmup, f"at most train.steps {train.steps}"))
    if len(optimizer.betas) != 2 or any(not 0 <= beta < 1 for beta in optimizer.betas):
        found.append(_problem("optimizer.betas", list(optimizer.betas), "two numbers from 0 to below 1"))
    if optimizer.max_grad_norm is not None and optimizer.max_grad_norm_ratio is not None:
        text, hint = "null with optimizer.max_grad_norm_ratio", "set optimizer.max_grad_norm=null"
        found.append(_problem("optimizer.max_grad_norm", optimizer.max_grad_norm, text, hint))
    if (train.steps is None) == (train.duration is None):
        got = "missing" if train.steps is None else "set as well as train.duration"
        found.append(_problem("train.steps", got, "one of train.steps and train.duration"))
    if (train.parallel.kind == "hsdp") != (train.parallel.shard_ranks is not None):
        text = 'a number of ranks with train.parallel.kind "hsdp", null with another'
        found.append(_problem("train.parallel.shard_ranks", train.parallel.shard_ranks, text))
    for name, phases in (("batch_warmup", train.batch_warmup), ("length_warmup", train.length_warmup)):
        ends = [phase.until_tokens for phase in phases]
        if ends != sorted(set(ends)) or any(end <= 0 for end in ends):
            found.append(_problem(f"train.{name}", f"until {ends}", "rising numbers of tokens"))
    for index, phase in enumerate(train.length_warmup):
        if phase.sequence_length < 2 or whole % phase.sequence_length:
            key, text = f"train.length_warmup.{index}.sequence_length", f"a divisor of data.sequence_length {whole}"
            found.append(_problem(key, phase.sequence_length, f"{text}, 2 or more"))
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


def model_problems(model: ModelConfig) -> list[Problem]:
    """Every problem of the group `model`."""
    found = _out_of_range(model, "model.", _MODEL)

    def add(name: str, value: object, expected: str, hint: str | None = None) -> None:
        found.append(_problem(f"model.{name}", value, expected, hint))

    for name, families in _ONLY.items():
        value = getattr(model, name)
        if value not in (None, False) and model.family not in families:
            text = f"null: transformers has it only in {', '.join(families)}"
            add(name, value, text, f'use family "{families[0]}"')
    width, heads, groups = model.hidden_size, model.num_attention_heads, model.num_key_value_heads
    if model.head_dim is None and width > 0 and heads > 0 and (width % heads or (width // heads) % 2):
        add("num_attention_heads", heads, f"a number of heads that share hidden_size {width} in even widths")
    if model.head_dim is not None and model.head_dim % 2:
        add("head_dim", model.head_dim, "an even number")
    if model.head_dim is not None and model.family == "olmoe" and model.head_dim * heads != width:
        add("head_dim", model.head_dim, "hidden_size / num_attention_heads, which OlmoeForCausalLM fixes")
    if groups is not None and groups > 0 and heads % groups:
        add("num_key_value_heads", groups, f"a divisor of num_attention_heads {heads}")
    if model.tie_word_embeddings and model.init.scheme in ("llama", "llama_depth", "fan_in"):
        text = "another, since the embedding's standard deviation of one would be the output matrix's too"
        add("init.scheme", model.init.scheme, text, "do not tie them")
    if model.family == "olmo" and model.norm_eps not in (None, 1e-5):
        add("norm_eps", model.norm_eps, "1e-05, which OlmoForCausalLM fixes")
    if model.layer_types is not None and len(model.layer_types) != model.num_hidden_layers:
        got = f"of {len(model.layer_types)} items"
        add("layer_types", got, f"one for each of {model.num_hidden_layers} layers")
    experts, chosen = model.num_experts, model.num_experts_per_tok
    if experts is not None and chosen is not None and chosen > experts:
        add("num_experts_per_tok", chosen, f"at most num_experts {experts}")
    if (scaling := model.rope_scaling) is not None:
        if scaling.rope_type != "linear" and scaling.original_max_position_embeddings is None:
            text = "the length that the model was trained at before"
            add("rope_scaling.original_max_position_embeddings", "null", text)
        if scaling.high_freq_factor <= scaling.low_freq_factor:
            text = f"more than low_freq_factor {scaling.low_freq_factor}"
            add("rope_scaling.high_freq_factor", scaling.high_freq_factor, text)
    return found


# ---- data and schedule


def _data_problems(data: DataConfig) -> list[Problem]:
    found = []
    if not data.sources:
        found.append(_problem("data.sources", "empty", "at least one directory of token shards"))
    ratios = [source.ratio for source in data.sources]
    if any(ratio is None for ratio in ratios) and any(ratio is not None for ratio in ratios):
        found.append(_problem("data.sources", "given a ratio in part", "a ratio for every source, or for none"))
    if data.order == "legacy" and any(ratio is not None for ratio in ratios):
        found.append(_problem("data.order", '"legacy" with ratios', "no ratios, which OLMo does not have"))
    for index, source in enumerate(data.sources):
        key = f"data.sources.{index}"
        if source.ratio is not None and source.ratio <= 0:
            found.append(_problem(f"{key}.ratio", source.ratio, "more than 0", "remove the source instead"))
        if source.max_tokens is not None and 0 < source.max_tokens < data.sequence_length:
            text = f"data.sequence_length {data.sequence_length} or more, a window"
            found.append(_problem(f"{key}.max_tokens", source.max_tokens, text))
    if (chosen := data.window_filter) is not None:
        low, high = chosen.repetition_min_period, chosen.repetition_max_period
        if high < low:
            text = f"{low}, repetition_min_period, or more"
            found.append(_problem("data.window_filter.repetition_max_period", high, text))
    return found


def _schedule_problems(key: str, schedule: ScheduleConfig) -> list[Problem]:
    ranges = (*_SCHEDULE, _above_zero("scale")) if schedule.kind == "power" else _SCHEDULE
    found = _out_of_range(schedule, f"{key}.", ranges)
    made, count = schedule.kind in ("max", "sequential", "bolt_on"), len(schedule.parts)
    if made != bool(count) or (schedule.kind == "bolt_on" and count != 1):
        texts = {"max": "one schedule or more", "sequential": "one schedule or more", "bolt_on": "one schedule"}
        text = texts.get(schedule.kind, f'none for "{schedule.kind}"')
        found.append(_problem(f"{key}.parts", f"a list of {count}", text))
    if schedule.kind == "sequential" and any(part.length is None for part in schedule.parts[:-1]):
        found.append(_problem(f"{key}.parts", "without a length in part", "length for every part but the last"))
    if list(schedule.periods) != sorted(set(schedule.periods)) or any(end <= 0 for end in schedule.periods):
        found.append(_problem(f"{key}.periods", list(schedule.periods), "rising numbers above 0"))
    for index, part in enumerate(schedule.parts):
        found += _schedule_problems(f"{key}.parts.{index}", part)
    return found

"""What no single field shows: values out of range and settings that contradict each other."""

from __future__ import annotations

from .errors import ConfigError, Problem
from .schema import ModelConfig, RunConfig

__all__ = ["check"]


def _model_problems(model: ModelConfig) -> list[tuple[str, object, str, str | None]]:
    found: list[tuple[str, object, str, str | None]] = []
    width, heads = model.hidden_size, model.num_attention_heads
    groups = model.num_key_value_heads
    if width > 0 and heads > 0 and (width % heads or (width // heads) % 2):
        text = f"a number of heads that share hidden_size {width} in even widths"
        found.append(("model.num_attention_heads", heads, text, None))
    if groups is not None and groups > 0 and heads % groups:
        found.append(("model.num_key_value_heads", groups, f"a divisor of num_attention_heads {heads}", None))
    if model.clip_qkv is not None and model.family != "olmo":
        text = "null, since transformers' class of this family has no clipping"
        found.append(("model.clip_qkv", model.clip_qkv, text, 'use family "olmo"'))
    if model.family == "olmo" and model.norm_eps not in (None, 1e-5):
        found.append(("model.norm_eps", model.norm_eps, "1e-05, which OlmoForCausalLM fixes", None))
    return found


def check(config: RunConfig, where: str) -> None:
    """Check ranges and contradictions.

    Raises: ConfigError: with every problem.
    """
    model, data, optimizer, train = config.model, config.data, config.optimizer, config.train
    positive = {
        "model.hidden_size": model.hidden_size,
        "model.intermediate_size": model.intermediate_size,
        "model.num_hidden_layers": model.num_hidden_layers,
        "model.num_attention_heads": model.num_attention_heads,
        "model.num_key_value_heads": model.num_key_value_heads,
        "model.rope_theta": model.rope_theta,
        "model.norm_eps": model.norm_eps,
        "model.clip_qkv": model.clip_qkv,
        "model.vocab_multiple": model.vocab_multiple,
        "model.embedding_size": model.embedding_size,
        "model.init.std": model.init.std,
        "optimizer.learning_rate": optimizer.learning_rate,
        "optimizer.eps": optimizer.eps,
        "optimizer.max_grad_norm": optimizer.max_grad_norm,
        "train.steps": train.steps,
        "train.batch_windows": train.batch_windows,
        "train.micro_batch_windows": train.micro_batch_windows,
        "train.num_threads": train.num_threads,
        "train.max_skipped_steps": train.max_skipped_steps,
        "validation.every_steps": config.validation.every_steps,
        "validation.documents_per_domain": config.validation.documents_per_domain,
        "validation.batch_tokens": config.validation.batch_tokens,
        "checkpoint.every_steps": config.checkpoint.every_steps,
        "checkpoint.keep_last": config.checkpoint.keep_last,
        "logging.metrics_every_steps": config.logging.metrics_every_steps,
        "logging.console_every_s": config.logging.console_every_s,
        "energy.declared_watts": config.energy.declared_watts,
    }
    not_negative = {
        "optimizer.weight_decay": optimizer.weight_decay,
        "schedule.warmup_steps": config.schedule.warmup_steps,
        "schedule.final_ratio": config.schedule.final_ratio,
        "train.z_loss": train.z_loss,
    }
    found: list[tuple[str, object, str, str | None]] = []
    found += [(key, value, "more than 0", None) for key, value in positive.items() if value is not None and value <= 0]
    found += [(key, value, "0 or more", None) for key, value in not_negative.items() if value < 0]
    found += _model_problems(model)
    if not 0 <= config.seed < 2**32:
        found.append(("seed", config.seed, "0 to 4294967295", None))
    if data.sequence_length < 2:
        found.append(("data.sequence_length", data.sequence_length, "2 or more", None))
    if len(optimizer.betas) != 2 or any(not 0 <= beta < 1 for beta in optimizer.betas):
        found.append(("optimizer.betas", list(optimizer.betas), "two numbers from 0 to below 1", None))
    if config.schedule.warmup_steps > train.steps > 0:
        text = f"at most train.steps {train.steps}"
        found.append(("schedule.warmup_steps", config.schedule.warmup_steps, text, None))
    if not data.sources:
        found.append(("data.sources", "empty", "at least one directory of token shards", None))
    ratios = [source.ratio for source in data.sources]
    if any(ratio is None for ratio in ratios) and any(ratio is not None for ratio in ratios):
        found.append(("data.sources", "given a ratio in part", "a ratio for every source, or for none", None))
    for index, ratio in enumerate(ratios):
        if ratio is not None and ratio <= 0:
            found.append((f"data.sources.{index}.ratio", ratio, "more than 0", "leave the source out instead"))
    if found:
        raise ConfigError(
            *(Problem(f'{where}: "{key}" is {value}; expected {text}', hint) for key, value, text, hint in found)
        )

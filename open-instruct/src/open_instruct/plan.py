"""`--dry-run`: what a run would train on, how long it would take and what memory it needs. No weights are loaded."""

import math
from collections.abc import Sequence
from typing import Any

from .config import DpoConfig, SftConfig
from .data import Examples, PairExample, SftExample, pack_lengths
from .processes import count_processes
from .report import count_sources

__all__ = ["describe_run", "empty_model"]


def empty_model(directory: Any) -> Any:
    """Build the model of a checkpoint without weights, to count them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory, local_files_only=True))


def describe_run(
    config: SftConfig | DpoConfig,
    model: Any,
    examples: Examples[Any],
    evaluation: Examples[Any],
    max_length: int,
    tokens_per_s: float | None,
) -> list[str]:
    """Return the lines of the dry run; `model` has no weights, `tokens_per_s` is a measured pace."""
    rows = examples.rows
    lengths = [_tokens(row) for row in rows]
    longest = max(map(_longest, rows))
    bins = pack_lengths(lengths, max_length) if config.sequence.packing else [[index] for index in range(len(rows))]
    training = config.training
    steps_of_epoch = math.ceil(len(bins) / training.batch_sequences)
    steps = training.max_steps or math.ceil(training.num_epochs * steps_of_epoch)
    epochs = steps / steps_of_epoch
    trained = sum(count[2] for count in count_sources(rows).values())
    lines = [
        f"rows        {len(rows):,} to train on, {len(evaluation.rows):,} held out",
        f"tokens      {sum(lengths):,}, of which {trained:,} are trained; {max(lengths):,} in the longest row",
    ]
    if config.sequence.packing:
        full = sum(lengths) / (len(bins) * max_length)
        lines.append(f"packing     {len(bins):,} sequences of {max_length:,} tokens, {full:.1%} full")
    lines.append(
        f"steps       {steps:,}: {epochs:.4g} epochs of {steps_of_epoch:,}; {training.batch_sequences:,} sequences each"
    )
    lines += _memory(config, model, max_length if config.sequence.packing else longest)
    if tokens_per_s is not None:
        seconds = sum(lengths) * epochs / tokens_per_s
        lines.append(f"time        {seconds / 3600:.2f} h at {tokens_per_s:,.0f} tokens/s, without evaluations")
    return lines


def _tokens(row: SftExample | PairExample) -> int:
    if isinstance(row, PairExample):
        return 2 * len(row.prompt_ids) + len(row.chosen_ids) + len(row.rejected_ids)
    return len(row.input_ids)


def _longest(row: SftExample | PairExample) -> int:
    if isinstance(row, PairExample):
        return len(row.prompt_ids) + max(len(row.chosen_ids), len(row.rejected_ids))
    return len(row.input_ids)


def _memory(config: SftConfig | DpoConfig, model: Any, length: int) -> Sequence[str]:
    """Estimate the memory of a process.

    Weights, gradients and AdamW's two moments are float32: 16 bytes for each trained parameter and 4 for each other
    one. Activations are 34 bytes for each token, layer and unit of width in 16 bits (Korthikanti et al. 2022,
    arXiv:2205.05198, equation 2, without the scores of attention, which fused kernels do not store), or 2 and one
    layer's with activation checkpointing.
    """
    count = sum(parameter.numel() for parameter in model.parameters())
    trained = count
    if config.lora:
        from peft import get_peft_model

        from .trainers import lora_config

        adapted = get_peft_model(model, lora_config(config.lora, model))
        trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
        count += trained
    state = 4 * (count - trained) + 16 * trained
    if isinstance(config, DpoConfig) and config.loss.needs_reference and not config.loss.precompute_reference:
        state += 0 if config.lora else 4 * count  # the reference
    shape = model.config.get_text_config()
    layers, width = shape.num_hidden_layers, shape.hidden_size
    sequences = config.training.micro_batch_sequences * (2 if isinstance(config, DpoConfig) else 1)
    per_layer = 34 if not config.runtime.activation_checkpointing else 2
    units = per_layer * layers + (34 if config.runtime.activation_checkpointing else 0)
    activations = units * width * length * sequences * (1 if config.runtime.dtype == "bfloat16" else 2)
    processes = f" in each of {count_processes()} processes" if count_processes() > 1 else ""
    gigabytes = [number / 1e9 for number in (state + activations, state, activations)]
    return [
        f"parameters  {count:,}, of which {trained:,} are trained",
        f"memory      about {gigabytes[0]:.3g} GB{processes}: {gigabytes[1]:.3g} GB of weights, gradients and "
        f"optimizer, {gigabytes[2]:.3g} GB of activations",
    ]

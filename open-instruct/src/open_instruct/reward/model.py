"""A reward model: a checkpoint with a score in place of its output matrix, and the scores it gives."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from ..formats.checkpoint import Inspection
from ..formats.contract import ConfigError, WorkError, first_line
from ..model.load import add_special_tokens, load_model, require_finite_weights

__all__ = ["load_reward_model", "make_reward_model", "score_ids"]

_PADDING = "<|pad|>"


def make_reward_model(inspection: Inspection, tokenizer: Any, stop_id: int, seed: int) -> Any:
    """Load a language model and give it a score, whose weights are drawn from N(0, 1 / (width + 1)).

    The variance is that of Stiennon et al. 2020 (arXiv:2009.01325, appendix B). transformers reads the score at the
    last token that is not padding, so padding must be another token than the end of an answer: without one, it is
    added to the tokenizer.

    Raises:
        ConfigError: transformers has no such model for this architecture.
        WorkError: the model cannot be loaded.
    """
    model = load_model(inspection.directory)
    if tokenizer.pad_token_id in (None, stop_id, tokenizer.eos_token_id):
        add_special_tokens(model, tokenizer, (_PADDING,))
        tokenizer.pad_token = _PADDING
    config = model.config
    config.get_text_config().pad_token_id = tokenizer.pad_token_id
    config.num_labels = 1
    try:
        with torch.device("meta"):
            reward = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise ConfigError(
            f"model: transformers has no reward model for {inspection.architecture}; expected an architecture with "
            "AutoModelForSequenceClassification",
            hint="use a model of the family of Llama, Mistral, Mixtral, OLMo, OLMo 2, OLMo 3 or Qwen",
        ) from error
    prefix = reward.base_model_prefix
    setattr(reward, prefix, getattr(model, model.base_model_prefix))
    width = reward.score.in_features
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(1, width, generator=generator) / math.sqrt(width + 1)
    reward.score = torch.nn.Linear(width, 1, bias=False)
    reward.score.weight.data.copy_(weights)
    return reward


def load_reward_model(directory: Path, dtype: str = "float32") -> Any:
    """Load the result of `open-instruct reward`, on the CPU.

    Raises:
        ConfigError: it has more than one output.
        WorkError: transformers cannot load it, or a weight is not a finite number.
    """
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            directory, dtype=getattr(torch, dtype), local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise WorkError(f"{directory}: cannot load the model ({first_line(error)}); expected a reward model") from error
    if model.config.num_labels != 1:
        raise ConfigError(f"{directory}: has {model.config.num_labels} outputs; expected a reward model with one")
    require_finite_weights(directory, model)
    return model


def score_ids(model: Any, rows: Sequence[Sequence[int]], batch_size: int, autocast: Any = None) -> torch.Tensor:
    """Return the score of each row of token ids, read at its last token: float64, shape (rows,), on the CPU.

    Rows of similar length share a batch. Padding is on the right, which a causal model never looks at.
    """
    device, pad = model.device, model.config.get_text_config().pad_token_id
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    scores = torch.zeros(len(rows), dtype=torch.float64)
    was_training = model.training
    model.eval()
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        width = len(rows[chosen[0]])
        # shapes (batch, time)
        ids = torch.tensor([[*rows[index], *[pad] * (width - len(rows[index]))] for index in chosen], device=device)
        mask = torch.tensor([[1] * len(rows[index]) + [0] * (width - len(rows[index])) for index in chosen])
        with torch.no_grad(), autocast() if autocast else nullcontext():
            output = model(input_ids=ids, attention_mask=mask.to(device), use_cache=False)
        scores[chosen] = output.logits[:, 0].double().cpu()
    model.train(was_training)
    return scores

"""A checkpoint directory to a model and a tokenizer, after its files were checked."""

import logging
from pathlib import Path
from typing import Any

from ..errors import RequestError, WorkError
from ..formats.checkpoint import check_checkpoint

__all__ = ["add_special_tokens", "check_model_directory", "load_model", "load_tokenizer"]

log = logging.getLogger(__name__)


def check_model_directory(path: str) -> Path:
    """Check that `path` is a whole checkpoint with a tokenizer, hashes included where it has a manifest.

    Raises:
        RequestError: nothing is there.
        FormatError: the first rule of docs/formats/checkpoint.md that it breaks.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise RequestError(
            f"model: {path} is not a directory; expected a checkpoint",
            "give a directory with config.json, model.safetensors and tokenizer.json; nothing is downloaded",
        )
    check_checkpoint(directory, tokenizer=True)
    return directory


def load_tokenizer(directory: Path) -> Any:
    """Load the tokenizer; without a padding token it pads with the end-of-sequence token, which masks leave out."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # tokenizers raises plain Exception for a damaged file
        sentence = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WorkError(f"{directory / 'tokenizer.json'}: cannot be read ({sentence}); expected a tokenizer") from error
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(directory: Path, dtype: str = "float32") -> Any:
    """Load the model in `dtype`, on the CPU. Raises WorkError where transformers cannot."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype), local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        sentence = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WorkError(f"{directory}: cannot be loaded ({sentence}); expected a causal language model") from error


def add_special_tokens(model: Any, tokenizer: Any, wanted: tuple[str, ...]) -> list[int]:
    """Make each text of `wanted` a single token; return the ids that are new.

    New tokens take the padding rows of the embedding first; it grows only when there are none left. A new row starts
    as the mean of the tokenizer's old rows (as Stanford Alpaca's train.py does), not as noise.
    """
    import torch

    missing = [text for text in wanted if len(tokenizer.encode(text, add_special_tokens=False)) != 1]
    if not missing:
        return []
    known = len(tokenizer)
    tokenizer.add_tokens(missing, special_tokens=True)
    ids = [int(token) for token in tokenizer.convert_tokens_to_ids(missing)]
    if max(ids) >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(max(ids) + 1, pad_to_multiple_of=8, mean_resizing=False)
    with torch.no_grad():
        tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
        for layer in [model.get_input_embeddings()] + ([] if tied else [model.get_output_embeddings()]):
            layer.weight[ids] = layer.weight[:known].mean(dim=0)
    log.info("new tokens: %s", ", ".join(missing))
    return ids

"""From a checkpoint directory to a model and its tokenizer, on the right device, after its files were checked."""

import ctypes
import logging
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import RuntimeSettings
from ..formats.checkpoint import Inspection, inspect_checkpoint, read_checkpoint, tokenizer_difference
from ..formats.contract import ConfigError, FormatError, WorkError, first_line

__all__ = [
    "add_special_tokens",
    "check_ids",
    "check_model_directory",
    "cover_ids",
    "fitting_length",
    "load_model",
    "load_tokenizer",
    "require_finite_weights",
    "set_up_torch",
    "start_at_mean",
]

log = logging.getLogger(__name__)
_NAMED = ("bos", "eos", "pad", "unk", "sep", "cls", "mask")


def check_model_directory(path: str, *, reward: bool = False) -> Inspection:
    """Check that `path` is a language model with a tokenizer and whole, hashes included where it has a manifest.

    With `reward`, it must be a reward model instead.

    Raises:
        ConfigError: it is not a directory, or another kind of model.
        FormatError: the first rule of docs/formats/checkpoint.md that it breaks.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise ConfigError(
            f"model: {path} is not a directory; expected a checkpoint",
            hint="pass a local directory with config.json, model.safetensors and tokenizer.json; nothing is downloaded",
        )
    inspection = inspect_checkpoint(directory)
    is_reward = inspection.architecture.endswith("ForSequenceClassification")
    if reward and not is_reward:
        raise ConfigError(
            f"reward: {path} is a {inspection.architecture}; expected a reward model",
            hint="train one with open-instruct reward",
        )
    if is_reward and not reward:
        raise ConfigError(
            f"model: {path} is a reward model ({inspection.architecture}); expected a language model",
            hint="pass the checkpoint that it was trained from",
        )
    try:
        read_checkpoint(directory)
    except FormatError as error:
        if error.code == "missing_file":  # the inspection names what exists instead, and how to convert it
            _ = inspection.tensors, inspection.tokenizer
        raise
    _ = inspection.tokenizer
    return inspection


def fitting_length(max_length_tokens: int, inspection: Inspection) -> int:
    """Return `sequence.max_length_tokens`, lowered with a warning to the model's maximum number of positions."""
    limit = inspection.max_positions
    if limit is None or max_length_tokens <= limit:
        return max_length_tokens
    log.warning("sequence.max_length_tokens: lowered from %d to %d, the model's maximum", max_length_tokens, limit)
    return limit


def load_tokenizer(checkpoint: Path | Inspection) -> Any:
    """Load tokenizer.json of a directory or its inspection unchanged, whatever class tokenizer_config.json names.

    Special tokens (bos, eos, …) are those of tokenizer_config.json that tokenizer.json contains, otherwise those of the
    model's configurations. Without a padding token, the end-of-sequence token pads, which masks exclude.

    Raises:
        FormatError: a tokenizer that cannot be read.
        WorkError: one that transformers would change.
    """
    from transformers import PreTrainedTokenizerFast

    inspection = checkpoint if isinstance(checkpoint, Inspection) else inspect_checkpoint(checkpoint)
    backend = inspection.tokenizer
    named: dict[str, Any] = {f"{kind}_token": _named_token(inspection, kind) for kind in _NAMED}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=inspection.chat_template,
        clean_up_tokenization_spaces=False,
        **{name: token for name, token in named.items() if token is not None},
    )
    difference = tokenizer_difference(backend, tokenizer.backend_tokenizer)
    if difference is not None:
        path = inspection.directory / "tokenizer.json"
        raise WorkError(f"{path}: transformers loads it differently ({difference}); expected the same tokens")
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _named_token(inspection: Inspection, kind: str) -> str | None:
    value = inspection.tokenizer_config.get(f"{kind}_token")
    text = value.get("content") if isinstance(value, dict) else value
    if isinstance(text, str) and inspection.tokenizer.token_to_id(text) is not None:
        return text
    found = inspection.special_token_id(kind)
    return None if found is None else inspection.tokenizer.id_to_token(found)


def load_model(directory: Path, dtype: str = "float32") -> Any:
    """Load the model in `dtype`, on the CPU.

    Raises:
        WorkError: transformers cannot load it, or a weight is not a finite number.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype), local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        sentence = first_line(error)
        raise WorkError(f"{directory}: cannot load the model ({sentence}); expected a causal language model") from error
    require_finite_weights(directory, model)
    return model


def require_finite_weights(directory: Path, model: Any) -> None:
    """Raise WorkError, naming the tensor, if a weight of the model from `directory` is not a finite number."""
    import torch

    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            bad = int((~torch.isfinite(parameter)).sum())
            raise WorkError(
                f'{directory}: "{name}" has {bad} weights that are NaN or infinite; expected finite numbers',
                hint="use an earlier checkpoint of the run that wrote it",
            )


def add_special_tokens(model: Any, tokenizer: Any, wanted: tuple[str, ...]) -> list[int]:
    """Make each text of `wanted` a single token; return the ids that are new.

    New tokens use the padding rows of the embedding first; it grows only when none are left. A new row starts as the
    mean of the tokenizer's old rows (as in Stanford Alpaca's train.py), not as noise.
    """
    missing = [text for text in wanted if len(tokenizer.encode(text, add_special_tokens=False)) != 1]
    if not missing:
        return []
    known = len(tokenizer)
    tokenizer.add_tokens(missing, special_tokens=True)
    ids = [int(token) for token in tokenizer.convert_tokens_to_ids(missing)]
    _add_rows(model, ids, known)
    log.info("new tokens: %s", ", ".join(missing))
    return ids


def cover_ids(model: Any, tokenizer: Any, highest: int) -> list[int]:
    """Resize the embedding to the tokenizer if it has no row for the id `highest`; return the ids that had none.

    Such ids come from a tokenizer that was extended without resizing the model.
    """
    rows = model.get_input_embeddings().num_embeddings
    new = list(range(rows, len(tokenizer))) if highest >= rows else []
    if new:
        _add_rows(model, new, rows)
        shown = ", ".join(tokenizer.convert_ids_to_tokens(new[:4])) + ("…" if len(new) > 4 else "")
        log.warning("the embedding has %d rows; added rows for %d more tokens (%s)", rows, len(new), shown)
    return new


def check_ids(model: Any, tokenizer: Any, highest: int) -> None:
    """Check that the embedding has a row for the id `highest`. Raises WorkError."""
    rows = model.get_input_embeddings().num_embeddings
    if highest >= rows:
        token = tokenizer.convert_ids_to_tokens(highest)
        raise WorkError(
            f"tokenizer.json: {token!r} has the id {highest}; expected an id below {rows}, the rows of the embedding",
            hint="use the tokenizer that the model was trained with, or train the new tokens with open-instruct sft",
        )


def _add_rows(model: Any, ids: list[int], known: int) -> None:
    rows = model.get_input_embeddings().num_embeddings
    if max(ids) >= rows:
        model.resize_token_embeddings(max(ids) + 1, pad_to_multiple_of=8, mean_resizing=False)
    grown = range(rows, model.get_input_embeddings().num_embeddings)
    start_at_mean(model, sorted({*ids, *grown}), min(known, *ids))


def start_at_mean(model: Any, ids: Sequence[int], known: int) -> None:
    """Set the rows `ids` of the embedding and of the output matrix to the mean of their first `known` rows."""
    import torch

    with torch.no_grad():
        tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
        for layer in [model.get_input_embeddings()] + ([] if tied else [model.get_output_embeddings()]):
            layer.weight[ids] = layer.weight[:known].mean(dim=0)
            if getattr(layer, "bias", None) is not None:
                layer.bias[ids] = layer.bias[:known].mean()


# ---- device and memory


def set_up_torch(settings: RuntimeSettings) -> tuple[str, int | None]:
    """Choose and return the device and the number of CPU threads (None on a GPU, where it does not change the result).

    Raises:
        ConfigError: cuda is requested but not available.
    """
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    _keep_freed_memory()
    has_cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not has_cuda:
        raise ConfigError('runtime.device: is "cuda", but torch finds no GPU; expected "cpu" or "auto"')
    device = "cuda" if has_cuda and settings.device != "cpu" else "cpu"
    return device, torch.get_num_threads() if device == "cpu" else None


def _keep_freed_memory() -> None:
    # glibc gives large blocks back to the kernel when they are freed, and a step's logits are such blocks: a quarter of
    # the processor time of a small model's step was page faults. With both limits at their highest it keeps the memory.
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_threshold, largest = -1, -3, 2**31 - 1  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(mmap_threshold, largest)
    mallopt(trim_threshold, largest)

"""A checked checkpoint directory becomes a model and a tokenizer. No download; no code of a checkpoint runs."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from catwalk.errors import ConfigError, DataError
from catwalk.formats.checkpoint import Checkpoint
from catwalk.formats.errors import FormatError

__all__ = ["Tokenizer", "load_model", "load_tokenizer", "resolve_device"]

log = logging.getLogger(__name__)

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Text to ids without special tokens; `starts_with_bos` when the tokenizer itself puts BOS before every text."""

    backend: Any
    bos_token_id: int | None
    eos_token_id: int | None
    starts_with_bos: bool
    highest_id: int

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, nothing added."""
        if not texts:
            return []
        encoded = self.backend(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def prefix_id(self, kind: str) -> int:
        """The token before the first one of a document.

        Raises:
            ConfigError: when the tokenizer has none of this kind.
        """
        id = self.bos_token_id if kind == "bos" else self.eos_token_id
        if id is None:
            other = "eos" if kind == "bos" else "bos"
            raise ConfigError(f"prefix: the tokenizer has no {kind} token; expected one", hint=f"--prefix {other}")
        return id


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f'device: "{name}" is not a device; expected auto, cpu or cuda') from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: this machine has no CUDA device; expected auto or cpu", hint="--device cpu")
    return device


def load_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer beside the weights.

    Raises:
        FormatError: `missing_file` when there is none, `invalid_value` when it cannot be loaded.
    """
    if not any((directory / name).is_file() for name in _TOKENIZER_FILES):
        message = "the file is absent; expected the checkpoint's tokenizer"
        hint = "copy tokenizer.json and tokenizer_config.json beside the weights"
        raise FormatError("missing_file", directory / "tokenizer.json", message, hint=hint)
    transformers.logging.set_verbosity_error()
    try:
        backend = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever the libraries raise, Rust panics of `tokenizers` included
        message = f"the tokenizer cannot be loaded ({_first_line(error)})"
        raise FormatError("invalid_value", directory / "tokenizer.json", message) from error
    bos = backend.bos_token_id
    with_special = backend("a", return_attention_mask=False)["input_ids"]
    return Tokenizer(
        backend=backend,
        bos_token_id=bos,
        eos_token_id=backend.eos_token_id,
        starts_with_bos=bos is not None and len(with_special) > 1 and with_special[0] == bos,
        highest_id=max(backend.get_vocab().values()),
    )


def load_model(checkpoint: Checkpoint, tokenizer: Tokenizer, dtype: str, device: torch.device) -> Any:
    """The model in evaluation mode.

    Raises:
        FormatError: `missing_tensor` when weights are absent (transformers would invent them), `out_of_range` when the
            tokenizer has ids that the embedding has not.
        DataError: when transformers cannot load the directory.
    """
    directory = checkpoint.directory
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise DataError(f"{directory}: transformers cannot load the model ({_first_line(error)})") from error
    for kind, code in (("missing_keys", "missing_tensor"), ("mismatched_keys", "wrong_shape")):
        if loading.get(kind):
            name = sorted(map(str, loading[kind]))[0]
            message = f'"{name}" is {"absent" if kind == "missing_keys" else "of another shape"}; the model requires it'
            raise FormatError(code, directory, message, field=name, hint="export the checkpoint again")
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer.highest_id >= rows:
        message = f"the tokenizer has ids up to {tokenizer.highest_id}; the embedding has {rows} rows"
        raise FormatError("out_of_range", directory / "tokenizer.json", message, hint="use the model's own tokenizer")
    return model.to(device).eval()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

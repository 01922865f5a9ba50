"""Load the model and the tokenizer of a checked checkpoint directory. No downloads, and no code from the checkpoint."""

import hashlib
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer as Backend

from catwalk.formats.checkpoint import Checkpoint, Inspection, inspect_checkpoint, open_tokenizer
from catwalk.formats.contract import ConfigError, FormatError, WorkError, first_line

__all__ = ["Tokenizer", "load_model", "load_tokenizer", "resolve_device"]

log = logging.getLogger(__name__)

_OLDER_TOKENIZERS = ("vocab.json", "tokenizer.model", "vocab.txt", "spiece.model")


@dataclass(frozen=True, kw_only=True)
class _Converted(Inspection):
    """A directory without tokenizer.json: `converted` is what transformers builds from its older files."""

    converted: Backend

    @cached_property
    def tokenizer(self) -> Backend:
        return self.converted


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Text to ids without added tokens; a special token spelled out in a text is text.

    `stop_token_ids` end a generated text. `starts_with_bos` and `document_prefix` are the checkpoint's own
    (docs/formats/checkpoint.md, *Before a document*). Ids of `embedding_rows` and above have no embedding.
    """

    backend: Backend
    bos_token_id: int | None
    eos_token_id: int | None
    unk_token_id: int | None
    starts_with_bos: bool
    document_prefix: str | None
    embedding_rows: int
    stop_token_ids: tuple[int, ...] = ()

    @cached_property
    def _reads_special(self) -> Backend:
        """The same, but a special token spelled out in a text is that token."""
        backend = Backend.from_str(self.backend.to_str())
        backend.encode_special_tokens = False
        return backend

    def encode(self, texts: Sequence[str], *, rendered: bool = False) -> list[list[int]]:
        """Ids of each text. `rendered`: a chat template wrote them, with special tokens.

        Raises:
            WorkError: for a text that the tokenizer cannot encode.
        """
        backend = self._reads_special if rendered else self.backend
        try:
            encoded = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except Exception as error:  # `tokenizers` raises nothing narrower
            if len(texts) > 1:  # one by one, to name the text
                return [ids for text in texts for ids in self.encode([text], rendered=rendered)]
            problem = f"the tokenizer cannot encode {texts[0][:60]!r} ({first_line(error)})"
            raise WorkError(problem, hint="use the model's own tokenizer") from error
        return [encoding.ids for encoding in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        text: str = self.backend.decode(list(ids), skip_special_tokens=True)
        return text

    def prefix(self, requested: str | None) -> str:
        """The kind of token before a document, `bos` or `eos`: `requested`, else the checkpoint's own.

        Raises:
            ConfigError: when the tokenizer lacks this token, or has neither.
        """
        kind = requested or self.document_prefix
        if kind is None:
            problem = "prefix: the checkpoint has neither a bos nor an eos token; expected one to put before a document"
            raise ConfigError(problem, hint="set eos_token in tokenizer_config.json, or eos_token_id in config.json")
        self.prefix_id(kind)
        return kind

    def prefix_id(self, kind: str) -> int:
        """The id of `bos` or `eos`.

        Raises:
            ConfigError: when the tokenizer lacks it.
        """
        id = self.bos_token_id if kind == "bos" else self.eos_token_id
        if id is None:
            other = "eos" if kind == "bos" else "bos"
            raise ConfigError(f"prefix: the tokenizer has no {kind} token; expected one", hint=f"--prefix {other}")
        return id

    def check(self, ids: Sequence[int], where: str) -> None:
        """Check that every id has an embedding; `where` names the text.

        Raises:
            WorkError: naming the highest id beyond the embedding.
        """
        if ids and max(ids) >= self.embedding_rows:
            raise WorkError(f"{where}: {self.beyond(ids)}", hint="use the model's own tokenizer")

    def beyond(self, ids: Sequence[int]) -> str:
        """Says that the highest id has no embedding."""
        token = self.backend.id_to_token(max(ids))
        return f"token {max(ids)} ({token!r}) is beyond the embedding; expected ids below {self.embedding_rows}"


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA if available, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f'device: unknown device "{name}"; expected auto, cpu or cuda') from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: no CUDA device on this machine; expected auto or cpu", hint="--device cpu")
    return device


def load_tokenizer(checkpoint: Path | Inspection) -> Tokenizer:
    """The tokenizer of a directory or its inspection: tokenizer.json unchanged, whatever class the configuration names.

    Raises:
        FormatError: `missing_file` when there is none, `invalid_value` when it cannot be loaded.
    """
    inspection = checkpoint if isinstance(checkpoint, Inspection) else inspect_checkpoint(checkpoint)
    path = inspection.directory / "tokenizer.json"
    if not path.is_file():
        inspection = _convert(inspection)
    backend, rows = inspection.tokenizer, inspection.embedding_rows
    beyond = sorted((id, text) for text, id in backend.get_vocab(with_added_tokens=True).items() if id >= rows)
    if beyond:
        id, text = beyond[0]
        message = "%s: tokens beyond the embedding of %d rows: %d, first %r (%d); a text that contains one is an error"
        log.warning(message, path, rows, len(beyond), text, id)
    return Tokenizer(
        backend=backend,
        bos_token_id=inspection.special_token_id("bos"),
        eos_token_id=inspection.special_token_id("eos"),
        unk_token_id=inspection.special_token_id("unk"),
        starts_with_bos=inspection.starts_with_bos,
        document_prefix=inspection.document_prefix,
        embedding_rows=rows,
        stop_token_ids=inspection.stop_token_ids,
    )


def _convert(inspection: Inspection) -> Inspection:
    """Build the tokenizer from vocab.json and merges.txt, tokenizer.model and the like, as transformers does."""
    directory = inspection.directory
    path = directory / "tokenizer.json"
    older = [name for name in _OLDER_TOKENIZERS if (directory / name).is_file()]
    if not older:
        open_tokenizer(path)  # raises, and names other files that were found
    transformers.logging.set_verbosity_error()
    try:
        wrapped = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        backend = Backend.from_str(wrapped.backend_tokenizer.to_str())
    except Exception as error:  # whatever the libraries raise, Rust panics of `tokenizers` included
        message = f"not found, and transformers cannot build it from {older[0]} ({first_line(error)})"
        hint = "convert it with AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR), and check its ids"
        raise FormatError("invalid_value", path, message, hint=hint) from error
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    log.warning("%s not found; transformers builds the tokenizer from %s", path, older[0])
    return _Converted(
        directory=directory,
        config=inspection.config,
        generation_config=inspection.generation_config,
        tokenizer_config=inspection.tokenizer_config,
        converted=backend,
    )


def adapter_sha256(adapter: Path) -> dict[str, str]:
    """Hashes of the files of a peft adapter.

    Raises:
        ConfigError: the directory has no adapter.
    """
    names = ("adapter_config.json", "adapter_model.safetensors")
    for name in names:
        if not (adapter / name).is_file():
            problem = f"peft: {adapter / name} not found; expected the directory of an adapter"
            raise ConfigError(problem, hint="save it with PeftModel.save_pretrained(DIR)")
    return {name: hashlib.sha256((adapter / name).read_bytes()).hexdigest() for name in names}


def _with_adapter(model: Any, adapter: Path) -> Any:
    adapter_sha256(adapter)
    try:
        import peft
    except ModuleNotFoundError as error:
        raise ConfigError("peft: the package is not installed", hint="pip install 'catwalk-eval[peft]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of names that peft still uses
            return peft.PeftModel.from_pretrained(model, str(adapter), local_files_only=True).merge_and_unload()
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        raise WorkError(f"peft: {adapter} does not fit the checkpoint ({first_line(error)})") from error


def load_model(checkpoint: Checkpoint, dtype: str, device: torch.device, adapter: Path | None = None) -> Any:
    """The model in evaluation mode, with an adapter merged into it if there is one.

    Raises:
        FormatError: `missing_tensor` when weights are absent (transformers would invent them), `wrong_shape`.
        WorkError: when transformers cannot load the directory.
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
        raise WorkError(f"{directory}: transformers cannot load the model ({first_line(error)})") from error
    for kind, code in (("missing_keys", "missing_tensor"), ("mismatched_keys", "wrong_shape")):
        if loading.get(kind):
            name = sorted(map(str, loading[kind]))[0]
            problem = "not found" if kind == "missing_keys" else "has another shape"
            message = f'tensor "{name}" {problem}; expected the tensors of config.json'
            raise FormatError(code, directory, message, field=name, hint="export the checkpoint again")
    if adapter is not None:
        model = _with_adapter(model, adapter)
    return model.to(device).eval()

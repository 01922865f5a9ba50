"""`open-instruct merge`: merge a peft adapter into its base checkpoint."""

import copy
import logging
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import WRITER
from .formats.checkpoint import Inspection
from .formats.contract import ConfigError, WorkError, first_line, read_object
from .formats.manifest import MANIFEST, describe_input, read_manifest
from .model.load import check_model_directory, load_model, start_at_mean
from .model.save import cast_like, describe_model, keep_untied, write_json, write_tokenizer
from .output import Output

__all__ = ["merge"]

log = logging.getLogger(__name__)
_EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings", "lm_head", "embed_out")


def merge(base: str, adapter: str, output_dir: str, dtype: str | None) -> None:
    """Add an adapter's weights to those of its base and save the result with the base's settings.

    Each tensor keeps the base's dtype, unless `dtype` sets one for all. A tokenizer or template next to the adapter
    replaces the base's.

    Raises:
        ConfigError: a path does not exist, or the output directory contains something else.
        FormatError: the base checkpoint or the adapter's configuration is damaged.
        WorkError: the adapter does not fit the base.
    """
    source = check_model_directory(base)
    parts = Path(adapter)
    if not (parts / "adapter_config.json").is_file():
        raise ConfigError(f"{adapter}: has no adapter_config.json; expected the directory of a peft adapter")
    settings = read_object(parts / "adapter_config.json")
    inputs = [
        entry
        for name, path in (("adapter", parts), ("checkpoint", source.directory))
        for entry in describe_input(name, path, Path(output_dir))
    ]
    config = {"save_dtype": dtype or "as stored"}
    output = Output(output_dir, format_name="checkpoint", stage="merge", config=config, inputs=inputs)
    if output.is_done():
        log.info("merge: already done: %s", output.directory)
        return

    import torch

    home = _home(parts, source)
    with output.begin(keep_trainer=False, keep_failed=False):
        model = _merged(source, parts, settings, home)
        model.to(dtype=getattr(torch, dtype or "float32")).save_pretrained(output.result)
        if dtype is None:
            cast_like(source, output.result)
        _write_settings(source, home, model, output.result, dtype)
        counts, details = describe_model(output.result, step=0, tokens_seen=0)
        output.publish(counts=counts, details=details)
    log.info("merge: %s", output.directory)


def _home(parts: Path, source: Inspection) -> Inspection:
    """Find where tokenizer and template come from: the adapter's directory, the result that contains it, or the base.

    `sft` saves its adapter in a folder of its result, whose tokenizer and template are one level up.
    """
    if (parts / "tokenizer.json").is_file():
        home = parts
    elif (parts.parent / MANIFEST).is_file() and read_manifest(parts.parent).writer["name"] == WRITER["name"]:
        home = parts.parent
    else:
        return source
    settings = home / "tokenizer_config.json"
    return replace(source, directory=home, tokenizer_config=read_object(settings) if settings.is_file() else {})


def _merged(source: Inspection, parts: Path, settings: dict[str, Any], home: Inspection) -> Any:
    """Load the base in float32, grow its embedding to the adapter's, and add the adapter.

    Raises:
        WorkError: the adapter does not fit, lacks weights, or is of a kind that cannot be merged.
    """
    import peft

    model = load_model(source.directory)
    misfit = f"{parts}: does not fit {source.directory}"
    try:
        stored = peft.utils.load_peft_weights(str(parts), device="cpu")
        _resize(model, parts, settings, stored, home)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            adapted = peft.PeftModel.from_pretrained(model, str(parts))
    except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        sentence = first_line(error)
        raise WorkError(f"{misfit} ({sentence}); expected its adapter") from error
    # peft only warns about missing weights, and leaves their matrices at zero
    missing = [str(warning.message) for warning in caught if "missing adapter keys" in str(warning.message)]
    if missing:
        raise WorkError(f"{misfit} ({missing[0][:200]}); expected all weights of its adapter")
    if not hasattr(adapted, "merge_and_unload"):
        kind = adapted.peft_config["default"].peft_type.value
        raise WorkError(f"{parts}: is an adapter of type {kind}; expected LoRA or another type that can be merged")
    try:
        return adapted.merge_and_unload()
    except (AttributeError, ValueError, RuntimeError) as error:
        raise WorkError(
            f"{parts}: cannot be merged ({error}); expected LoRA or another type that can be merged"
        ) from error


def _resize(model: Any, parts: Path, settings: dict[str, Any], stored: dict[str, Any], home: Inspection) -> None:
    """Resize the embedding to what it was when the adapter was trained: tokens may have been added."""
    rows = model.get_input_embeddings().num_embeddings
    indices = settings.get("trainable_token_indices") or []
    if isinstance(indices, dict):
        indices = [id for ids in indices.values() for id in ids]
    trained = [
        tensor.shape[0]
        for name, tensor in stored.items()
        if name.endswith(".weight") and name.split(".")[-2] in _EMBEDDINGS and len(tensor.shape) == 2
    ]
    target = max([*(trained or [rows]), *(id + 1 for id in indices)])
    if home.directory == parts:
        tokens = home.tokenizer.get_vocab_size(with_added_tokens=True)
        if tokens > target:
            log.warning("merge: %d tokens of %s have no weights; initialized to the mean", tokens - target, parts)
            target = tokens
    if target != rows:
        model.resize_token_embeddings(target, mean_resizing=False)
    if target > rows:
        start_at_mean(model, range(rows, target), rows)


def _write_settings(source: Inspection, home: Inspection, model: Any, directory: Path, dtype: str | None) -> None:
    """Write the base's configurations, changed only as the weights require, and the tokenizer of `home`."""
    keep_untied(model)
    config = copy.deepcopy(source.config)
    text = config if source.text_config is source.config else config["text_config"]
    text["vocab_size"] = model.get_input_embeddings().num_embeddings
    if config.get("tie_word_embeddings") and not model.config.tie_word_embeddings:
        config["tie_word_embeddings"] = False
    if dtype is not None:
        config |= dict.fromkeys({"dtype", "torch_dtype"} & config.keys(), dtype)
    if config == source.config:
        shutil.copyfile(source.directory / "config.json", directory / "config.json")
    else:
        write_json(directory / "config.json", config)
    generation = directory / "generation_config.json"
    generation.unlink(missing_ok=True)  # save_pretrained writes its own
    for one in (home, source):
        if (one.directory / generation.name).is_file():
            shutil.copyfile(one.directory / generation.name, generation)
            break
    write_tokenizer(home, directory, template=source.chat_template if home.chat_template is None else None)

"""`open-instruct merge`: a base checkpoint and a peft adapter to one checkpoint."""

import json
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

from .. import WRITER
from ..errors import RequestError, WorkError
from ..formats.inspection import Inspection, open_tokenizer
from ..formats.manifest import NAME, input_entries, read_manifest
from ..model.load import check_model_directory
from ..output import Output

__all__ = ["merge"]

log = logging.getLogger(__name__)
_EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings", "lm_head", "embed_out")


def merge(base: str, adapter: str, output_dir: str, dtype: str | None) -> None:
    """Add an adapter's weights to the base's and save the sum; all else is the base's.

    Its settings stay, and each tensor keeps its dtype, unless `dtype` names one for all. A tokenizer or template beside
    the adapter takes the place of the base's.

    Raises:
        RequestError: a path that is missing, or an output directory that holds something else.
        FormatError: a damaged base checkpoint.
        WorkError: an adapter that does not fit the base.
    """
    source = check_model_directory(base)
    parts = Path(adapter)
    if not (parts / "adapter_config.json").is_file():
        raise RequestError(f"{adapter}: has no adapter_config.json; expected a directory of a peft adapter")
    inputs = [
        entry
        for name, path in (("adapter", parts), ("checkpoint", source.directory))
        for entry in input_entries(name, path, Path(output_dir))
    ]
    config = {"save_dtype": dtype or "as stored"}
    output = Output(output_dir, format_name="checkpoint", stage="merge", config=config, inputs=inputs)
    if output.is_done():
        log.info("merge: already done: %s", output.directory)
        return

    from ..model.save import cast_like, describe_model

    home = _home(parts, source)
    with output.begin(keep_trainer=False, keep_failed=False):
        model = _merged(source, parts, home)
        model.to(dtype=_torch_dtype(dtype or "float32")).save_pretrained(output.result)
        if dtype is None:
            cast_like(source, output.result)
        _write_settings(source, home, model, output.result, dtype)
        counts, details = describe_model(output.result, step=0, tokens_seen=0)
        output.publish(counts=counts, details=details)
    log.info("merge: %s", output.directory)


def _home(parts: Path, source: Inspection) -> Inspection:
    """Find where the tokenizer and the template come from: beside the adapter, of the result it lies in, or the base.

    `sft` leaves its adapter in its result, whose tokenizer and template are one level up.
    """
    home = source.directory
    if (parts / "tokenizer.json").is_file():
        home = parts
    elif (parts.parent / NAME).is_file() and read_manifest(parts.parent)["writer"]["name"] == WRITER["name"]:
        home = parts.parent
    if home == source.directory:
        return source

    def read(name: str, default: dict[str, Any]) -> dict[str, Any]:
        return json.loads((home / name).read_text(encoding="utf-8")) if (home / name).is_file() else default

    return Inspection(
        directory=home,
        config=source.config,
        generation_config=read("generation_config.json", source.generation_config),
        tokenizer_config=read("tokenizer_config.json", {}),
    )


def _torch_dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)


def _merged(source: Inspection, parts: Path, home: Inspection) -> Any:
    """Load the base in float32, grow its embedding to the adapter's, and add the adapter.

    Raises:
        WorkError: the adapter does not fit, is of a kind that cannot be added, or lacks weights.
    """
    import peft

    from ..model.load import load_model

    model = load_model(source.directory)
    misfit = f"{parts}: does not fit {source.directory}"
    try:
        _resize(model, parts, peft.utils.load_peft_weights(str(parts), device="cpu"), home)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            adapted = peft.PeftModel.from_pretrained(model, str(parts))
    except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        sentence = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WorkError(f"{misfit} ({sentence}); expected its adapter") from error
    # peft leaves a matrix whose weights the file lacks at zero, and warns
    lacking = [str(warning.message) for warning in caught if "missing adapter keys" in str(warning.message)]
    if lacking:
        raise WorkError(f"{misfit} ({lacking[0][:200]}); expected all weights of its adapter")
    if not hasattr(adapted, "merge_and_unload"):
        kind = adapted.peft_config["default"].peft_type
        raise WorkError(f"{parts}: is an adapter of the kind {kind}; expected one that can be added to weights")
    try:
        return adapted.merge_and_unload()
    except (AttributeError, ValueError, RuntimeError) as error:
        raise WorkError(f"{parts}: cannot be added to weights ({error}); expected LoRA or the like") from error


def _resize(model: Any, parts: Path, stored: dict[str, Any], home: Inspection) -> None:
    """Give the embedding the rows that the adapter was trained with: tokens may have been added to it."""
    rows = model.get_input_embeddings().num_embeddings
    kept = [
        tensor.shape[0]
        for name, tensor in stored.items()
        if name.endswith(".weight") and name.split(".")[-2] in _EMBEDDINGS and len(tensor.shape) == 2
    ]
    config = json.loads((parts / "adapter_config.json").read_text(encoding="utf-8"))
    wanted = max(kept, default=rows)
    indices = config.get("trainable_token_indices") or []
    if isinstance(indices, dict):
        indices = [id for ids in indices.values() for id in ids]
    wanted = max([wanted, *(id + 1 for id in indices)])
    tokens = 0
    if home.directory == parts:
        tokens = open_tokenizer(parts / "tokenizer.json").get_vocab_size(with_added_tokens=True)
    if tokens > wanted:
        log.warning("merge: %d tokens of %s have no weights; they start as the mean", tokens - wanted, parts)
    target = max(wanted, tokens)
    if target == rows:
        return
    import torch

    model.resize_token_embeddings(target, mean_resizing=False)
    if target > rows:
        with torch.no_grad():
            tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
            for layer in [model.get_input_embeddings()] + ([] if tied else [model.get_output_embeddings()]):
                layer.weight[rows:] = layer.weight[:rows].mean(dim=0)


def _write_settings(source: Inspection, home: Inspection, model: Any, directory: Path, dtype: str | None) -> None:
    """Write the base's configurations, changed where the weights are, and the tokenizer of `home`."""
    from ..model.save import keep_untied, write_tokenizer

    keep_untied(model)
    config = dict(source.config)
    inner = config.get("text_config")
    text = config["text_config"] = dict(inner) if isinstance(inner, dict) else config
    if text is config:
        del config["text_config"]
    rows = model.get_input_embeddings().num_embeddings
    if text.get("vocab_size") != rows:
        text["vocab_size"] = rows
    if config.get("tie_word_embeddings") and not model.config.tie_word_embeddings:
        config["tie_word_embeddings"] = False
    if dtype is not None:
        for name in ("dtype", "torch_dtype"):
            if name in config:
                config[name] = dtype
    changed = config != source.config
    path = directory / "config.json"
    if changed:
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        shutil.copyfile(source.directory / "config.json", path)
    generation = directory / "generation_config.json"
    generation.unlink(missing_ok=True)
    for directory_ in (home.directory, source.directory):
        if (directory_ / "generation_config.json").is_file():
            shutil.copyfile(directory_ / "generation_config.json", generation)
            break
    write_tokenizer(home, directory)
    if home is not source and home.chat_template is None and source.chat_template is not None:
        (directory / "chat_template.jinja").write_text(source.chat_template, encoding="utf-8")


if __name__ == "__main__":  # python -m of this module is the command, not nothing
    import sys

    from ..__main__ import main

    sys.exit(main(["merge", *sys.argv[1:]]))

"""From a model and its tokenizer to a checkpoint directory (docs/formats/checkpoint.md).

A saved checkpoint keeps what its source had: sampling settings, stop ids, the tokenizer's files.
"""

import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..formats.checkpoint import (
    DTYPES,
    Inspection,
    inspect_checkpoint,
    open_tokenizer,
    read_tensors,
    tokenizer_difference,
)
from ..formats.contract import FormatError, WorkError, first_line, sha256_file

__all__ = [
    "cast_like",
    "describe_model",
    "keep_untied",
    "save_adapter",
    "save_model",
    "write_json",
    "write_tokenizer",
]

# A class that uses tokenizer.json unchanged, in transformers 4 and 5
_GENERIC_CLASS = "PreTrainedTokenizerFast"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
# Settings that training changes for its own purposes
_KEPT_SETTINGS = ("use_cache", "output_router_logits", "router_aux_loss_coef")


def save_model(
    model: Any, tokenizer: Any, source: Inspection, template: str, stop_id: int, directory: Path, dtype: str
) -> None:
    """Write config, weights, tokenizer, chat template and, of a model that generates, the generation config.

    Generation stops at the end of a turn (`stop_id`), at the end of the text, and at the stop ids of the `source`;
    `config.json` names the tokenizer's end of text.
    """
    import torch
    from transformers import AutoConfig, GenerationConfig

    directory.mkdir(parents=True, exist_ok=True)
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.bos_token_id = tokenizer.bos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    before = AutoConfig.from_pretrained(source.directory, local_files_only=True).get_text_config()
    for name in _KEPT_SETTINGS:
        if hasattr(before, name):
            setattr(model.config.get_text_config(), name, getattr(before, name))
    keep_untied(model)
    generates = model.can_generate()
    if generates:
        model.generation_config = GenerationConfig()
    model.to(dtype=getattr(torch, dtype), device="cpu").save_pretrained(directory)
    if generates:
        _write_generation_config(source, directory, {stop_id, tokenizer.eos_token_id}, tokenizer)
    write_tokenizer(source, directory, tokenizer=tokenizer, template=template)


def keep_untied(model: Any) -> None:
    """Set `tie_word_embeddings` to false if the checkpoint has a separate output matrix.

    transformers keeps both matrices; readers that trust the configuration would lose one.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is not embedding.weight:
        model.config.tie_word_embeddings = False


def _write_generation_config(source: Inspection, directory: Path, stops: Iterable[int], tokenizer: Any) -> None:
    """Write the source's generation_config.json with more `stops`, and with bos and pad ids if it has none."""
    value = dict(source.generation_config)
    ids = sorted({*stops, *source.stop_token_ids})
    value["eos_token_id"] = ids if len(ids) > 1 else ids[0]
    for kind in ("bos", "pad"):
        id = getattr(tokenizer, f"{kind}_token_id")
        if id is not None and value.get(f"{kind}_token_id") is None:
            value[f"{kind}_token_id"] = id
    write_json(directory / "generation_config.json", value)


def write_tokenizer(source: Inspection, directory: Path, *, tokenizer: Any = None, template: str | None = None) -> None:
    """Copy the source's tokenizer, with the tokens that were added to it in `tokenizer` and a chat `template`.

    tokenizer.json keeps its bytes unless tokens were added, so checkpoints with the same tokenizer share its hash.
    If transformers would replace parts of tokenizer.json for the sake of its class, a generic class is written.
    """
    for name in _TOKENIZER_FILES:
        if (source.directory / name).is_file():
            shutil.copyfile(source.directory / name, directory / name)
    settings = dict(source.tokenizer_config)
    if tokenizer is not None:
        _write_added_tokens(source, directory, tokenizer, settings)
        for kind in ("bos", "eos", "unk"):  # templates use them by name
            text = getattr(tokenizer, f"{kind}_token")
            if text is not None and settings.get(f"{kind}_token") is None:
                settings[f"{kind}_token"] = text
        if tokenizer.pad_token not in (None, tokenizer.eos_token):  # eos stands in where there is none
            settings["pad_token"] = tokenizer.pad_token
    if template is not None:
        settings.pop("chat_template", None)
        # save_pretrained puts the template elsewhere from version to version; the contract says here
        (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    else:
        for name in ("chat_template.jinja", "chat_template.json"):
            if (source.directory / name).is_file():
                shutil.copyfile(source.directory / name, directory / name)
                break
    if settings != source.tokenizer_config or not (directory / "tokenizer_config.json").is_file():
        write_json(directory / "tokenizer_config.json", settings)
    difference = _difference(directory)
    if difference is not None:
        settings["tokenizer_class"] = _GENERIC_CLASS
        settings.pop("auto_map", None)
        write_json(directory / "tokenizer_config.json", settings)
        difference = _difference(directory)
    if difference is not None:
        path = source.directory / "tokenizer.json"
        raise WorkError(f"{path}: transformers would load it differently ({difference}); expected the same tokens")


def _write_added_tokens(source: Inspection, directory: Path, tokenizer: Any, settings: dict[str, Any]) -> None:
    from tokenizers import AddedToken

    had = source.tokenizer.get_vocab(with_added_tokens=True)
    new = {text: id for text, id in tokenizer.get_vocab().items() if text not in had}
    if not new:
        return
    grown = open_tokenizer(source.directory / "tokenizer.json")
    for text, id in sorted(new.items(), key=lambda item: item[1]):
        grown.add_special_tokens([AddedToken(text, special=True, normalized=False)])
        assert grown.token_to_id(text) == id, text
    grown.save(str(directory / "tokenizer.json"))
    if isinstance(settings.get("added_tokens_decoder"), dict):
        entry = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
        more = {str(id): {"content": text, **entry} for text, id in new.items()}
        settings["added_tokens_decoder"] = settings["added_tokens_decoder"] | more


def _difference(directory: Path) -> str | None:
    """Describe how the tokenizer that transformers loads differs from tokenizer.json; None if it does not."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        backend = loaded.backend_tokenizer
    except Exception as error:  # some classes need packages, files or tokens that are missing
        return first_line(error)
    return tokenizer_difference(open_tokenizer(directory / "tokenizer.json"), backend)


def cast_like(source: Inspection, directory: Path) -> None:
    """Convert each tensor in `directory` to its dtype in `source`, and new tensors to the dtype of most parameters."""
    import torch
    from safetensors.torch import load_file, save_file

    stored = {name: DTYPES.get(dtype) for name, (dtype, _) in source.tensors.items()}
    # some models are stored with or without a prefix: transformer.wte.weight, wte.weight
    bare = {name.partition(".")[2]: dtype for name, dtype in stored.items()}
    total = 0
    for path in sorted(directory.glob("*.safetensors")):
        tensors = load_file(path)
        for name, tensor in tensors.items():
            dtype = stored.get(name) or stored.get(name.partition(".")[2]) or bare.get(name) or source.dtypes[0]
            tensors[name] = tensor.to(getattr(torch, dtype)).contiguous()
            total += tensors[name].numel() * tensors[name].element_size()
        save_file(tensors, path, metadata={"format": "pt"})
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        value = json.loads(index.read_text(encoding="utf-8"))
        value["metadata"] = value.get("metadata", {}) | {"total_size": total}
        write_json(index, value)


def describe_model(directory: Path, *, step: int, tokens_seen: int) -> tuple[dict[str, int], dict[str, Any]]:
    """Return the counts and details of a checkpoint's manifest, from the files in `directory`."""
    try:
        inspection = inspect_checkpoint(directory)
        dtype = inspection.dtypes[0]
    except FormatError as error:
        raise WorkError(str(error)) from error
    details = {
        "architecture": inspection.architecture,
        "dtype": dtype,
        "step": step,
        "tokens_seen": tokens_seen,
        "tokenizer_sha256": sha256_file(directory / "tokenizer.json"),
    }
    tensors = read_tensors(directory)
    return {"parameters": sum(math.prod(tensor.shape) for tensor in tensors.values()), "tensors": len(tensors)}, details


def save_adapter(model: Any, directory: Path) -> None:
    """Write peft's adapter, without local paths and without peft's boilerplate README."""
    config = model.peft_config["default"]
    config.base_model_name_or_path = None
    config.target_modules = sorted(config.target_modules)  # a set, whose order changes from run to run
    model.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an object as transformers writes its configurations."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

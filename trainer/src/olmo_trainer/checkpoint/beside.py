"""What a model directory has besides its weights and config.json: tokenizer, chat template, generation settings."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..formats.files import read_json
from ..formats.manifest import canonical

__all__ = ["keep_beside"]

_KEPT = (
    "generation_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
_TEMPLATES = "additional_chat_templates"
_SETTINGS = "tokenizer_config.json"
_CLASS = "PreTrainedTokenizerFast"


def keep_beside(source: Path, directory: Path) -> None:
    """Copy everything but the weights and config.json.

    tokenizer_config.json gets the one class that uses tokenizer.json unchanged: others in transformers, GPT2Tokenizer
    among them, replace its pre-tokenizer.
    """
    for name in _KEPT:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)
    if (source / _TEMPLATES).is_dir():
        shutil.copytree(source / _TEMPLATES, directory / _TEMPLATES)
    if (source / _SETTINGS).is_file():
        settings = {**read_json(source / _SETTINGS), "tokenizer_class": _CLASS}
        settings.pop("auto_map", None)
        (directory / _SETTINGS).write_bytes(canonical(settings))

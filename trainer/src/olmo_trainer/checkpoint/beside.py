"""What lies beside the weights: tokenizer, template, stops and sampling settings, which a writer keeps as they were."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ..formats.errors import FormatError
from ..formats.files import read_json
from ..formats.inspection import open_tokenizer, tokenizer_difference
from ..formats.manifest import canonical

__all__ = ["check_tokenizer", "keep_beside", "plain_class"]

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


def keep_beside(source: Path, directory: Path) -> None:
    """Copy all but weights and config.json; of tokenizer_config.json the class is `plain_class`'s."""
    for name in _KEPT:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)
    if (source / _TEMPLATES).is_dir():
        shutil.copytree(source / _TEMPLATES, directory / _TEMPLATES)
    if (source / _SETTINGS).is_file():
        (directory / _SETTINGS).write_bytes(canonical(plain_class(read_json(source / _SETTINGS))))


def plain_class(settings: dict[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json with the class that takes tokenizer.json as it is.

    Some classes of transformers, GPT2Tokenizer among them, put a pre-tokenizer of their own in its place.
    """
    return {**{name: value for name, value in settings.items() if name != "auto_map"}, "tokenizer_class": _CLASS}


_CLASS = "PreTrainedTokenizerFast"


def check_tokenizer(directory: Path, shown: Path) -> None:
    """Hold what AutoTokenizer makes of a directory against its tokenizer.json, where transformers is installed.

    Raises: FormatError: `invalid_value`: they give other ids. `shown` is the directory's name in the message.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError:
        return
    loaded = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    theirs = Tokenizer.from_str(loaded.backend_tokenizer.to_str())
    theirs.no_truncation()
    theirs.no_padding()
    theirs.encode_special_tokens = True
    difference = tokenizer_difference(open_tokenizer(directory / "tokenizer.json"), theirs)
    if difference is not None:
        got = f"another tokenizer than transformers makes of it ({difference})"
        hint = "remove the tokens from tokenizer_config.json that tokenizer.json does not have"
        raise FormatError(shown / "tokenizer.json", "invalid_value", got, "the same ids from both", hint=hint)

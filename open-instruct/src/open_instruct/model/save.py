"""A model and a tokenizer to the files of a checkpoint directory (docs/formats/checkpoint.md)."""

import os
from pathlib import Path
from typing import Any

__all__ = ["save_model"]


def save_model(model: Any, tokenizer: Any, template: str, stop_id: int, directory: Path, dtype: str) -> None:
    """Write config, generation config, weights, tokenizer and chat template; flush them to the disk.

    Generation ends at the end of a turn (`stop_id`) or of the text; `config.json` names the tokenizer's end of text.
    """
    import torch
    from transformers import GenerationConfig

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.chat_template = template
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.bos_token_id = tokenizer.bos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = True
    stops = sorted({stop_id, tokenizer.eos_token_id})
    model.generation_config = GenerationConfig(
        eos_token_id=stops if len(stops) > 1 else stops[0],
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.to(dtype=getattr(torch, dtype), device="cpu").save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    # save_pretrained of a tokenizer whose template came with transformers may write it elsewhere; this is the contract's
    (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())

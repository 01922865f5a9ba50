"""A model and a tokenizer to the files of a checkpoint directory (docs/formats/checkpoint.md)."""

import json
import shutil
from pathlib import Path
from typing import Any

from ..formats.checkpoint import count_tensors, read_tensors
from ..formats.json_text import sha256_file

__all__ = ["describe_model", "save_adapter", "save_model"]


def save_model(model: Any, tokenizer: Any, template: str, stop_id: int, directory: Path, dtype: str) -> None:
    """Write config, generation config, weights, tokenizer and chat template.

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
    _keep_tokenizer_bytes(Path(tokenizer.name_or_path) / "tokenizer.json", directory / "tokenizer.json")
    # where save_pretrained puts the template has changed between versions of transformers; the contract says here
    (directory / "chat_template.jinja").write_text(template, encoding="utf-8")


def _keep_tokenizer_bytes(original: Path, saved: Path) -> None:
    """Put the model's own tokenizer.json back unless tokens were added to it.

    transformers writes an equal tokenizer in other bytes, and the hash of the bytes is what says that two checkpoints
    share a tokenizer.
    """
    if not original.is_file():
        return
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (original, saved))
    if all(before.get(part) == after.get(part) for part in ("model", "added_tokens")):
        shutil.copyfile(original, saved)


def describe_model(
    directory: Path, dtype: str, *, step: int, tokens_seen: int
) -> tuple[dict[str, int], dict[str, Any]]:
    """Give the counts and the details that the manifest of a checkpoint needs, from the files in `directory`."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    details = {
        "architecture": config["architectures"][0],
        "dtype": dtype,
        "step": step,
        "tokens_seen": tokens_seen,
        "tokenizer_sha256": sha256_file(directory / "tokenizer.json"),
    }
    return count_tensors(read_tensors(directory)), details


def save_adapter(model: Any, directory: Path) -> None:
    """Write peft's adapter alone, without a path of this machine and without peft's form letter of a README."""
    model.peft_config["default"].base_model_name_or_path = None
    model.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)

"""What a result is made from: the settings that its bytes depend on, and its input files."""

from pathlib import Path
from typing import Any

from ..config import DpoConfig, SftConfig
from ..config_file import to_plain
from ..formats.manifest import input_entries

__all__ = ["result_config", "result_inputs"]

# neither how often something is written nor how many rows are scored at once changes a weight
_WITHOUT_EFFECT = ("log_every_steps", "eval_every_steps", "save_every_steps", "eval_batch_size")


def result_config(config: SftConfig | DpoConfig) -> dict[str, Any]:
    """Give the settings for the manifest: no paths (inputs have hashes), names of data files in their order."""
    plain = to_plain(config)
    del plain["model"], plain["output_dir"]
    for key in _WITHOUT_EFFECT:
        del plain["training"][key]
    for key in ("train", "eval"):
        plain["data"][key] = [Path(path).name for path in plain["data"][key]]
    if plain["template"]["name"]:
        plain["template"]["name"] = Path(plain["template"]["name"]).name
    return plain


def result_inputs(config: SftConfig | DpoConfig, role: str) -> list[dict[str, Any]]:
    """Name the checkpoint, the data files (with `role`) and a template file, by hash."""
    artifact = Path(config.output_dir)
    entries = input_entries("checkpoint", Path(config.model), artifact)
    for path in dict.fromkeys(config.data.train):
        entries += input_entries(role, Path(path), artifact)
    for path in dict.fromkeys(config.data.eval):
        entries += input_entries("held_out", Path(path), artifact)
    if config.template.name and Path(config.template.name).is_file():
        entries += input_entries("template", Path(config.template.name), artifact)
    return entries

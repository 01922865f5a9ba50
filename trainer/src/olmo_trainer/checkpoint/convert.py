"""A checkpoint from another program's model, and checks that transformers computes the same from it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from ..config.errors import ConfigError, Problem
from ..data.sources import SpecialTokens, input_row
from ..formats.errors import FormatError
from ..formats.fields import mismatch
from ..formats.inspection import open_tokenizer, tokenizer_difference
from ..formats.manifest import MANIFEST
from ..model.architecture import architecture_of
from ..model.transformer import Transformer
from .foreign import Foreign, read_foreign
from .layout import ARCHITECTURES, generation_json, model_json, published_shapes, tokenizer_json
from .restore import read_model
from .save import copy_sidecars, describe_checkpoint, final_name, write_json, write_weights
from .weights import cast, dtype_of_most, needed_weights

__all__ = ["check_tokenizer", "import_checkpoint", "logit_difference"]

log = logging.getLogger(__name__)

# settings of config.json that are dropped, as they name code that is not copied or are written anew
_DROPPED = ("auto_map", "_name_or_path", "transformers_version", "torch_dtype", "rope_scaling", "rope_parameters")
# settings that keep their value, though our model has no use for it: training's, and further stop ids
_UNCHANGED = ("attention_dropout", "initializer_range", "use_cache", "output_router_logits", "eos_token_id")


def import_checkpoint(
    source: Path, directory: Path, dtype: str | None, shard_bytes: int | None, tokenizer: Path | None
) -> Foreign:
    """Write a checkpoint of ours from a Hugging Face, OLMo or OLMo-core directory to an empty directory.

    Sidecar files are kept, and each weight keeps its dtype unless one is given.
    Raises: ConfigError: a model that this trainer does not have, or no tokenizer; FormatError: damaged files.
    """
    foreign = read_foreign(source)
    tokenizer = tokenizer or source / "tokenizer.json"
    try:
        opened = open_tokenizer(tokenizer)
    except FormatError as error:
        hint = error.hint or "name one with --tokenizer"
        raise ConfigError(Problem(f"{error.path}: {error.message}", hint)) from error
    if foreign.eos is None:
        raise ConfigError(Problem(f"{source}: eos_token_id is missing; expected the id that ends a document"))
    special = SpecialTokens(eos=foreign.eos, bos=foreign.bos, pad=foreign.pad)
    shape = architecture_of(foreign.model, 0)
    largest = max(opened.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= shape.embedding_rows:
        rows = f"the embedding of {shape.embedding_rows} rows"
        log.warning("%s: has ids up to %d, beyond %s; the model cannot read texts with them", tokenizer, largest, rows)
    with torch.device("meta"):
        needed = published_shapes(Transformer(shape).state_dict(), shape)
    weights = cast(needed_weights(foreign.weights, needed, source), dtype, source)
    main_dtype = dtype_of_most(weights)
    write_weights(directory, weights, shard_bytes)
    kept = {name: value for name, value in foreign.config.items() if name not in _DROPPED}
    unchanged = {name: kept[name] for name in _UNCHANGED if kept.get(name) is not None}
    config = {**kept, **model_json(shape, special, foreign.max_positions, main_dtype), **unchanged}
    write_json(directory / "config.json", config)
    generation = {**generation_json(special), "eos_token_id": config["eos_token_id"]}
    write_json(directory / "generation_config.json", generation)
    write_json(directory / "tokenizer_config.json", tokenizer_json(opened, special, foreign.max_positions))
    copy_sidecars(source, directory)
    shutil.copyfile(tokenizer, directory / "tokenizer.json")
    check_tokenizer(directory)
    details = {
        "architecture": ARCHITECTURES[shape.family],
        "dtype": main_dtype,
        "stage": "pretrain",
        "step": 0,
        "tokens_seen": 0,
    }
    describe_checkpoint(directory, weights, {"dtype": main_dtype}, details, _inputs(source, directory))
    return foreign


def check_tokenizer(directory: Path) -> None:
    """Compare what AutoTokenizer makes of a directory with its tokenizer.json, if transformers is installed.

    Raises: FormatError: `invalid_value`: they give different ids.
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
        path = final_name(directory) / "tokenizer.json"
        got = f"not the tokenizer that transformers loads ({difference})"
        hint = "remove the tokens from tokenizer_config.json that tokenizer.json does not have"
        raise mismatch(path, "invalid_value", got, "the same ids from both", hint=hint)


def _inputs(source: Path, directory: Path) -> list[dict[str, Any]]:
    paths = [source] if (source / MANIFEST).is_file() else [path for path in sorted(source.iterdir()) if path.is_file()]
    return [input_row("checkpoint", path, directory) for path in paths]


def logit_difference(ours: Path, reference: Path) -> tuple[float, float]:
    """The largest difference between our logits and transformers' on random tokens, and the largest logit; float32.

    The difference is not finite if any logit is not.
    """
    import transformers

    model, _ = read_model(ours)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(reference, dtype=torch.float32)
    draw = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(0, model.shape.embedding_rows, (2, 64), generator=draw)
    with torch.no_grad():
        expected = theirs(tokens_BT).logits
        return float((model.logits(tokens_BT) - expected).abs().max()), float(expected.abs().max())

"""A checkpoint from a model of others, and the proof that two programs compute the same."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..config.errors import ConfigError, Problem
from ..data.sources import SpecialTokens, input_row
from ..formats.files import sha256_of
from ..formats.inspection import InspectionError, open_tokenizer
from ..formats.manifest import MANIFEST, write_manifest
from ..model.architecture import architecture_of
from ..model.transformer import Transformer
from .beside import check_tokenizer, keep_beside
from .foreign import Foreign, read_foreign
from .layout import ARCHITECTURES, generation_json, model_json, published_shapes, tokenizer_json
from .restore import read_model
from .save import DTYPES, publish, write_json, write_weights, writer
from .weights import check_finite, dtype_of_most, needed_weights

__all__ = ["import_checkpoint", "logit_difference"]

log = logging.getLogger(__name__)

_THEIRS = ("attention_dropout", "initializer_range", "use_cache", "output_router_logits")  # no part of our model
# of a configuration: what names code that is not copied, and what a reader writes anew
_LEFT_OUT = ("auto_map", "_name_or_path", "transformers_version", "torch_dtype", "rope_scaling", "rope_parameters")


def import_checkpoint(
    source: Path,
    destination: Path,
    dtype: str | None,
    shard_bytes: int | None,
    tokenizer: Path | None,
    check: Callable[[Path, Foreign], None] | None = None,
) -> Foreign:
    """Write a checkpoint of ours from a Hugging Face, OLMo or OLMo-core directory.

    What it had beside the weights stays, and each tensor's dtype unless one is given. `check` sees the directory before
    it gets its name.
    Raises: ConfigError: a model that this trainer does not have, or no tokenizer; FormatError: damaged files.
    """
    foreign = read_foreign(source)
    tokenizer = tokenizer or source / "tokenizer.json"
    try:
        opened = open_tokenizer(tokenizer)
    except InspectionError as error:
        hint = error.hint or "name one with --tokenizer"
        raise ConfigError(Problem(f"{error.path}: {error.message}", hint)) from error
    if foreign.eos is None:
        raise ConfigError(Problem(f"{source}: eos_token_id is not told; expected the id that ends a document"))
    special = SpecialTokens(eos=foreign.eos, bos=foreign.bos, pad=foreign.pad)
    shape = architecture_of(foreign.model, 0)
    largest = max(opened.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= shape.embedding_rows:
        rows = f"the embedding of {shape.embedding_rows} rows"
        log.warning("%s: has ids up to %d, beyond %s; texts with them cannot be read", tokenizer, largest, rows)
    with torch.device("meta"):
        needed = published_shapes(Transformer(shape).state_dict(), shape)
    weights = needed_weights(foreign.weights, needed, source)
    if dtype is not None:
        weights = {name: tensor.to(DTYPES[dtype]) for name, tensor in weights.items()}
    check_finite(weights, source)
    main_dtype = dtype_of_most(weights)
    with publish(destination) as temporary:
        write_weights(temporary, weights, shard_bytes)
        kept = {name: value for name, value in foreign.config.items() if name not in _LEFT_OUT}
        config = {**kept, **model_json(shape, special, foreign.max_positions, main_dtype), **foreign.stops}
        write_json(temporary / "config.json", {**config, **{name: kept[name] for name in _THEIRS if name in kept}})
        write_json(temporary / "generation_config.json", {**generation_json(special), **foreign.stops})
        write_json(temporary / "tokenizer_config.json", tokenizer_json(opened, special, foreign.max_positions))
        keep_beside(source, temporary)
        shutil.copyfile(tokenizer, temporary / "tokenizer.json")
        check_tokenizer(temporary, destination)
        write_manifest(
            temporary,
            format="checkpoint",
            writer=writer(),
            config={"dtype": main_dtype},
            counts={"parameters": sum(tensor.numel() for tensor in weights.values()), "tensors": len(weights)},
            details={
                "architecture": ARCHITECTURES[shape.family],
                "dtype": main_dtype,
                "stage": "pretrain",
                "step": 0,
                "tokens_seen": 0,
                "tokenizer_sha256": sha256_of(temporary / "tokenizer.json"),
            },
            inputs=_inputs(source, destination),
        )
        if check is not None:
            check(temporary, foreign)
    return foreign


def _inputs(source: Path, destination: Path) -> list[dict[str, Any]]:
    paths = [source] if (source / MANIFEST).is_file() else [path for path in sorted(source.iterdir()) if path.is_file()]
    return [input_row("checkpoint", path, destination) for path in paths]


def logit_difference(ours: Path, reference: Path) -> tuple[float, float]:
    """The largest difference between our logits and transformers' on random tokens, and the largest logit; float32.

    Infinite where either has a logit that is not finite.
    Raises: ConfigError: transformers is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        hint = "pip install 'olmo-trainer[convert]'"
        raise ConfigError(Problem("--verify: transformers is not installed; expected it", hint)) from error
    model, _ = read_model(ours)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(reference, dtype=torch.float32)
    draw = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(0, model.shape.embedding_rows, (2, 64), generator=draw)
    with torch.no_grad():
        expected = theirs(tokens_BT).logits
        apart, largest = (model.logits(tokens_BT) - expected).abs().max(), expected.abs().max()
    return (float(apart) if torch.isfinite(apart) else math.inf), float(largest)

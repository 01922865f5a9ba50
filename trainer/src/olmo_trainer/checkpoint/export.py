"""A checkpoint for others to use: without `training/`, in another dtype if asked."""

from __future__ import annotations

from pathlib import Path

from ..data.sources import input_row
from ..formats.checkpoint import open_checkpoint
from ..formats.fields import mismatch
from .convert import check_tokenizer
from .save import copy_sidecars, describe_checkpoint, write_json, write_weights
from .weights import cast, dtype_of_most, stored_weights

__all__ = ["export_checkpoint"]


def export_checkpoint(source: Path, directory: Path, dtype: str | None, shard_bytes: int | None = None) -> None:
    """Copy a checkpoint to an empty directory, without what only continues training.

    Each weight keeps its dtype unless one is given; weights are in files of at most `shard_bytes`, or in one.
    Raises: FormatError: the source is damaged or has no manifest.
    """
    opened = open_checkpoint(source)
    if opened.manifest is None:
        raise mismatch(source / "manifest.json", "missing_file", "missing", "a checkpoint with a manifest")
    weights = cast(stored_weights(opened), dtype, source)
    main_dtype = dtype_of_most(weights)
    write_weights(directory, weights, shard_bytes)
    write_json(directory / "config.json", {**opened.config, "dtype": main_dtype})
    copy_sidecars(source, directory)
    check_tokenizer(directory)
    details = {**opened.manifest.details, "dtype": main_dtype}
    inputs = [input_row("checkpoint", source, directory)]
    describe_checkpoint(directory, weights, {"dtype": main_dtype}, details, inputs)

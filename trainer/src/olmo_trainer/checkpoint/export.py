"""A checkpoint for others to use: without `training/`, in another dtype if asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..data.sources import input_row
from ..formats.checkpoint import open_checkpoint
from ..formats.errors import FormatError
from ..formats.files import sha256_of
from ..formats.manifest import write_manifest
from .beside import check_tokenizer, keep_beside
from .save import DTYPES, publish, write_json, write_weights, writer
from .weights import check_finite, dtype_of_most, stored_weights

__all__ = ["export_checkpoint"]


def export_checkpoint(
    source: Path,
    destination: Path,
    dtype: str | None,
    shard_bytes: int | None = None,
    check: Callable[[Path], None] | None = None,
) -> str:
    """Copy a checkpoint without what only continues training; returns the identity of the copy.

    Weights are in files of at most `shard_bytes`, or in one; each keeps its dtype unless one is given. `check` sees the
    directory before it gets its name.

    Raises: FormatError: the source is damaged or has no manifest.
    """
    opened = open_checkpoint(source)
    if opened.manifest is None:
        raise FormatError(source / "manifest.json", "missing_file", "missing", "a checkpoint with a manifest")
    weights = stored_weights(opened)
    if dtype is not None:
        weights = {name: tensor.to(DTYPES[dtype]) for name, tensor in weights.items()}
        check_finite(weights, source)
    main_dtype = dtype_of_most(weights)
    with publish(destination) as temporary:
        write_weights(temporary, weights, shard_bytes)
        write_json(temporary / "config.json", {**opened.config, "dtype": main_dtype})
        keep_beside(source, temporary)
        check_tokenizer(temporary, destination)
        identity = write_manifest(
            temporary,
            format="checkpoint",
            writer=writer(),
            config={"dtype": main_dtype},
            counts={"parameters": sum(tensor.numel() for tensor in weights.values()), "tensors": len(weights)},
            details={
                **opened.manifest.details,
                "dtype": main_dtype,
                "tokenizer_sha256": sha256_of(temporary / "tokenizer.json"),
            },
            inputs=[input_row("checkpoint", source, destination)],
        )
        if check is not None:
            check(temporary)
    return identity

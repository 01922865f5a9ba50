"""`olmo convert`."""

from __future__ import annotations

import argparse
import importlib.util
import math
import re
import sys
from pathlib import Path

from ..config.errors import ConfigError, Problem
from .request import Verbs, existing, last_of_run, new, place

__all__ = ["add"]

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_TOLERANCE = 1e-4  # of the largest logit: float32 sums over some dozens of layers in another order


def add(verbs: Verbs) -> None:
    """Add the verb and its two directions."""
    convert = verbs.add_parser("convert", help="read a model of others, or write one for others, and prove it equal")
    directions = convert.add_subparsers(dest="direction", required=True, metavar="DIRECTION")
    source = "directory in Hugging Face's layout, or OLMo's or OLMo-core's own"
    inwards = directions.add_parser("hf2olmo", help=f"a checkpoint to begin from, from a {source}")
    inwards.add_argument("source", type=place, help=source)
    inwards.add_argument("--tokenizer", type=place, help="tokenizer.json, if the source has none")
    outwards = directions.add_parser("olmo2hf", help="a Hugging Face directory from a checkpoint of ours")
    outwards.add_argument("source", type=place, help="checkpoint directory, or that of a run for its last one")
    for direction in (inwards, outwards):
        direction.add_argument("destination", type=place, help="directory to write")
        direction.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the weights; unchanged by default")
        direction.add_argument("--shard-size", metavar="SIZE", help='"5GB": weights in files of at most so many bytes')
        direction.add_argument("--verify", action="store_true", help="compare logits with transformers")
        direction.set_defaults(work=_convert)


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)\s*([KMG]B|)", text.upper())
    if match is None or not int(match[1]):
        raise ConfigError(Problem(f'--shard-size: is "{text}"; expected a size as "5GB" or "500MB"'))
    return int(match[1]) * _UNITS[match[2]]


def _convert(arguments: argparse.Namespace) -> None:
    shard_bytes = _bytes(arguments.shard_size)
    inwards = arguments.direction == "hf2olmo"
    source = existing(arguments.source, "a directory with a model")
    source = source if inwards else last_of_run(source)
    destination = new(arguments.destination)
    if arguments.verify and importlib.util.find_spec("transformers") is None:
        hint = "pip install 'olmo-trainer[convert]'"
        raise ConfigError(Problem("--verify: transformers is not installed; expected it to compare logits with", hint))

    from ..checkpoint.convert import import_checkpoint
    from ..checkpoint.export import export_checkpoint
    from ..checkpoint.save import publish

    with publish(destination) as directory:
        if inwards:
            foreign = import_checkpoint(source, directory, arguments.dtype, shard_bytes, arguments.tokenizer)
            is_readable = bool(foreign.config)
        else:
            export_checkpoint(source, directory, arguments.dtype, shard_bytes)
            is_readable = True
        if arguments.verify:
            # compare across the conversion, unless transformers cannot read the source or its weights were rounded
            other = source if is_readable and arguments.dtype is None else directory
            _verify(*((directory, other) if inwards else (other, directory)))
    sys.stdout.write(f"{destination}\n")


def _verify(ours: Path, theirs: Path) -> None:
    """Compare our logits on one directory with those of transformers on another.

    Raises: RuntimeError: they differ.
    """
    from ..checkpoint.convert import logit_difference
    from ..checkpoint.save import final_name

    difference, largest = logit_difference(ours, theirs)
    is_finite = math.isfinite(difference)
    told = f"logits differ by up to {difference:.1e}; the largest is {largest:.3g}" if is_finite else "logits overflow"
    shown, reference = final_name(ours), final_name(theirs)
    if not is_finite or difference > _TOLERANCE * max(1.0, largest):
        raise RuntimeError(f"{shown}: {told}; expected those of transformers on {reference}; nothing was written")
    sys.stderr.write(f"verified: {told}: olmo on {shown}, transformers on {reference}\n")

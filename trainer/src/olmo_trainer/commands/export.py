"""`olmo export`."""

from __future__ import annotations

import argparse
import sys

from .request import Verbs, existing, last_of_run, new, place

__all__ = ["add"]


def add(verbs: Verbs) -> None:
    """Add the verb."""
    export = verbs.add_parser("export", help="copy a checkpoint without what only continues training")
    export.add_argument("checkpoint", type=place, help="checkpoint directory, or that of a run for its last one")
    export.add_argument("destination", type=place, help="directory to write")
    export.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the weights; as they are by default")
    export.set_defaults(work=_export)


def _export(arguments: argparse.Namespace) -> None:
    source = last_of_run(existing(arguments.checkpoint, "a checkpoint directory, or that of a run"))
    destination = new(arguments.destination)
    from ..checkpoint.export import export_checkpoint
    from ..checkpoint.save import publish

    with publish(destination) as directory:
        export_checkpoint(source, directory, arguments.dtype)
    sys.stdout.write(f"{destination}\n")

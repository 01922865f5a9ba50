"""`olmo fetch`."""

from __future__ import annotations

import argparse
import sys

from .request import Verbs, new, place

__all__ = ["add"]


def add(verbs: Verbs) -> None:
    """Add the verb."""
    fetch = verbs.add_parser("fetch", help="bring a checkpoint from a store, to begin from, convert or generate with")
    fetch.add_argument("url", help="a checkpoint, or a run for its last one: checkpoint.remote, as s3://bucket/run")
    fetch.add_argument("destination", type=place, help="directory to write")
    fetch.set_defaults(work=_fetch)


def _fetch(arguments: argparse.Namespace) -> None:
    destination = new(arguments.destination)
    from ..checkpoint.mirror import fetch

    fetch(arguments.url, destination)
    sys.stdout.write(f"{destination}\n")

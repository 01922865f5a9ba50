"""`olmo soup`."""

from __future__ import annotations

import argparse
import sys

from ..config.errors import ConfigError, Problem
from .request import Verbs, existing, last_of_run, new, place

__all__ = ["add"]


def add(verbs: Verbs) -> None:
    """Add the verb."""
    soup = verbs.add_parser("soup", help="average the weights of checkpoints of one model")
    soup.add_argument("checkpoints", type=place, nargs="+", help="checkpoints, or runs for their last ones")
    soup.add_argument("destination", type=place, help="directory to write")
    soup.set_defaults(work=_soup)


def _soup(arguments: argparse.Namespace) -> None:
    what = "a checkpoint directory, or that of a run"
    sources = [last_of_run(existing(path, what)) for path in arguments.checkpoints]
    if len(sources) < 2:
        raise ConfigError(Problem(f"command line: names {len(sources)} checkpoint; expected two or more to average"))
    destination = new(arguments.destination)
    from ..checkpoint.soup import average_checkpoints

    average_checkpoints(sources, destination)
    sys.stdout.write(f"{destination}\n")

"""`olmo import-config`."""

from __future__ import annotations

import argparse
import sys

from ..config.errors import ConfigError, Problem
from .request import Verbs, existing, place

__all__ = ["add"]


def add(verbs: Verbs) -> None:
    """Add the verb."""
    imported = verbs.add_parser("import-config", help="print a run file of allenai/OLMo in this trainer's words")
    imported.add_argument("file", type=place, help="YAML file of OLMo")
    imported.add_argument(
        "--replace",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="in the paths of data, as a remote place by a local",
    )
    imported.set_defaults(work=_import)


def _import(arguments: argparse.Namespace) -> None:
    from ..config.official_run import import_run

    pairs = [tuple(text.partition("=")[::2]) for text in arguments.replace]
    if any(not old or not new for old, new in pairs):
        raise ConfigError(Problem(f"--replace: is {arguments.replace}; expected OLD=NEW"))
    text, notes = import_run(existing(arguments.file, "a YAML file of OLMo"), pairs)
    for note in notes:
        sys.stderr.write(f"note: {note}\n")
    sys.stdout.write(text)

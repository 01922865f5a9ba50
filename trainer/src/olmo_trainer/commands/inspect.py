"""`olmo inspect`."""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice

from ..config.errors import ConfigError, Problem
from .request import Verbs, existing, place

__all__ = ["add"]


def add(verbs: Verbs) -> None:
    """Add the verb."""
    inspect = verbs.add_parser("inspect", help="which documents were in a step, or in which steps a document was")
    inspect.add_argument("run", type=place, help="directory of a run, or its order.json alone")
    asked = inspect.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "--step", type=int, nargs="+", help="print a JSON line for each stretch of a document in the steps"
    )
    asked.add_argument("--document", metavar="ID", help="print the steps that saw this document")
    asked.add_argument("--data-indices", type=place, metavar="DIR", help="write OLMo's rank<r>.tsv.gz of all steps")
    inspect.add_argument("--rank", type=int, help="rank whose part of the step is wanted (all by default)")
    inspect.add_argument("--world-size", type=int, help="ranks that divided the batch (as in order.json)")
    inspect.add_argument(
        "--data", type=place, action="append", default=[], help="where a source's shards are now, in order"
    )
    inspect.add_argument("--documents", type=place, help="directory of the document files: adds their source and URL")
    inspect.add_argument("--text", action="store_true", help="print the text too, as the model saw it")
    inspect.add_argument("--limit", type=int, help="print so many lines at most")
    inspect.add_argument("--unchecked", action="store_true", help="do not hold the shards against their sha256")
    inspect.set_defaults(work=_inspect)


def _inspect(arguments: argparse.Namespace) -> None:
    from ..data.order_manifest import open_order
    from ..data.provenance import Provenance

    for name in ("limit", "world_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ConfigError(Problem(f"--{name.replace('_', '-')}: is {value}; expected 1 or more"))
    known = open_order(existing(arguments.run, "the directory of a run"), arguments.data, unchecked=arguments.unchecked)
    provenance = Provenance(
        known, unchecked=arguments.unchecked, documents=arguments.documents, world_size=arguments.world_size
    )
    if arguments.data_indices is not None:
        provenance.write_data_indices(arguments.data_indices)
        return
    if arguments.document is not None:
        found = provenance.steps_of_document(arguments.document, text=arguments.text)
    else:
        found = (
            row
            for step in arguments.step
            for row in provenance.documents_of_step(step, arguments.rank, text=arguments.text)
        )
    for row in islice(found, arguments.limit):
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")

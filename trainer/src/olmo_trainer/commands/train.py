"""`olmo train` and `olmo init`."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys

from ..config.errors import ConfigError, Problem
from .request import Verbs, add_config, new, place, read_request

__all__ = ["add"]


def add(verbs: Verbs) -> None:
    """Add the verbs."""
    train = verbs.add_parser("train", help="train a model; the same command continues a run that was stopped")
    add_config(train)
    train.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings that replace the file's")
    train.add_argument(
        "--dry-run", action="store_true", help="print parameters, operations, memory, time and batches, and stop"
    )
    train.add_argument("--json", action="store_true", help="with --dry-run: print one JSON object instead of a page")
    train.add_argument("--ranks", type=int, help="with --dry-run: processes that share the work")
    train.add_argument(
        "--tokens-per-second", type=float, help="with --dry-run: pace of all of them, for time and energy"
    )
    train.set_defaults(work=_train)
    init = verbs.add_parser("init", help="write the untrained model of a config, to compare with")
    add_config(init)
    init.add_argument("destination", type=place, help="directory to write")
    init.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings that replace the file's")
    init.set_defaults(work=_init)


def _check(arguments: argparse.Namespace) -> None:
    pace, ranks = arguments.tokens_per_second, arguments.ranks
    problems = []
    if pace is not None and not 0 < pace < math.inf:
        problems.append(Problem(f"--tokens-per-second: is {pace}; expected a finite number above 0"))
    if ranks is not None and ranks < 1:
        problems.append(Problem(f"--ranks: is {ranks}; expected 1 or more"))
    given = [
        flag for flag, value in (("--json", arguments.json), ("--ranks", ranks), ("--tokens-per-second", pace)) if value
    ]
    if given and not arguments.dry_run:
        problems.append(Problem(f"{given[0]}: is given without --dry-run; expected both", "add --dry-run"))
    if problems:
        raise ConfigError(*problems)


def _train(arguments: argparse.Namespace) -> None:
    _check(arguments)
    config, data, where = read_request(arguments)
    if arguments.dry_run:
        from ..build import plan

        pace = arguments.tokens_per_second
        told = plan(config, data, where, ranks=arguments.ranks, tokens_per_second=pace)
        if not arguments.json:
            from ..metrics.dry_run import page

            sys.stdout.write(page(told))
            return
        sys.stdout.write(json.dumps(told, indent=2, allow_nan=False) + "\n")
        return
    from ..train import train

    final = train(config, data, where)
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(f"{final}\n")


def _init(arguments: argparse.Namespace) -> None:
    config, data, where = read_request(arguments)
    destination = new(arguments.destination)
    from ..build import write_initial

    write_initial(config, data, destination, where)
    sys.stdout.write(f"{destination}\n")

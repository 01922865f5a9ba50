"""`olmo report`."""

from __future__ import annotations

import argparse
import sys

from .request import Verbs, existing, place

__all__ = ["add"]


def add(verbs: Verbs) -> None:
    """Add the verb."""
    report = verbs.add_parser("report", help="write one HTML page of a run: curves, config, data, lineage, energy")
    report.add_argument("run", type=place, help="directory of a run, done or under way")
    report.add_argument("--output", type=place, help="file to write (default: report.html in the run)")
    report.set_defaults(work=_report)


def _report(arguments: argparse.Namespace) -> None:
    existing(arguments.run / "metrics.jsonl", "the metrics of a run")
    from ..formats.files import write_atomically
    from ..metrics.report import render_report

    destination = arguments.output or arguments.run / "report.html"
    write_atomically(destination, render_report(arguments.run).encode())
    sys.stdout.write(f"{destination}\n")

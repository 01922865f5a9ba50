"""``dolma stat``: how the scores and lengths of attributes are distributed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dolma import _native
from dolma.config import WorkDir, setting
from dolma.errors import Problem, raises_dolma_errors
from dolma.files.paths import expand
from dolma.places import InputPattern, OutputDirectory
from dolma.records import Reporter, count_text, save_config
from dolma.staging import with_remote_paths

__all__ = ["Config", "run"]

log = logging.getLogger(__name__)

QUANTILES = ("1%", "5%", "25%", "50%", "75%", "95%", "99%")
BAR_WIDTH = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``dolma stat``."""

    attributes: list[InputPattern] = setting([], "attribute files or patterns")
    report: OutputDirectory | None = setting(None, "directory for summaries.jsonl.gz")
    bins: int = setting(1000, "maximum number of bins of a histogram in the report")
    processes: int = setting(1, "number of threads; the output does not depend on it")
    seed: int = setting(0, "accepted for configurations of dolma 1.x; nothing is random here")
    total: bool = setting(False, "also print the number and the sum of the values")
    debug: bool = setting(False, "accepted for configurations of dolma 1.x; not used")
    regex: str | None = setting(None, "only attributes whose key matches this regular expression")
    work_dir: WorkDir = setting(WorkDir(), "")

    def check(self) -> Iterator[Problem]:
        """What is wrong between the settings."""
        for key in ("bins", "processes"):
            if getattr(self, key) < 1:
                yield Problem(key, f"is {getattr(self, key)}; expected at least 1")
        if self.regex is not None:
            try:
                re.compile(self.regex)
            except re.error as error:
                yield Problem("regex", f'is "{self.regex}", which is not a regular expression: {error}')


@with_remote_paths()
@raises_dolma_errors
def run(config: Config) -> None:
    """Prints the distributions to stdout, and writes the report where one is wanted."""
    sources = expand(config.attributes, "attributes")
    settings = {
        "files": [source.path for source in sources],
        "regex": config.regex,
        "bins": config.bins,
        "report": config.report,
        "threads": config.processes,
    }
    directories = [] if config.report is None else [Path(config.report)]
    reporter = Reporter("stat", directories)
    start = time.monotonic()
    report: dict[str, Any] = json.loads(_native.stat(json.dumps(settings), reporter))
    save_config(config, directories)
    sys.stdout.write("".join(line + "\n" for line in _lines(report["rows"], config.total)))
    if not report["rows"]:
        log.warning("stat  no attribute was found%s", f" whose key matches {config.regex}" if config.regex else "")
    for key, count in report["others"].items():
        log.warning('stat  %s values of "%s" are neither spans nor numbers; they are not counted', f"{count:,}", key)
    counts = {"documents": report["documents"], "rows": len(report["rows"])}
    text = f"{count_text(report['documents'])} documents, {len(report['rows'])} distributions"
    reporter.finish(time.monotonic() - start, counts, text)


def _lines(rows: list[dict[str, Any]], total: bool) -> Iterator[str]:
    for row in rows:
        yield row["name"]
        if total:
            yield f"  values {row['total']:,}  sum {_number(row['sum'])}"
        shares = zip(("least", *QUANTILES, "most"), (row["least"], *row["quantiles"], row["most"]), strict=True)
        yield "  " + "  ".join(f"{name} {_number(value)}" for name, value in shares)
        counts, edges = row["histogram"]
        labels = [f"[{_number(low)}, {_number(high)})" for low, high in itertools.pairwise(edges)]
        width = max(map(len, labels))
        for label, count in zip(labels, counts, strict=True):
            bar = "#" * round(BAR_WIDTH * count / max(counts))
            yield f"  {label:<{width}}  {count:>10,}  {count / row['total']:7.2%}  {bar}".rstrip()
        yield ""


def _number(value: float) -> str:
    """Five significant digits at most."""
    return f"{value:.5g}" if abs(value) < 1e5 or value != int(value) else f"{value:,.0f}"


if __name__ == "__main__":  # `python -m dolma.commands.stat` is `dolma stat`
    from dolma.__main__ import main

    main(["stat", *sys.argv[1:]])

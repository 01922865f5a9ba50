"""`paloma build | check | aggregate | report`."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from paloma import __version__
from paloma.configuration import ConfigError
from paloma.formats.errors import FormatError

__all__ = ["main"]

_RANKS = ("bpb", "ppl")
_EXAMPLES = """examples:
  paloma build --documents documents --output sample --bytes-per-domain 100000
  paloma check results --controls controls.yaml --output submission
  paloma aggregate submission/submission.json other-results --output aggregate
  paloma report aggregate --output page
"""


def _path(text: str) -> Path:
    """`~` is the home directory, also after `--output=` where no shell expands it."""
    return Path(text).expanduser()


def _output(text: str) -> Path:
    """A path to write to. A shell passes on a pattern that matches nothing; it would become the name."""
    if "*" in text or "?" in text:
        raise argparse.ArgumentTypeError(f"{text} is a pattern; expected one path")
    return _path(text)


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="paloma",
        description="The perplexity benchmark: sample domains, judge runs, aggregate results.",
        epilog=_EXAMPLES,
        formatter_class=formatter,
    )
    parser.add_argument("--version", action="version", version=f"paloma-eval {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    build = commands.add_parser("build", help="a stratified sample of every domain, in Paloma's layout")
    build.add_argument(
        "--documents", type=_path, nargs="+", required=True, metavar="PATH", help="document directories or files"
    )
    build.add_argument("--output", type=_output, required=True, help="a new directory")
    build.add_argument("--config", type=_path, help="a YAML file of the settings below; flags win over it")
    build.add_argument("--tokenizer", type=_path, help="tokenizer.json that counts tokens")
    build.add_argument("--tokens-per-domain", type=int, help="target of each domain in each split")
    build.add_argument("--bytes-per-domain", type=int, help="target in UTF-8 bytes instead")
    build.add_argument("--min-documents-per-domain", type=int, help="leave out domains with fewer in any split (1)")
    build.add_argument("--min-size-per-domain", type=int, help="leave out domains with less in any split (0)")
    build.add_argument("--seed", type=int, help="another seed is another sample (0)")
    build.add_argument("--splits", nargs="+", help="names of disjoint splits (val test)")
    build.add_argument("--whole-documents", action="store_true", default=None, help="do not cut the last document")
    build.add_argument("--default-source", help="source of documents that name none")

    build.add_argument("--one-domain", nargs="+", metavar="SOURCE", help="sources whose subdomains are not told apart")

    check = commands.add_parser("check", help="how comparable a run is: tiers A to D with reasons")
    check.add_argument("results", type=_path, nargs="+", metavar="RESULTS", help="results or submissions")
    check.add_argument("--controls", type=_path, help="YAML: what the run declares")
    check.add_argument("--output", type=_output, help="a new directory for submission.json (one RESULTS)")

    aggregate = commands.add_parser("aggregate", help="numbers per domain, per source and over all")
    aggregate.add_argument("results", type=_path, nargs="+", metavar="RESULTS", help="results or submissions")
    aggregate.add_argument("--output", type=_output, required=True, help="a new directory")
    aggregate.add_argument("--controls", type=_path, help="YAML: what all of these runs declare")
    aggregate.add_argument("--rank-by", choices=_RANKS, default="bpb", help="ppl only where the tokenizer is the same")

    report = commands.add_parser("report", help="one HTML page of one or more aggregates")
    report.add_argument(
        "aggregates", type=_path, nargs="+", metavar="AGGREGATE", help="directories of paloma aggregate"
    )
    report.add_argument("--output", type=_output, required=True, help="a new directory")
    report.add_argument("--title", default="Perplexity by domain", help="heading of the page")

    for command in (build, check, aggregate, report):
        command.add_argument("--overwrite", action="store_true", help="replace an artifact that stands at --output")
    return parser


def _run(flags: argparse.Namespace) -> str:
    inputs = {"build": "documents", "report": "aggregates"}.get(flags.command, "results")
    missing = [path for path in getattr(flags, inputs) if not path.exists()]
    if missing:
        raise ConfigError([f"{path}: not found; expected {inputs}" for path in missing], "check the path")
    if flags.command == "build":
        return _build(flags)
    if flags.command == "check":
        from paloma.check import check

        return check(flags.results, flags.controls, flags.output, overwrite=flags.overwrite)
    if flags.command == "aggregate":
        from paloma.aggregate import aggregate

        return aggregate(
            flags.results, flags.output, controls=flags.controls, rank_by=flags.rank_by, overwrite=flags.overwrite
        )
    from paloma.report import report

    return report(flags.aggregates, flags.output, flags.title, overwrite=flags.overwrite)


def _build(flags: argparse.Namespace) -> str:
    from dataclasses import fields

    from paloma.build import BuildConfig, build
    from paloma.configuration import build as configure
    from paloma.configuration import read_yaml

    values: dict[str, Any] = read_yaml(flags.config) if flags.config else {}
    given = {field.name: getattr(flags, field.name) for field in fields(BuildConfig)}
    values |= {name: value for name, value in given.items() if value is not None}
    config = configure(BuildConfig, values, str(flags.config) if flags.config else "build")
    return build(flags.documents, flags.output, config, flags.tokenizer, overwrite=flags.overwrite)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 done, 1 the work failed, 2 the request was wrong."""
    flags = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    try:
        sys.stdout.write(_run(flags) + "\n")
    except ConfigError as error:
        for problem in error.problems:
            sys.stderr.write(f"error: {problem}\n")
        sys.stderr.write(f"hint: {error.hint}\n")
        return 2
    except FormatError as error:
        hint = error.hint or "python -m paloma.formats validate lists every error of an artifact"
        sys.stderr.write(f"error: {error}\nhint: {hint}\n")
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"error: {place}{error.strerror or error}\nhint: check the disk and its permissions\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

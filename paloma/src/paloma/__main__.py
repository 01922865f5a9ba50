"""`paloma build | check | aggregate | report`."""

import argparse
import ast
import dataclasses
import inspect
import logging
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from paloma import __version__
from paloma.configuration import ConfigError
from paloma.formats.contract import FormatError

__all__ = ["main"]

_EXAMPLES = """examples:
  paloma build --documents documents --output sample --bytes-per-domain 100000
  paloma check results --controls controls.yaml --output submission
  paloma aggregate submission/submission.json other-results --output aggregate
  paloma report aggregate --output page
"""


# ---- arguments


def _path(text: str) -> Path:
    """`~` is the home directory, also after `--output=` where no shell expands it."""
    return Path(text).expanduser()


def _output(text: str) -> Path:
    """A path to write to. A shell passes on a pattern that matches nothing; it would become the name."""
    if "*" in text or "?" in text:
        raise argparse.ArgumentTypeError(f"{text} is a pattern; expected one path")
    return _path(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paloma",
        description="The perplexity benchmark: sample domains, check how comparable runs are, aggregate results.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"paloma-eval {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    output: dict[str, Any] = {"type": _output, "metavar": "DIR", "help": "a new directory"}
    results: dict[str, Any] = {"type": _path, "nargs": "+", "metavar": "RESULTS", "help": "results or submissions"}

    _add_build(commands.add_parser("build", help="sample every domain evenly, in Paloma's layout"), output)

    check = commands.add_parser("check", help="report how comparable a run is: tiers A to D with reasons")
    check.add_argument("results", **results)
    check.add_argument("--controls", type=_path, metavar="YAML", help="what the run declares")
    check.add_argument("--output", **output | {"help": "a new directory for submission.json (of one RESULTS)"})

    aggregate = commands.add_parser("aggregate", help="compute numbers per domain, per source and over all")
    aggregate.add_argument("results", **results)
    aggregate.add_argument("--output", required=True, **output)
    aggregate.add_argument("--controls", type=_path, metavar="YAML", help="what all of these runs declare")
    text = "metric of the ranking; ppl only for models with the same tokenizer (default: %(default)s)"
    aggregate.add_argument("--rank-by", choices=("bpb", "ppl"), default="bpb", help=text)

    report = commands.add_parser("report", help="write one HTML page about one or more aggregates")
    text = "directories written by paloma aggregate"
    report.add_argument("aggregates", type=_path, nargs="+", metavar="AGGREGATE", help=text)
    report.add_argument("--output", required=True, **output)
    text = "heading of the page (default: %(default)s)"
    report.add_argument("--title", default="Perplexity by domain", help=text)

    for command in commands.choices.values():
        command.add_argument("--overwrite", action="store_true", help="replace an artifact at --output")
    return parser


def _add_build(build: argparse.ArgumentParser, output: dict[str, Any]) -> None:
    """A flag for each field of `BuildConfig`, with the field's docstring and default as its help."""
    from paloma.build import BuildConfig

    text = "document directories or files"
    build.add_argument("--documents", type=_path, nargs="+", required=True, metavar="PATH", help=text)
    build.add_argument("--output", required=True, **output)
    build.add_argument("--config", type=_path, metavar="YAML", help="file of the settings below; flags override it")
    build.add_argument("--tokenizer", type=_path, metavar="FILE", help="tokenizer.json that counts tokens")
    options: dict[str, dict[str, Any]] = {
        "splits": {"nargs": "+", "metavar": "NAME"},
        "whole_documents": {"action": "store_true"},
        "default_source": {"metavar": "SOURCE"},
        "one_domain": {"nargs": "+", "metavar": "SOURCE"},
    }
    for name, text in _field_help(BuildConfig).items():
        option = options.get(name, {"type": int, "metavar": "N"})
        build.add_argument(f"--{name.replace('_', '-')}", default=None, help=text, **option)


def _field_help(kind: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, followed by its default."""
    (owner,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(owner, ast.ClassDef)
    texts = {
        field.target.id: text.value.value
        for field, text in pairwise(owner.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }
    found = {}
    for field in dataclasses.fields(kind):
        default: Any = field.default
        found[field.name] = str(texts[field.name])
        if default not in (None, "", (), False) or type(default) is int:
            shown = " ".join(default) if isinstance(default, tuple) else default
            found[field.name] += f" (default: {shown})"
    return found


# ---- commands


def _run(flags: argparse.Namespace) -> str:
    inputs = {"build": "documents", "report": "aggregates"}.get(flags.command, "results")
    missing = [path for path in getattr(flags, inputs) if not path.exists()]
    if missing:
        raise ConfigError([f"{path}: not found; expected {inputs}" for path in missing], "check the path")
    if flags.command == "build":
        return _build(flags)
    if flags.command == "check":
        from paloma.controls import check

        return check(flags.results, flags.controls, flags.output, overwrite=flags.overwrite)
    if flags.command == "aggregate":
        from paloma.aggregate import aggregate

        return aggregate(
            flags.results, flags.output, controls=flags.controls, rank_by=flags.rank_by, overwrite=flags.overwrite
        )
    from paloma.report import report

    return report(flags.aggregates, flags.output, flags.title, overwrite=flags.overwrite)


def _build(flags: argparse.Namespace) -> str:
    from paloma.build import BuildConfig, build
    from paloma.configuration import build as configure
    from paloma.configuration import read_yaml

    values: dict[str, Any] = read_yaml(flags.config) if flags.config else {}
    given = {field.name: getattr(flags, field.name) for field in dataclasses.fields(BuildConfig)}
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
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"error: {where}{error.strerror or error}\nhint: check the disk and its permissions\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

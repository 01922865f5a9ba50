"""`paloma suite | build | check | aggregate | report`."""

import argparse
import dataclasses
import logging
import sys
from typing import Any

from paloma import __version__
from paloma.formats.contract import ConfigError, FormatError, report_error
from paloma.settings import field_help, home_path, output_path, rename_flags
from paloma.suite import VIEWS, overview

__all__ = ["main"]

_EXAMPLES = """examples:
  paloma build --documents documents --output-dir sample --bytes-per-domain 100000
  paloma check results --controls controls.yaml --output-dir submission
  paloma aggregate submission/submission.json other-results --output-dir aggregate
  paloma report aggregate --output-dir page
"""


# ---- arguments

_FORMER_FLAGS = {"--output": "--output-dir"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paloma",
        description="Measure perplexity over many domains: sample, check, aggregate and report.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"paloma-eval {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")

    output: dict[str, Any] = {"type": output_path, "metavar": "DIR", "help": "new directory to write"}
    results: dict[str, Any] = {
        "type": home_path,
        "nargs": "+",
        "metavar": "RESULTS",
        "help": "directories written by catwalk run, or submissions of paloma check",
    }

    suite = add("suite", "print Paloma's own sources, with their domains, tokens and licences")
    views = "; ".join(f"{name}: {text}" for name, text in VIEWS.items())
    suite.add_argument("--view", choices=tuple(VIEWS), default="all", help=f"{views} (default: all)")

    _add_build(add("build", "sample every domain evenly, in Paloma's layout"), output)

    check = add("check", "check documents, results or a submission; a tier from A to D for the latter two")
    text = "directories of documents, results of catwalk run, or submissions"
    check.add_argument("results", **results | {"metavar": "PATH", "help": text})
    text = "a directory with the original documents, to compare DOCUMENTS with"
    check.add_argument("--original", type=home_path, metavar="DIR", help=text)
    check.add_argument(
        "--controls", type=home_path, metavar="YAML", help="what the run declares, such as its training data"
    )
    check.add_argument("--output-dir", **output | {"help": "new directory for submission.json; takes one RESULTS"})

    aggregate = add("aggregate", "aggregate results per domain, per source and over all")
    aggregate.add_argument("results", **results)
    aggregate.add_argument("--output-dir", required=True, **output)
    aggregate.add_argument("--controls", type=home_path, metavar="YAML", help="what all these runs declare")
    text = "metric to rank by; ppl needs models with the same tokenizer (default: %(default)s)"
    aggregate.add_argument("--rank-by", choices=("bpb", "ppl"), default="bpb", help=text)

    report = add("report", "write an HTML page about one or more aggregates")
    text = "directories written by paloma aggregate"
    report.add_argument("aggregates", type=home_path, nargs="+", metavar="AGGREGATE", help=text)
    report.add_argument("--output-dir", required=True, **output)
    text = "heading of the page (default: %(default)s)"
    report.add_argument("--title", default="Perplexity by domain", help=text)

    for name, command in commands.choices.items():
        if name != "suite":
            command.add_argument("--overwrite", action="store_true", help="replace the artifact in --output-dir")
    return parser


def _add_build(build: argparse.ArgumentParser, output: dict[str, Any]) -> None:
    """A flag for each field of `BuildConfig`, with the field's docstring and default as its help."""
    from paloma.build import BuildConfig

    text = "document directories or files"
    build.add_argument("--documents", type=home_path, nargs="+", required=True, metavar="PATH", help=text)
    build.add_argument("--output-dir", required=True, **output)
    build.add_argument("--config", type=home_path, metavar="YAML", help="settings file; the flags below override it")
    build.add_argument("--tokenizer", type=home_path, metavar="FILE", help="tokenizer.json that counts tokens")
    options: dict[str, dict[str, Any]] = {
        "splits": {"nargs": "+", "metavar": "NAME"},
        "whole_documents": {"action": "store_true"},
        "default_source": {"metavar": "SOURCE"},
        "one_domain": {"nargs": "+", "metavar": "SOURCE"},
        "domain_targets": {"nargs": "+", "metavar": "SOURCE=N"},
    }
    for name, text in field_help(BuildConfig).items():
        option = options.get(name, {"type": int, "metavar": "N"})
        build.add_argument(f"--{name.replace('_', '-')}", default=None, help=text, **option)


# ---- commands


def _run(flags: argparse.Namespace) -> tuple[str, bool]:
    """The text to print, and whether all is well."""
    if flags.command == "suite":
        return overview(flags.view), True
    inputs = {"build": "documents", "report": "aggregates"}.get(flags.command, "results")
    expected = "documents or results" if flags.command == "check" else inputs
    missing = [path for path in getattr(flags, inputs) if not path.exists()]
    if missing:
        raise ConfigError(*[f"{path}: not found; expected {expected}" for path in missing], hint="check the path")
    if flags.command == "build":
        return _build(flags), True
    if flags.command == "check":
        return _check(flags)
    if flags.command == "aggregate":
        from paloma.aggregate import aggregate

        text = aggregate(
            flags.results, flags.output_dir, controls=flags.controls, rank_by=flags.rank_by, overwrite=flags.overwrite
        )
        return text, True
    from paloma.report import report

    return report(flags.aggregates, flags.output_dir, flags.title, overwrite=flags.overwrite), True


def _check(flags: argparse.Namespace) -> tuple[str, bool]:
    from paloma.check_documents import check_documents, is_documents
    from paloma.controls import check

    documents = [path for path in flags.results if is_documents(path)]
    results = [path for path in flags.results if path not in documents]
    if flags.original is not None and (results or not documents):
        raise ConfigError("--original: given for results; expected directories of documents", hint="drop it")
    if documents and (flags.controls or flags.output_dir):
        raise ConfigError(f"{documents[0]}: contains documents; expected results with --controls and --output-dir")
    reports = [(path, check_documents(path, flags.original)) for path in documents]
    texts = [report.text(path) for path, report in reports]
    if results:
        texts.append(check(results, flags.controls, flags.output_dir, overwrite=flags.overwrite))
    return "\n\n".join(texts), all(report.sound for _, report in reports)


def _build(flags: argparse.Namespace) -> str:
    from paloma.build import BuildConfig, build
    from paloma.settings import load

    given = {field.name: getattr(flags, field.name) for field in dataclasses.fields(BuildConfig)}
    config = load(BuildConfig, flags.config, (), given)
    return build(flags.documents, flags.output_dir, config, flags.tokenizer, overwrite=flags.overwrite)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 done, 1 the work failed, 2 the request was wrong."""
    flags = _parser().parse_args(rename_flags(sys.argv[1:] if arguments is None else arguments, _FORMER_FLAGS))
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    try:
        text, sound = _run(flags)
        sys.stdout.write(text + "\n")
    except FormatError as error:
        error.hint = error.hint or "python -m paloma.formats validate lists every error of an artifact"
        return report_error(error)
    except (ConfigError, OSError) as error:
        return report_error(error)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())

"""`paloma suite | build | decontaminate | check | submit | aggregate | compare | pile | report`."""

import argparse
import dataclasses
import logging
import sys
from pathlib import Path
from typing import Any

from paloma import __version__
from paloma.formats.contract import ConfigError, FormatError, WorkError, report_error
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
    text = "counts to compare documents with (default: paloma if they have no manifest and only sources of Paloma)"
    check.add_argument("--suite", choices=("paloma", "none"), help=text)
    certificate: dict[str, Any] = {"type": home_path, "nargs": "+", "default": [], "metavar": "DIR"}
    certificate["help"] = "certificates of paloma decontaminate"
    check.add_argument("--certificate", **certificate)
    check.add_argument("--output-dir", **output | {"help": "the same as paloma submit; takes one of the results"})

    submit = add("submit", "write a submission: results, a declaration, and the evidence of both")
    submit.add_argument("results", **results | {"nargs": 1, "help": "a directory written by catwalk run"})
    text = "what the run declares, such as its training data"
    submit.add_argument("--controls", type=home_path, metavar="YAML", help=text)
    submit.add_argument("--certificate", **certificate)
    submit.add_argument("--output-dir", required=True, **output)
    submit.set_defaults(original=None, suite=None)

    decontaminate = add(
        "decontaminate", "print settings for dolma that remove a sample from training data, or certify it"
    )
    text = "the evaluation documents, a sample of paloma build"
    decontaminate.add_argument("--documents", type=home_path, required=True, metavar="DIR", help=text)
    text = "patterns of the training documents; prints the settings"
    decontaminate.add_argument("--training", nargs="+", default=[], metavar="PATTERN", help=text)
    text = "where dolma mix writes the documents that it keeps; without --training, certify them"
    decontaminate.add_argument("--result", type=home_path, default=Path("decontaminated"), metavar="DIR", help=text)
    text = "the Bloom filter (default: %(default)s)"
    decontaminate.add_argument("--filter", type=home_path, default=Path("paloma.bin"), metavar="FILE", help=text)
    text = "directory for the settings, or for the certificate (default: print the settings)"
    decontaminate.add_argument("--output-dir", **output | {"help": text})

    aggregate = add("aggregate", "aggregate results per domain, per source and over all")
    aggregate.add_argument("results", **results)
    aggregate.add_argument("--output-dir", required=True, **output)
    aggregate.add_argument("--controls", type=home_path, metavar="YAML", help="what all these runs declare")
    text = "metric to rank by; ppl needs models with the same tokenizer (default: %(default)s)"
    aggregate.add_argument("--rank-by", choices=("bpb", "ppl"), default="bpb", help=text)
    text = "domains to aggregate, see paloma suite (default: %(default)s)"
    aggregate.add_argument("--view", choices=tuple(VIEWS), default="all", help=text)
    text = "tables of domains with their tokens in other corpora, such as domains.csv: adds the loss on these mixtures"
    aggregate.add_argument("--reweight", type=home_path, nargs="+", default=[], metavar="CSV", help=text)
    text = "draws of the bootstrap over documents; 0 for no intervals (default: %(default)s)"
    aggregate.add_argument("--draws", type=int, default=1000, metavar="N", help=text)
    aggregate.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default: %(default)s)")

    compare = add("compare", "compare two models domain by domain: what improved, and the scaling rate")
    compare.add_argument("results", **results | {"nargs": 2, "help": "the earlier or smaller model, and the other"})
    text = "what the scaling rate is by (default: tokens_seen if they are known and differ, else parameters)"
    compare.add_argument("--cost", choices=("tokens_seen", "parameters"), help=text)
    text = "the costs of both, in place of those in the results"
    compare.add_argument("--costs", type=float, nargs=2, metavar="N", help=text)
    compare.add_argument("--output-dir", **output | {"help": "new directory for comparison.csv"})

    pile = add("pile", "compare with GPT-2 and GPT-3 on the components of The Pile")
    pile.add_argument("results", **results)
    text = "the source of The Pile's documents (default: %(default)s)"
    pile.add_argument("--source", default="pile", help=text)
    text = "results of a model that was trained on The Pile, for Δ (default: the paper's)"
    pile.add_argument("--reference", type=home_path, metavar="RESULTS", help=text)
    pile.add_argument("--output-dir", **output | {"help": "new directory for pile.csv"})

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
    inputs = {"build": "documents", "report": "aggregates", "decontaminate": "documents"}.get(flags.command, "results")
    expected = "documents or results" if flags.command == "check" else inputs
    given = getattr(flags, inputs)
    missing = [path for path in (given if isinstance(given, list) else [given]) if not path.exists()]
    if missing:
        raise ConfigError(*[f"{path}: not found; expected {expected}" for path in missing], hint="check the path")
    if flags.command == "build":
        return _build(flags), True
    if flags.command in ("check", "submit"):
        return _check(flags)
    if flags.command == "decontaminate":
        return _decontaminate(flags), True
    if flags.command == "aggregate":
        return _aggregate(flags), True
    if flags.command == "compare":
        from paloma.compare import compare

        costs = tuple(flags.costs) if flags.costs else None
        pair = (flags.results[0], flags.results[1])
        return compare(pair, flags.output_dir, flags.cost, costs, overwrite=flags.overwrite), True
    if flags.command == "pile":
        from paloma.pile import pile

        text = pile(flags.results, flags.output_dir, flags.source, flags.reference, overwrite=flags.overwrite)
        return text, True
    from paloma.report import report

    return report(flags.aggregates, flags.output_dir, flags.title, overwrite=flags.overwrite), True


def _check(flags: argparse.Namespace) -> tuple[str, bool]:
    from paloma.check_documents import check_documents, is_documents
    from paloma.submit import check

    documents = [path for path in flags.results if is_documents(path)]
    results = [path for path in flags.results if path not in documents]
    if flags.original is not None and (results or not documents):
        raise ConfigError("--original: given for results; expected directories of documents", hint="drop it")
    if documents and (flags.controls or flags.output_dir or flags.certificate):
        given = next(name for name in ("controls", "certificate", "output_dir") if getattr(flags, name))
        raise ConfigError(f"{documents[0]}: contains documents; expected results with --{given.replace('_', '-')}")
    reports = [(path, check_documents(path, flags.original, flags.suite)) for path in documents]
    texts = [report.text(path) for path, report in reports]
    sound = all(report.sound for _, report in reports)
    if results:
        text, agree = check(
            results, flags.controls, flags.output_dir, overwrite=flags.overwrite, **_certificates(flags)
        )
        texts.append(text)
        sound = sound and agree
    return "\n\n".join(texts), sound


def _certificates(flags: argparse.Namespace) -> dict[str, Any]:
    from paloma.evidence import CERTIFICATE

    missing = [path for path in flags.certificate if not (path / CERTIFICATE).is_file()]
    if missing:
        problems = [f"--certificate: {path} has no {CERTIFICATE}; expected a certificate" for path in missing]
        raise ConfigError(*problems, hint="paloma decontaminate --result writes one")
    return {"certificates": flags.certificate}


def _aggregate(flags: argparse.Namespace) -> str:
    from paloma.aggregate import Options, aggregate

    if flags.draws < 0:
        raise ConfigError(f"--draws: {flags.draws}; expected at least 0")
    names = [path.stem for path in flags.reweight]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"--reweight: two tables are named {twice[0]}; expected different names", hint="rename one")
    options = Options(
        rank_by=flags.rank_by, view=flags.view, reweight=tuple(flags.reweight), draws=flags.draws, seed=flags.seed
    )
    return aggregate(flags.results, flags.output_dir, options, controls=flags.controls, overwrite=flags.overwrite)


def _decontaminate(flags: argparse.Namespace) -> str:
    from paloma.decontaminate import certify, settings

    if flags.result.exists() and not flags.training:
        if flags.output_dir is None:
            raise ConfigError("--output-dir: not given; expected a directory for the certificate")
        return certify(flags.documents, flags.result, flags.output_dir, overwrite=flags.overwrite)
    if not flags.training:
        problem = f"--result: {flags.result} not found, and no --training is given; expected one of them"
        raise ConfigError(problem, hint="--training prints settings; then run dolma; then leave it out")
    return settings(flags.documents, flags.training, flags.filter, flags.result, flags.output_dir)


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
    except (ConfigError, WorkError, OSError) as error:
        return report_error(error)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())

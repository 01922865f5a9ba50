"""`catwalk run|list|show|report|verify|documents`: arguments in, exit code out. The only file that writes to stdout.

Nothing heavy is imported before a command is known: `--help` needs no torch.
"""

import argparse
import ast
import dataclasses
import difflib
import inspect
import logging
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from catwalk import __version__
from catwalk.config import RunConfig, load_config
from catwalk.errors import ConfigError, DataError
from catwalk.formats.contract import FormatError

__all__ = ["main"]


# ---- arguments


class _Parser(argparse.ArgumentParser):
    """argparse with the project's error form."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, hint=f"{self.prog} --help")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parsed arguments; an unknown flag is an error that suggests the nearest flag of its command."""
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        flags = [f"--{key.replace('_', '-')}" for key in vars(options)]
        near = difflib.get_close_matches(unknown[0].partition("=")[0], flags, n=1)
        hint = f"did you mean {near[0]}?" if near else f"catwalk {options.command} --help"
        raise ConfigError(f"unknown arguments: {' '.join(unknown)}", hint=hint)
    return options


def _path(text: str) -> Path:
    """`~` is the home directory, also after `--output=` where no shell expands it."""
    return Path(text).expanduser()


def _output(text: str) -> Path:
    """A path to write to. A shell passes on a pattern that matches nothing; it would become the name."""
    if "*" in text or "?" in text:
        raise argparse.ArgumentTypeError(f"{text} is a pattern; expected one path")
    return _path(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="catwalk", description="Score any checkpoint on tasks and on the perplexity of documents.")
    parser.add_argument("--version", action="version", version=f"catwalk-eval {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    data: dict[str, Any] = {"type": _path, "metavar": "DIR", "help": _field_help(RunConfig)["data"]}
    _add_run(commands.add_parser("run", help="score a checkpoint", description="Score a checkpoint."))

    listing = commands.add_parser("list", help="list the tasks with source, licence and number of items")
    listing.add_argument("--data", **data)

    show = commands.add_parser("show", help="print the exact prompt of an item")
    show.add_argument("task", metavar="TASK")
    show.add_argument("--item", metavar="N", help="index or id (default: the first)")
    show.add_argument("--data", **data)

    report = commands.add_parser("report", help="compare one or more results in tables and an HTML page")
    report.add_argument("results", type=_path, nargs="+", metavar="RESULTS")
    report.add_argument("--output", type=_output, metavar="DIR", help="directory for report.md and report.html")
    report.add_argument(
        "--lm-eval-json", type=_output, metavar="FILE", help="write one result in lm-evaluation-harness's JSON"
    )

    verify = commands.add_parser("verify", help="derive every number of results again from their rows")
    verify.add_argument("results", type=_path, nargs="+", metavar="RESULTS")

    documents = commands.add_parser("documents", help="write the texts of tasks as documents, for decontamination")
    documents.add_argument("--tasks", nargs="+", required=True, metavar="TASK", help="tasks or sets of tasks")
    documents.add_argument("--output", type=_output, required=True, metavar="DIR", help="directory for the documents")
    documents.add_argument("--data", **data)
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    """A flag for each field of `RunConfig`, with the field's docstring and default as its help."""
    run.add_argument("--config", type=_path, metavar="YAML", help="settings file; flags and key=value override it")
    options: dict[str, dict[str, Any]] = {
        **{name: {"type": _path, "metavar": "DIR"} for name in ("model", "output", "data")},
        **{name: {"type": int, "metavar": "N"} for name in ("limit", "seed", "batch_tokens", "max_length")},
        **{name: {"metavar": "NAME"} for name in ("split", "name")},
        "tasks": {"nargs": "+", "metavar": "TASK"},
        "documents": {"nargs": "+", "type": _path, "metavar": "PATH"},
        "share_context": {"action": argparse.BooleanOptionalAction},
    }
    for name, text in _field_help(RunConfig).items():
        run.add_argument(f"--{name.replace('_', '-')}", default=None, help=text, **options.get(name, {}))
    run.add_argument("overrides", nargs="*", metavar="key=value", help="settings as in the YAML file")


def _field_help(kind: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, followed by the default if the docstring has none."""
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
        if default not in (dataclasses.MISSING, None, ()):
            found[field.name] += f" (default: {('no', 'yes')[default] if type(default) is bool else default})"
    return found


# ---- commands


def _run(options: argparse.Namespace) -> int:
    flags = {field.name: getattr(options, field.name) for field in dataclasses.fields(RunConfig)}
    overrides = list(options.overrides)
    if options.tasks:  # `--tasks a b limit=5`: a task has no "=" in its name
        overrides += [word for word in options.tasks if "=" in word]
        flags["tasks"] = [word for word in options.tasks if "=" not in word] or None
    config = load_config(options.config, flags, overrides)
    from catwalk.evaluate import run

    run(config)
    return 0


def _list(options: argparse.Namespace) -> int:
    from catwalk.items import task_table

    sys.stdout.write(task_table(options.data))
    return 0


def _show(options: argparse.Namespace) -> int:
    from catwalk.items import show_item

    sys.stdout.write(show_item(options.task, options.item, options.data))
    return 0


def _report(options: argparse.Namespace) -> int:
    from catwalk.report import report

    sys.stdout.write(report(options.results, options.output, options.lm_eval_json))
    return 0


def _verify(options: argparse.Namespace) -> int:
    from catwalk.verify import verify

    differences = list(verify(options.results))
    for line in differences:
        sys.stderr.write(f"error: {line}\n")
    if not differences:
        sys.stdout.writelines(f"{path}: every number follows from its rows\n" for path in options.results)
    return 1 if differences else 0


def _documents(options: argparse.Namespace) -> int:
    from catwalk.items import write_documents

    write_documents(tuple(options.tasks), options.output, options.data)
    return 0


_COMMANDS = {
    "run": _run,
    "list": _list,
    "show": _show,
    "report": _report,
    "verify": _verify,
    "documents": _documents,
}


def main(arguments: list[str] | None = None) -> int:
    """Exit 0 done, 1 the work failed, 2 the request was wrong."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s", force=True)
    logging.getLogger("catwalk").setLevel(logging.INFO)
    try:
        options = _parse(arguments)
        return _COMMANDS[options.command](options)
    except ConfigError as error:
        _print_error(error.problems, error.hint)
        return 2
    except (FormatError, DataError) as error:
        _print_error([str(error)], error.hint)
        return 1
    except OSError as error:
        _print_error([f"{error.filename or 'files'}: {error.strerror or error}"], None)
        return 1
    except KeyboardInterrupt:
        _print_error(["interrupted"], "the same command resumes where this one stopped")
        return 130
    except BrokenPipeError:
        return 1


def _print_error(problems: list[str], hint: str | None) -> None:
    for problem in problems:
        sys.stderr.write(f"error: {problem}\n")
    if hint:
        sys.stderr.write(f"hint: {hint}\n")


if __name__ == "__main__":
    sys.exit(main())

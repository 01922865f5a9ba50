"""The command `catwalk`: arguments in, exit code out. The only file that writes to stdout.

Nothing heavy is imported before a command is known: `--help` needs no torch.
"""

import argparse
import dataclasses
import difflib
import logging
import os
import sys
from typing import Any, NoReturn

from catwalk import __version__
from catwalk.config import FORMER_NAMES, RunConfig, load_config
from catwalk.formats.contract import ConfigError, FormatError, WorkError, report_error
from catwalk.openmp import limit_spinning
from catwalk.settings import field_help, home_path, output_path, rename_flags

__all__ = ["main"]


# ---- arguments

_FORMER_FLAGS = {
    f"--{former.replace('_', '-')}": f"--{name.replace('_', '-')}" for former, name in FORMER_NAMES.items()
}


class _Parser(argparse.ArgumentParser):
    """argparse with the project's error form."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, hint=f"{self.prog} --help")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parsed arguments; an unknown flag is an error that suggests the nearest flag of its command."""
    given = rename_flags(sys.argv[1:] if arguments is None else arguments, _FORMER_FLAGS)
    options, unknown = _parser().parse_known_args(given)
    if unknown:
        flags = [f"--{key.replace('_', '-')}" for key in vars(options)]
        near = difflib.get_close_matches(unknown[0].partition("=")[0], flags, n=1)
        hint = f"did you mean {near[0]}?" if near else f"catwalk {options.command} --help"
        raise ConfigError(f"unknown arguments: {' '.join(unknown)}", hint=hint)
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="catwalk", description="Score a checkpoint on tasks and on the perplexity of documents.")
    parser.add_argument("--version", action="version", version=f"catwalk-eval {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")

    data: dict[str, Any] = {"type": home_path, "metavar": "DIR", "help": field_help(RunConfig)["data"]}
    _add_run(add("run", "score a checkpoint"))

    listing = add("list", "list the tasks with source, licence and number of items")
    listing.add_argument("tasks", nargs="*", metavar="TASK", help="tasks, sets or lmeval:NAME (default: all)")

    show = add("show", "print the exact prompt of an item")
    show.add_argument("task", metavar="TASK", help="name of a task; see catwalk list")
    show.add_argument("--item", metavar="N", help="index or id of the item (default: the first)")
    show.add_argument("--whitespace", action="store_true", help="show a space as ·, a tab as → and a line's end as ¶")
    for command in (listing, show):
        command.add_argument("--data", **data)
        for name in ("hub", "offline"):
            command.add_argument(f"--{name}", action="store_true", help=field_help(RunConfig)[name])
        command.add_argument(
            "--lm-eval-include", type=home_path, metavar="DIR", help=field_help(RunConfig)["lm_eval_include"]
        )

    report = add("report", "compare one or more results in tables and an HTML page")
    report.add_argument(
        "results", type=home_path, nargs="+", metavar="RESULTS", help="directories written by catwalk run"
    )
    report.add_argument(
        "--output-dir",
        type=output_path,
        metavar="DIR",
        help="directory for the pages and tables",
    )
    report.add_argument(
        "--lm-eval-json",
        type=output_path,
        metavar="FILE",
        help="file for the results as lm-evaluation-harness's JSON; takes one RESULTS",
    )
    report.add_argument(
        "--contamination",
        type=home_path,
        metavar="PATH",
        help="dolma's attributes of the output of catwalk documents; compares clean and contaminated items",
    )

    verify = add("verify", "recompute every number in results from their rows")
    verify.add_argument(
        "results", type=home_path, nargs="+", metavar="RESULTS", help="directories written by catwalk run"
    )

    add("lm-eval", "run lm-evaluation-harness's own command, where --model catwalk is any model of catwalk run")

    imported = add("import", "turn results of lm-evaluation-harness into results that catwalk report takes")
    imported.add_argument(
        "file", type=home_path, metavar="FILE", help="results_*.json; samples_*.jsonl next to it are read too"
    )
    imported.add_argument(
        "--output-dir", type=output_path, required=True, metavar="DIR", help="directory for the results"
    )
    imported.add_argument("--name", metavar="NAME", help="the model's name in tables (default: that in the file)")

    documents = add("documents", "write the texts of tasks as documents, for decontamination")
    documents.add_argument(
        "--tasks", nargs="+", required=True, metavar="TASK", help="tasks, or sets of tasks: core8, core9, all"
    )
    documents.add_argument(
        "--output-dir", type=output_path, required=True, metavar="DIR", help="directory for the documents"
    )
    documents.add_argument("--data", **data)
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    """A flag for each field of `RunConfig`, with the field's docstring and default as its help."""
    run.add_argument("--config", type=home_path, metavar="YAML", help="settings file; flags and key=value override it")
    options: dict[str, dict[str, Any]] = {
        **{name: {"type": home_path, "metavar": "DIR"} for name in ("output_dir", "data", "lm_eval_include")},
        "model": {"metavar": "MODEL"},
        **{name: {"type": int, "metavar": "N"} for name in ("limit", "seed", "batch_tokens", "max_length_tokens")},
        **{name: {"metavar": "NAME"} for name in ("split", "name")},
        "system_instruction": {"metavar": "TEXT"},
        "models": {"nargs": "+", "metavar": "MODEL"},
        "tasks": {"nargs": "+", "metavar": "TASK"},
        "documents": {"nargs": "+", "type": home_path, "metavar": "PATH"},
        "share_context": {"action": argparse.BooleanOptionalAction},
        **{name: {"action": "store_true"} for name in ("allow_code", "hub", "offline", "token_losses")},
        **{name: {"action": "store_true"} for name in ("chat_template", "fewshot_as_multiturn")},
    }
    for name, text in field_help(RunConfig).items():
        run.add_argument(f"--{name.replace('_', '-')}", default=None, help=text, **options.get(name, {}))
    run.add_argument("--dry-run", action="store_true", help="print the table of models and tasks, and score nothing")
    run.add_argument("overrides", nargs="*", metavar="key=value", help="settings as in the YAML file")


# ---- commands


def _run(options: argparse.Namespace) -> int:
    flags = {field.name: getattr(options, field.name) for field in dataclasses.fields(RunConfig)}
    overrides = list(options.overrides)
    if options.tasks:  # `--tasks a b limit=5`: a task has no "=" in its name
        overrides += [word for word in options.tasks if "=" in word]
        flags["tasks"] = [word for word in options.tasks if "=" not in word] or None
    if options.models:  # `--models a small=b limit=5`: `small=b` names a model, `limit=5` is a setting
        settings = [word for word in options.models if word.partition("=")[0] in flags and "=" in word]
        overrides += settings
        flags["models"] = [word for word in options.models if word not in settings] or None
    config = load_config(options.config, flags, overrides)
    if int(os.environ.get("RANK", "0")) > 0:  # of torchrun
        from catwalk.model.parallel import follow

        follow()
        return 0
    from catwalk.evaluate import plan, run

    if options.dry_run:
        sys.stdout.write(plan(config))
        return 0
    run(config)
    return 0


def _list(options: argparse.Namespace) -> int:
    from catwalk.listing import task_table

    sys.stdout.write(task_table(options.tasks, options.data, **_sources(options)))
    return 0


def _show(options: argparse.Namespace) -> int:
    from catwalk.listing import show_item

    shown = show_item(options.task, options.item, options.data, **_sources(options), whitespace=options.whitespace)
    sys.stdout.write(shown)
    return 0


def _sources(options: argparse.Namespace) -> dict[str, Any]:
    return {"hub": options.hub, "offline": options.offline, "include": options.lm_eval_include}


def _report(options: argparse.Namespace) -> int:
    from catwalk.report import report

    sys.stdout.write(report(options.results, options.output_dir, options.lm_eval_json, options.contamination))
    return 0


def _verify(options: argparse.Namespace) -> int:
    from catwalk.verify import verify

    differences = list(verify(options.results))
    for line in differences:
        sys.stderr.write(f"error: {line}\n")
    if not differences:
        sys.stdout.writelines(f"{path}: every number follows from its rows\n" for path in options.results)
    return 1 if differences else 0


def _import(options: argparse.Namespace) -> int:
    from catwalk.lm_eval_import import import_results

    import_results(options.file, options.output_dir, options.name)
    return 0


def _documents(options: argparse.Namespace) -> int:
    from catwalk.task_documents import write_documents

    write_documents(tuple(options.tasks), options.output_dir, options.data)
    return 0


def _lm_eval(arguments: list[str]) -> int:
    """The harness parses its own arguments."""
    try:
        from catwalk.lm_eval_model import run_lm_eval
    except ImportError as error:
        hint = 'pip install "catwalk-eval[lm-eval]"'
        raise ConfigError("lm-eval needs the package lm-eval, which is not installed", hint=hint) from error
    return run_lm_eval(arguments)


_COMMANDS = {
    "run": _run,
    "list": _list,
    "show": _show,
    "report": _report,
    "verify": _verify,
    "import": _import,
    "documents": _documents,
}


def main(arguments: list[str] | None = None) -> int:
    """Exit 0 done, 1 the work failed, 2 the request was wrong."""
    limit_spinning()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s", force=True)
    logging.getLogger("catwalk").setLevel(logging.INFO)
    try:
        given = sys.argv[1:] if arguments is None else arguments
        if given[:1] == ["lm-eval"]:
            return _lm_eval(given[1:])
        options = _parse(given)
        return _COMMANDS[options.command](options)
    except BrokenPipeError:
        return 1
    except (ConfigError, FormatError, WorkError, OSError) as error:
        return report_error(error)
    except KeyboardInterrupt:
        report_error(WorkError("interrupted", "the same command resumes where this one stopped"))
        return 130


if __name__ == "__main__":
    sys.exit(main())

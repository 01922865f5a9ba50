"""`catwalk run|list|show|report|verify|documents`: arguments in, exit code out. The only file that writes to stdout.

Nothing heavy is imported before a command is known: `--help` needs no torch.
"""

import argparse
import difflib
import logging
import sys
from pathlib import Path
from typing import Any, NoReturn

from catwalk import __version__
from catwalk.errors import ConfigError, DataError
from catwalk.formats.errors import FormatError

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """argparse with the project's error form."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, hint=f"{self.prog} --help")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parsed arguments; an unknown flag is named with the nearest one of its command."""
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
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
    _add_run(commands.add_parser("run", help="score a checkpoint", description="Score a checkpoint."))

    listing = commands.add_parser("list", help="tasks with source, licence and items")
    listing.add_argument("--data", type=_path, metavar="DIR", help="directory of <task>/<split>.jsonl.gz")

    show = commands.add_parser("show", help="the exact prompt of an item")
    show.add_argument("task")
    show.add_argument("--item", default=None, metavar="N", help="index or id; the first by default")
    show.add_argument("--data", type=_path, metavar="DIR", help="directory of <task>/<split>.jsonl.gz")

    report = commands.add_parser("report", help="one table and one HTML page of one or several results")
    report.add_argument("results", type=_path, nargs="+", metavar="RESULTS")
    report.add_argument("--output", type=_output, metavar="DIR", help="directory for report.md and report.html")
    report.add_argument(
        "--lm-eval-json", type=_output, metavar="FILE", help="write lm-evaluation-harness's JSON of one result"
    )

    verify = commands.add_parser("verify", help="derive every number of results again")
    verify.add_argument("results", type=_path, nargs="+", metavar="RESULTS")

    documents = commands.add_parser("documents", help="the tasks' texts as documents, for decontamination")
    documents.add_argument("--tasks", nargs="+", required=True, metavar="TASK", help="tasks or sets of tasks")
    documents.add_argument("--output", type=_output, required=True, metavar="DIR")
    documents.add_argument("--data", type=_path, metavar="DIR", help="directory of <task>/<split>.jsonl.gz")
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument("--config", type=_path, metavar="YAML", help="settings; flags and key=value win over it")
    run.add_argument("--model", type=_path, metavar="DIR", help="checkpoint directory in Hugging Face layout")
    run.add_argument("--output", type=_path, metavar="DIR", help="directory for the results")
    run.add_argument("--tasks", nargs="+", metavar="TASK", help="tasks, or sets: core8, core9, all")
    run.add_argument("--documents", nargs="+", type=_path, metavar="PATH", help="document files or directories")
    run.add_argument("--data", type=_path, metavar="DIR", help="directory of <task>/<split>.jsonl.gz")
    run.add_argument("--limit", type=int, metavar="N", help="items a task, drawn with the seed (all)")
    run.add_argument("--seed", type=int, metavar="N", help="of the draw (1234)")
    run.add_argument("--device", help="auto, cpu, cuda, cuda:N (auto)")
    run.add_argument("--dtype", help="float32, bfloat16, float16 (float32)")
    run.add_argument("--batch-tokens", type=int, metavar="N", help="tokens a batch, padding included (1024 on a CPU)")
    run.add_argument("--max-length", type=int, metavar="N", help="tokens a window (the model's)")
    run.add_argument("--windowing", help="paloma-reference or strict-disjoint (paloma-reference)")
    run.add_argument("--prefix", help="the token before a document: eos or bos (the tokenizer's)")
    run.add_argument("--split", metavar="NAME", help="split of the documents to score (the first of val, test, …)")
    run.add_argument(
        "--share-context",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="compute the context of an item's choices once (yes)",
    )
    run.add_argument("--name", help="the model's name in tables (the directory's)")
    run.add_argument("overrides", nargs="*", metavar="key=value", help="settings as in the YAML")


def _run(options: argparse.Namespace) -> int:
    from catwalk.config import load_config

    flags = {key: value for key, value in vars(options).items() if key not in ("command", "config", "overrides")}
    overrides = list(options.overrides)
    if options.tasks:  # `--tasks a b limit=5`: a task has no "=" in its name
        overrides += [word for word in options.tasks if "=" in word]
        flags["tasks"] = [word for word in options.tasks if "=" not in word] or None
    config = load_config(options.config, flags, overrides)
    from catwalk.evaluate import run

    run(config)
    return 0


def _list(options: argparse.Namespace) -> int:
    from catwalk.tasks.show import task_table

    sys.stdout.write(task_table(options.data))
    return 0


def _show(options: argparse.Namespace) -> int:
    from catwalk.tasks.show import show_item

    sys.stdout.write(show_item(options.task, options.item, options.data))
    return 0


def _report(options: argparse.Namespace) -> int:
    from catwalk.report.write import report

    sys.stdout.write(report(options.results, options.output, options.lm_eval_json))
    return 0


def _verify(options: argparse.Namespace) -> int:
    from catwalk.results.verify import verify_all

    differences = list(verify_all(options.results))
    for line in differences:
        sys.stderr.write(f"error: {line}\n")
    if not differences:
        sys.stdout.writelines(f"{path}: every number follows from its rows\n" for path in options.results)
    return 1 if differences else 0


def _documents(options: argparse.Namespace) -> int:
    from catwalk.tasks.documents import write_documents

    write_documents(tuple(options.tasks), options.output, options.data)
    return 0


_COMMANDS: dict[str, Any] = {
    "run": _run,
    "list": _list,
    "show": _show,
    "report": _report,
    "verify": _verify,
    "documents": _documents,
}


def _say(problems: list[str], hint: str | None) -> None:
    for problem in problems:
        sys.stderr.write(f"error: {problem}\n")
    if hint:
        sys.stderr.write(f"hint: {hint}\n")


def main(arguments: list[str] | None = None) -> int:
    """Exit 0 done, 1 the work failed, 2 the request was wrong."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s", force=True)
    logging.getLogger("catwalk").setLevel(logging.INFO)
    try:
        options = _parse(arguments)
        return int(_COMMANDS[options.command](options))
    except ConfigError as error:
        _say(error.problems, error.hint)
        return 2
    except (FormatError, DataError) as error:
        _say([str(error)], error.hint)
        return 1
    except OSError as error:
        _say([f"{error.filename or 'files'}: {error.strerror or error}"], None)
        return 1
    except KeyboardInterrupt:
        _say(["interrupted"], "the same command resumes where this one stopped")
        return 130
    except BrokenPipeError:
        return 1


if __name__ == "__main__":
    sys.exit(main())

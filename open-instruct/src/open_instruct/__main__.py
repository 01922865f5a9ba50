"""The command `open-instruct`: arguments in, exit code out. 0 done, 1 the work failed, 2 the request was wrong."""

import argparse
import logging
import sys
from pathlib import Path

from . import __version__
from .errors import RequestError, WorkError
from .formats.errors import FormatError

__all__ = ["main"]


def _sft(options: argparse.Namespace) -> None:
    from .config import SftConfig
    from .config_file import load_config
    from .sft import run

    run(load_config(SftConfig, options.config, options.overrides))


def _dpo(options: argparse.Namespace) -> None:
    from .config import DpoConfig
    from .config_file import load_config
    from .dpo import run

    run(load_config(DpoConfig, options.config, options.overrides))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="open-instruct", description="Turn a checkpoint into a chat model.")
    parser.add_argument("--version", action="version", version=f"open-instruct {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, run, text in (
        ("sft", _sft, "supervised fine-tuning on chats"),
        ("dpo", _dpo, "direct preference optimization on pairs"),
    ):
        command = commands.add_parser(name, help=text, description=f"{text.capitalize()}: a YAML file and overrides.")
        command.add_argument("config", type=Path, help="YAML configuration")
        command.add_argument("overrides", nargs="*", metavar="key=value", help="such as training.max_steps=100")
        command.set_defaults(run=run)
    return parser


def _fail(problems: list[tuple[str, str]], code: int) -> int:
    for sentence, hint in problems:
        print(f"error: {sentence}", file=sys.stderr)
        if hint:
            print(f"hint: {hint}", file=sys.stderr)
    return code


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    from .training.process import prepare_process

    prepare_process()
    try:
        options.run(options)
    except (RequestError, WorkError) as error:
        problems = [(problem.sentence, problem.hint) for problem in error.problems]
        return _fail(problems, 2 if isinstance(error, RequestError) else 1)
    except FormatError as error:
        return _fail([(str(error), "")], 1)
    except ValueError as error:
        from .data.read import BadRows

        if not isinstance(error, BadRows):
            raise
        more = error.total - len(error.errors)
        problems = [(str(one), "") for one in error.errors]
        return _fail(problems + ([(f"{more} more rows are bad; expected none", "")] if more else []), 1)
    except KeyboardInterrupt:
        return _fail([("interrupted", "the same command starts again")], 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command `olmo`: reads the request, sets up logging, turns errors into messages and exit statuses."""

import argparse
import logging
import os
import sys
from contextlib import nullcontext

from .commands import add_verbs
from .formats.contract import ConfigError, FormatError, WorkError, report_error
from .openmp import limit_spinning
from .progress import STOPPED_STATUS, Stopped
from .settings import in_file

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="olmo", description="Pretrain language models from token shards.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    add_verbs(verbs)
    return parser


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse; `a.b=c` may also follow a flag, where argparse by itself would not take it."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    stray = [item for item in rest if item.startswith("-") or "=" not in item or not hasattr(arguments, "overrides")]
    if stray:
        parser.error(f"unrecognized arguments: {' '.join(stray)}")
    if rest:
        arguments.overrides += rest
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0 done, 1 the work failed, 2 the request was wrong, 75 stopped by a signal and saved.
    """
    limit_spinning()
    arguments = _arguments(argv)
    is_first = os.environ.get("RANK", "0") == "0"  # which reports for all ranks
    level = logging.INFO if is_first else logging.ERROR
    logging.basicConfig(stream=sys.stderr, level=level, format="%(message)s")
    try:
        with in_file(arguments.config) if "config" in arguments else nullcontext():
            arguments.work(arguments)
    except Stopped as stop:
        if is_first:
            report_error(WorkError(str(stop), hint="run the same command to continue"))
        return STOPPED_STATUS
    except ConfigError as error:
        return report_error(error) if is_first else 2  # every rank has the same problems
    except MemoryError:
        hint = "lower train.micro_batch_windows or data.sequence_length"
        return report_error(WorkError("memory: exhausted; expected room for the model and a micro-batch", hint=hint))
    except BrokenPipeError:
        return 1
    except (FormatError, OSError, RuntimeError) as error:
        logging.getLogger(__name__).debug("details", exc_info=True)
        return report_error(error)
    except KeyboardInterrupt:
        report_error(WorkError("stopped", hint="run the same command to continue from the last checkpoint"))
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

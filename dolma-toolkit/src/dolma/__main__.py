"""``dolma`` and ``python -m dolma``: logging, exit codes and what the user sees of an error.

0 done, 1 the work failed, 2 the request was wrong, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

SHOWN_ERRORS = 10

_ROW = "fix the row or exclude the file; finished files are kept"
_FILE = "write or download the file again; finished files are kept"
_OTHER = "give the artifact that the message expects, or create it again"
HINTS = {
    **dict.fromkeys(("not_json", "not_object", "missing_field", "wrong_type", "invalid_value", "out_of_range"), _ROW),
    **dict.fromkeys(("truncated", "wrong_size", "checksum_mismatch", "missing_file", "wrong_dtype"), _FILE),
    **dict.fromkeys(("unknown_format", "misaligned"), _OTHER),
    "unsupported_version": "install a newer dolma-toolkit",
}
"""Hints by the code of the error."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line and exits the process with its code."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and getattr(process.current_process(), "_inheriting", False):
        # a worker imports the script that started this run, and the script has no main guard: the run that waits for
        # the worker then does the work itself
        os._exit(1)
    sys.exit(_code(sys.argv[1:] if argv is None else argv))


def _code(argv: Sequence[str]) -> int:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s", force=True)
    from dolma.cli import run
    from dolma.errors import ConfigError, FormatError, ProblemsError

    try:
        run(argv)
        sys.stdout.flush()
        return 0
    except ConfigError as error:
        for problem in error.problems:
            _say(f"error: {problem}")
        return 2
    except ProblemsError as error:
        for line in _shown(error.errors):
            _say(f"error: {line}")
        for hint in dict.fromkeys(HINTS.get(getattr(one, "code", ""), "") for one in error.errors):
            _hint(hint)
        return 1
    except FormatError as error:
        _say(f"error: {error}")
        _hint(HINTS.get(error.code, ""))
        return 1
    except BrokenPipeError:
        # the reader of our stdout has seen enough; keep the interpreter's own flush at exit quiet
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _say(f"error: {_text(error)}")
        return 1
    except KeyboardInterrupt:
        _say("interrupted; finished files are kept, and the same command resumes from there")
        return 130


def _shown(errors: Sequence[Exception]) -> list[str]:
    """A line for each error. If there are many, errors with the same message share a line."""
    if len(errors) <= SHOWN_ERRORS:
        return [_text(one) for one in errors]
    groups: dict[object, list[Exception]] = {}
    for one in errors:
        groups.setdefault(getattr(one, "message", one), []).append(one)
    shown = list(groups.values())[:SHOWN_ERRORS]
    lines = [_text(group[0]) + (f" (and {len(group) - 1} more rows like it)" if group[1:] else "") for group in shown]
    left = len(errors) - sum(map(len, shown))
    return [*lines, f"and {left} more"] if left else lines


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _hint(text: str) -> None:
    if text:
        _say(f"hint: {text}")


def _say(text: str) -> None:
    from dolma.files.paths import named

    sys.stderr.write(named(text) + "\n")


if __name__ == "__main__":
    main()

"""``python -m dolma.cli``, and ``main`` as a function of dolma 1.x."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from dolma.cli import run

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line and returns. The calling program continues, and gets errors as exceptions.

    Raises:
        ConfigError: the request was wrong.
        FormatError, ProblemsError, OSError: the work failed.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    run(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    from dolma.__main__ import main as command

    command()

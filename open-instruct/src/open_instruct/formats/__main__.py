"""`python -m open_instruct.formats`: docs/formats/README.md, *The command every package has*."""

import math
import sys

from . import chat, checkpoint, preference
from .command import Reader, run

__all__ = ["main"]

READERS = {
    "chat": Reader(chat.dump, ("conversations", "messages"), lambda row: (1, len(row["messages"]))),
    "preference": Reader(preference.dump, ("pairs",), lambda row: (1,)),
    "checkpoint": Reader(checkpoint.dump, ("parameters", "tensors"), lambda row: (math.prod(row["shape"]), 1)),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    return run("open_instruct", READERS, arguments)


if __name__ == "__main__":
    sys.exit(main())

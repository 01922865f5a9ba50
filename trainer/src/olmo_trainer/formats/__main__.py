"""`python -m olmo_trainer.formats`: docs/formats/README.md, *The command every package has*."""

import math
import sys

from . import checkpoint, document, tokens
from .command import Reader, run

__all__ = ["main"]

READERS = {
    "document": Reader(document.dump, ("documents", "text_bytes"), lambda row: (1, len(row["text"].encode()))),
    "tokens": Reader(
        tokens.dump,
        ("documents", "tokens"),
        lambda row: (1, len(row["tokens"])),
        flags={
            "dtype": {"choices": tokens.DTYPES, "help": "of token files without a manifest"},
            "eos_token_id": {"type": int, "metavar": "ID", "help": "of token files without a manifest"},
        },
        stated=("text_bytes",),
    ),
    "checkpoint": Reader(checkpoint.dump, ("parameters", "tensors"), lambda row: (math.prod(row["shape"]), 1)),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    return run("olmo_trainer", READERS, arguments)


if __name__ == "__main__":
    sys.exit(main())

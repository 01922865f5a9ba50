"""`python -m catwalk.formats {lineage,validate,dump}`: docs/formats/README.md, *The command every package has*."""

import math
import sys

from catwalk.formats import checkpoint, document, results
from catwalk.formats.command import Reader, run

__all__ = ["main"]

READERS = {
    "document": Reader(document.dump, ("documents", "text_bytes"), lambda row: (1, len(row["text"].encode()))),
    "checkpoint": Reader(checkpoint.dump, ("parameters", "tensors"), lambda row: (math.prod(row["shape"]), 1)),
    "results": Reader(results.dump, ("tasks", "items", "domains"), results.count),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    return run("catwalk", READERS, arguments)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m paloma.formats {lineage,validate,dump}`: docs/formats/README.md, *The command every package has*."""

import sys

from paloma.formats import document, results
from paloma.formats.command import Reader, run

__all__ = ["main"]

READERS = {
    "document": Reader(document.dump, ("documents", "text_bytes"), lambda row: (1, len(row["text"].encode()))),
    "results": Reader(results.dump, ("tasks", "items", "domains"), results.count),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    return run("paloma", READERS, arguments)


if __name__ == "__main__":
    sys.exit(main())

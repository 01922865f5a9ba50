"""`python -m catwalk.formats {lineage,validate,dump}`: the command of docs/formats/README.md."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from catwalk.formats import checkpoint, document, results
from catwalk.formats.errors import FormatError
from catwalk.formats.json_lines import canonical_line
from catwalk.formats.lineage import lineage
from catwalk.formats.manifest import check_files, read_manifest

__all__ = ["main"]


def _validate_manifest(path: Path) -> None:
    check_files(path, read_manifest(path), hashes=True)


def _dump_manifest(path: Path) -> Iterator[dict[str, Any]]:
    manifest = read_manifest(path)
    yield {key: manifest[key] for key in ("format", "version", "counts", "details", "files", "inputs")}


_VALIDATE: dict[str, Callable[[Path], None]] = {
    "manifest": _validate_manifest,
    "document": document.validate,
    "checkpoint": checkpoint.validate,
    "results": results.validate,
}
_DUMP: dict[str, Callable[[Path], Iterator[dict[str, Any]]]] = {
    "manifest": _dump_manifest,
    "document": document.dump,
    "checkpoint": checkpoint.dump,
    "results": results.dump,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m catwalk.formats", description="Check and print artifacts.")
    commands = parser.add_subparsers(dest="command", required=True)
    chain = commands.add_parser("lineage", help="the chain of manifests back to the source files")
    chain.add_argument("path", type=Path)
    chain.add_argument("--all", action="store_true", help="show every source file")
    check = commands.add_parser("validate", help="full check, checksums included")
    show = commands.add_parser("dump", help="canonical JSON lines")
    for command in (check, show):
        command.add_argument("format", choices=sorted(_VALIDATE))
        command.add_argument("path", type=Path)
    check.add_argument("--json", action="store_true", help="one object an error")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Exit 0 valid, 1 invalid, 2 wrong request."""
    options = _parser().parse_args(arguments)
    if not options.path.exists():
        sys.stderr.write(f"error: {options.path}: the path is absent; expected an artifact\nhint: check the spelling\n")
        return 2
    try:
        if options.command == "lineage":
            sys.stdout.writelines(f"{line}\n" for line in lineage(options.path, show_all=options.all))
        elif options.command == "validate":
            _VALIDATE[options.format](options.path)
        else:
            sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
            sys.stdout.writelines(canonical_line(row) for row in _DUMP[options.format](options.path))
    except FormatError as error:
        _report(error, as_json=options.command == "validate" and options.json)
        return 1
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone: nothing more to say
        return 1
    return 0


def _report(error: FormatError, *, as_json: bool) -> None:
    if as_json:
        keys = ("code", "path", "line", "field", "message")
        sys.stderr.write(json.dumps({key: getattr(error, key) for key in keys}, ensure_ascii=False) + "\n")
    else:
        sys.stderr.write(f"{error.code} {error}\n")


if __name__ == "__main__":
    sys.exit(main())

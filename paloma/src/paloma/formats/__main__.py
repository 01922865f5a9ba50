"""`python -m paloma.formats lineage|validate|dump`, as docs/formats/README.md has it."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from paloma.formats import document, lineage, manifest, results
from paloma.formats.errors import FormatError
from paloma.formats.json_lines import canonical_line

__all__ = ["main"]

_DUMPS = {"manifest": manifest.dump, "document": document.dump, "results": results.dump}
_CONTENT = {"document": document.validate, "results": results.validate}


def _problems(format: str, path: Path) -> Iterator[FormatError]:
    """What is wrong with an artifact: its manifest and files, then, where those are right, its content and counts."""
    described = None
    directory = path.parent if format == "manifest" and path.is_file() else path
    if format == "manifest" or (directory / manifest.MANIFEST).is_file():
        described = manifest.read_manifest(directory, None if format == "manifest" else format)
        errors = list(manifest.check_files(directory, described, hashes=True))
        yield from errors
        if errors:
            return
    if format == "manifest":
        return
    counted: dict[str, int] = {}
    sound = True
    for error in _CONTENT[format](path, counted):
        sound = False
        yield error
    if described is not None and sound:
        yield from manifest.check_counts(directory, described, counted)


def _validate(format: str, path: Path, as_json: bool) -> int:
    def caught() -> Iterator[FormatError]:
        try:
            yield from _problems(format, path)
        except FormatError as error:
            yield error

    number = 0
    root = path if path.is_dir() else path.parent
    for number, error in enumerate(caught(), start=1):  # noqa: B007
        if as_json:
            place = Path(error.path).relative_to(root).as_posix()
            values = {"code": error.code, "path": place, "line": error.line, "field": error.field}
            sys.stderr.write(canonical_line(values | {"message": error.message}))
        else:
            sys.stderr.write(f"{error.code} {error}\n")
    return 1 if number else 0


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 valid or printed, 1 the artifact is broken, 2 the request is."""
    parser = argparse.ArgumentParser(prog="python -m paloma.formats", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("lineage", help="the chain of manifests back to the source files")
    command.add_argument("path", type=Path)
    command.add_argument("--all", action="store_true", help="every source file, not three")
    for name, text in (("validate", "check everything, checksums included"), ("dump", "canonical JSON lines")):
        command = commands.add_parser(name, help=text)
        command.add_argument("format", choices=sorted(_DUMPS))
        command.add_argument("path", type=Path)
        if name == "validate":
            command.add_argument("--json", action="store_true", help="one object a line")
    flags = parser.parse_args(arguments)
    if not flags.path.exists():
        sys.stderr.write(f"error: {flags.path} not found; expected an artifact\nhint: check the path\n")
        return 2
    try:
        if flags.command == "lineage":
            for line in lineage.lineage(flags.path, every_source=flags.all):
                sys.stdout.write(line + "\n")
        elif flags.command == "dump":
            for row in _DUMPS[flags.format](flags.path):
                sys.stdout.write(canonical_line(row))
        else:
            return _validate(flags.format, flags.path, flags.json)
    except FormatError as error:
        sys.stderr.write(
            f"error: {error}\nhint: {error.hint or 'python -m paloma.formats validate lists every error'}\n"
        )
        return 1
    except BrokenPipeError:  # the reader, `head` say, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at exit
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

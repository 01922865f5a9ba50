"""The command `python -m <package>.formats`: docs/formats/README.md, *The `formats` command of every package*.

Every Python package carries this file, byte for byte. It finds the readers in the modules that `MODULES` names.
"""

import argparse
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from . import MODULES
from .contract import FormatError, MissingFlagError, Reader, canonical_line, path_kind
from .manifest import check_counts, check_files, find_manifest, lineage, read_manifest

__all__ = ["main"]

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 valid, 1 invalid, 2 wrong request."""
    readers: dict[str, Reader] = {}
    for module in MODULES:
        readers |= import_module(f".{module}", __package__).READERS
    options = _parser(readers).parse_args(arguments)
    path: Path = options.path.expanduser()
    if not (path.is_file() or path.is_dir()):
        sys.stderr.write(f"error: {path}: {path_kind(path)}; expected an artifact\nhint: check the path\n")
        return 2
    root = path if path.is_dir() else path.parent
    try:
        if options.command == "lineage":
            sys.stdout.writelines(f"{line}\n" for line in lineage(path, every_source=options.all))
            return 0
        reader = readers.get(options.format)
        flags = {name: getattr(options, name) for name in reader.flags} if reader else {}
        examined = _Examined(options.format, reader, path, flags)
        failed = False
        for error in examined.errors():
            failed = True
            _report(error, root, as_json=options.json)
        if options.command == "dump" and not failed:
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(encoding="utf-8")
            sys.stdout.writelines(canonical_line(row) for row in examined.dump())
    except MissingFlagError as flag:
        sys.stderr.write(f"error: {path}: has no manifest; expected {flag} to say what the files do not\n")
        return 2
    except FormatError as error:
        _report(error, root, as_json=getattr(options, "json", False))
        return 1
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at exit
        return 1
    return int(failed)


class _Examined:
    """One artifact: its manifest first, then its content, then the manifest's counts."""

    def __init__(self, format: str, reader: Reader | None, path: Path, flags: dict[str, Any]) -> None:
        self.format, self.reader, self.path, self.flags = format, reader, path, flags
        self.counts: dict[str, int] = {}
        self.head: Row = {}

    def errors(self) -> Iterator[FormatError]:
        try:
            yield from self._errors()
        except FormatError as error:
            yield error

    def _errors(self) -> Iterator[FormatError]:
        manifest = read_manifest(self.path) if self.reader is None else find_manifest(self.path, self.format)
        if manifest is not None:
            failed = False
            for error in check_files(manifest, checksums=True):
                failed = True
                yield error
            if failed:
                return
        if self.reader is None:
            assert manifest is not None
            self.head = manifest.head()
            return
        counts, failed = dict.fromkeys(self.reader.counts, 0), False
        for row in self.reader.rows(self.path, **self.flags):
            if isinstance(row, FormatError):
                failed = True
                yield row
                continue
            for name, number in zip(self.reader.counts, self.reader.count(row), strict=True):
                counts[name] += number
        if manifest is not None and not failed:
            yield from check_counts(manifest, counts)
            counts |= {name: manifest.counts[name] for name in self.reader.stated if name in manifest.counts}
        self.head = {"format": self.format, "version": 1, "counts": counts}

    def dump(self) -> Iterator[Row]:
        """The head line, then the rows, which are read again."""
        yield self.head
        if self.reader is not None:
            for row in self.reader.rows(self.path, **self.flags):
                if isinstance(row, FormatError):
                    raise row
                yield row


def _parser(readers: Mapping[str, Reader]) -> argparse.ArgumentParser:
    description = "Check, print and trace artifacts."
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description=description)
    commands = parser.add_subparsers(dest="command", required=True)
    chain = commands.add_parser("lineage", help="the chain of manifests back to the source files")
    chain.add_argument("path", type=Path)
    chain.add_argument("--all", action="store_true", help="list every source file")
    for name, text in (("validate", "full check, checksums included"), ("dump", "canonical JSON lines")):
        command = commands.add_parser(name, help=text)
        command.add_argument("format", choices=("manifest", *readers))
        command.add_argument("path", type=Path)
        command.add_argument("--json", action="store_true", help="each error as a JSON object")
        for flag, settings in {flag: s for reader in readers.values() for flag, s in reader.flags.items()}.items():
            command.add_argument(f"--{flag.replace('_', '-')}", **settings)
    return parser


def _report(error: FormatError, root: Path, *, as_json: bool) -> None:
    if not as_json:
        sys.stderr.write(f"{error.code} {error}\n")
        return
    path = Path(error.path)
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else error.path
    row = {"code": error.code, "path": name, "line": error.line, "field": error.field, "message": error.message}
    sys.stderr.write(canonical_line(row))


if __name__ == "__main__":
    sys.exit(main())

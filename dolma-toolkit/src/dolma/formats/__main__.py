"""``python -m dolma.formats {lineage,validate,dump}``: docs/formats/README.md, "The command every package has"."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dolma.errors import FormatError
from dolma.formats import attributes, document, manifest, tokens
from dolma.formats.lineage import lineage

__all__ = ["main"]

FORMATS = ("manifest", "document", "attributes", "tokens", "packed", "megatron")
DESCRIPTION = "Check, print and trace artifacts."

Read = Iterator[tuple[dict[str, Any], dict[str, int]]]


class _RequestError(ValueError):
    """Exit code 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0 valid, 1 invalid, 2 wrong request."""
    arguments = _parser().parse_args(argv)
    errors: list[FormatError] = []
    try:
        if not arguments.path.exists():
            raise _RequestError(f"{arguments.path}: not found; expected an artifact")
        if not (arguments.path.is_file() or arguments.path.is_dir()):
            raise _RequestError(f"{arguments.path}: is a pipe or a device; expected a file or a directory")
        if arguments.command == "lineage":
            for line in lineage(arguments.path, every_source=arguments.all):
                sys.stdout.write(line + "\n")
        elif arguments.format not in FORMATS:
            known = ", ".join(FORMATS)
            raise _RequestError(f'"{arguments.format}" is not a format that dolma reads; expected one of {known}')
        else:
            _read(arguments, errors)
    except FormatError as error:
        errors.append(error)
    except tokens.MissingArgumentError as error:
        flag = f"--{str(error).replace('_', '-')}"
        sys.stderr.write(f"error: {arguments.path}: has no manifest; expected {flag} to say what the files do not\n")
        return 2
    except _RequestError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for found in errors:
        _report(found, arguments)
    return 1 if errors else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dolma.formats", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    walk = commands.add_parser("lineage", help="the chain of manifests back to the source files")
    walk.add_argument("path", metavar="PATH", type=Path)
    walk.add_argument("--all", action="store_true", help="name every source file")
    for name, text in (("validate", "full check, checksums included"), ("dump", "canonical JSON lines")):
        command = commands.add_parser(name, help=text)
        command.add_argument("format", metavar="FORMAT", help=", ".join(FORMATS))
        command.add_argument("path", metavar="PATH", type=Path)
        command.add_argument("--json", action="store_true", help="errors as JSON objects")
        command.add_argument("--documents", type=Path, metavar="DIR", help="documents of the attributes")
        command.add_argument("--dtype", choices=tokens.DTYPES, help="of shards without a manifest")
        command.add_argument("--eos-token-id", type=int, metavar="ID", help="of shards without a table")
    return parser


def _read(arguments: argparse.Namespace, errors: list[FormatError]) -> None:
    path: Path = arguments.path
    if arguments.format == "manifest":
        found = manifest.read(path)
        errors.extend(manifest.check_files(found))
        head = {"format": found.format, "version": found.version, "counts": found.counts}
        value = found.fields.value
        rows = [head | {name: value[name] for name in ("details", "files", "inputs")}]
    else:
        readers: dict[str, Callable[[], Read]] = {
            "document": lambda: document.read(path, errors),
            "attributes": lambda: attributes.read(path, arguments.documents, errors),
            "tokens": lambda: tokens.read(path, arguments.dtype, arguments.eos_token_id, errors),
            "packed": lambda: tokens.read_packed(path, errors),
            "megatron": lambda: tokens.read_megatron(path, errors),
        }
        rows = _rows(readers[arguments.format](), arguments)
    if arguments.command == "dump" and not errors:
        for row in rows:
            text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            sys.stdout.write(text + "\n")


def _rows(read: Read, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    names = {
        "document": ("documents", "text_bytes"),
        "attributes": ("documents", "spans"),
        "tokens": ("documents", "tokens"),
        "packed": ("parts", "tokens"),
        "megatron": ("documents", "tokens"),
    }
    counts: Counter[str] = Counter(dict.fromkeys(names[arguments.format], 0))
    rows = []
    for row, added in read:
        counts.update(added)
        if arguments.command == "dump":
            rows.append(row)
    stated = manifest.read_optional(arguments.path, arguments.format)
    if stated and arguments.format == "tokens" and "text_bytes" in stated.counts:
        counts["text_bytes"] = stated.counts["text_bytes"]
    return [{"format": arguments.format, "version": 1, "counts": dict(counts)}, *rows]


def _report(error: FormatError, arguments: argparse.Namespace) -> None:
    root = arguments.path if arguments.path.is_dir() else arguments.path.parent
    path = Path(error.path)
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else error.path
    if getattr(arguments, "json", False):
        row = {"code": error.code, "path": name, "line": error.line, "field": error.field, "message": error.message}
        sys.stderr.write(json.dumps(row, ensure_ascii=False) + "\n")
    else:
        place = name if error.line is None else f"{name}:{error.line}"
        sys.stderr.write(f"{error.code} {place}: {error.message}\n")


if __name__ == "__main__":
    sys.exit(main())

"""`python -m olmo_trainer.formats {lineage,validate,dump}`, as docs/formats/README.md describes it."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import checkpoint, document, tokens
from .errors import FormatError
from .files import place
from .lineage import lineage
from .manifest import MANIFEST, check_files, read_manifest

_FORMATS = ("manifest", "document", "tokens", "checkpoint")


class _Request(ValueError):
    """A wrong request: exit status 2."""


def _rows(name: str, path: Path, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    token_arguments = {"dtype": arguments.dtype, "eos_token_id": arguments.eos_token_id}
    readers: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "manifest": lambda: iter(()),
        "document": lambda: document.dump(path),
        "tokens": lambda: tokens.dump(path, **token_arguments),
        "checkpoint": lambda: checkpoint.dump(path),
    }
    return readers[name]()


def _head(name: str, path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    directory = path if path.is_dir() else path.parent
    if name == "manifest":
        manifest = read_manifest(path)
        check_files(manifest, checksums=True)
        head = {"format": manifest.format, "version": manifest.version, "counts": manifest.counts}
        return {**head, "details": manifest.details, "files": manifest.files, "inputs": manifest.inputs}
    counts = _counts(name, rows)
    manifest_path = directory / MANIFEST
    if name == "tokens" and path.is_dir() and manifest_path.is_file():
        stated = read_manifest(manifest_path).counts
        counts.update({key: stated[key] for key in ("text_bytes",) if key in stated})
    return {"format": name, "version": 1, "counts": counts}


def _counts(name: str, rows: list[dict[str, Any]]) -> dict[str, int]:
    """The counts that the format's page names, as far as the content says."""
    if name == "document":
        return {"documents": len(rows), "text_bytes": sum(len(row["text"].encode()) for row in rows)}
    if name == "tokens":
        return {"documents": len(rows), "tokens": sum(len(row["tokens"]) for row in rows)}
    return {"parameters": sum(math.prod(row["shape"]) for row in rows), "tensors": len(rows)}


def _report(error: FormatError, root: Path, *, as_json: bool) -> None:
    try:
        path = Path(error.path).relative_to(root).as_posix()
    except ValueError:
        path = error.path
    if as_json:
        row = {"code": error.code, "path": path, "line": error.line, "field": error.field, "message": error.message}
        sys.stderr.write(json.dumps(row, ensure_ascii=False) + "\n")
    else:
        place = path if error.line is None else f"{path}:{error.line}"
        sys.stderr.write(f"{error.code} {place}: {error.message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m olmo_trainer.formats", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    walk = verbs.add_parser("lineage", help="the chain of manifests back to the source files")
    walk.add_argument("path", type=place)
    walk.add_argument("--all", action="store_true", help="name every source file")
    for verb, text in (("validate", "full check, checksums included"), ("dump", "canonical JSON lines")):
        command = verbs.add_parser(verb, help=text)
        command.add_argument("format", help=", ".join(_FORMATS))
        command.add_argument("path", type=place)
        command.add_argument("--dtype", choices=tokens.DTYPES, help="of token files without a manifest")
        command.add_argument("--eos-token-id", type=int, help="of token files without a manifest")
        command.add_argument("--json", action="store_true", help="errors as JSON objects")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    path: Path = arguments.path
    if not path.exists():
        raise _Request(f"{path}: not found; expected an artifact")
    if arguments.verb == "lineage":
        for line in lineage(path, every_source=arguments.all):
            sys.stdout.write(line + "\n")
        return
    if arguments.format not in _FORMATS:
        raise _Request(f'"{arguments.format}" is not read by this package; expected one of {", ".join(_FORMATS)}')
    try:
        rows = list(_rows(arguments.format, path, arguments))
    except ValueError as error:
        if str(error) not in ("dtype", "eos_token_id"):
            raise
        flag = "--" + str(error).replace("_", "-")
        raise _Request(f"{path}: has no manifest; expected {flag} to say what the files do not") from error
    head = _head(arguments.format, path, rows)
    if arguments.verb == "dump":
        for row in [head, *rows]:
            sys.stdout.write(json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 valid, 1 invalid, 2 wrong request."""
    arguments = _parser().parse_args(argv)
    root = arguments.path if arguments.path.is_dir() else arguments.path.parent
    try:
        _run(arguments)
    except FormatError as error:
        _report(error, root, as_json=getattr(arguments, "json", False))
        return 1
    except _Request as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

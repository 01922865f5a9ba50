"""`python -m open_instruct.formats {lineage,validate,dump}`, as docs/formats/README.md describes it."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .chat import Conversation, read_chat
from .checkpoint import check_checkpoint, count_tensors
from .errors import FormatError
from .json_lines import canonical_line
from .lineage import lineage_lines
from .manifest import NAME, check_files, read_manifest
from .preference import Pair, read_preference
from .safetensors import hash_tensor

__all__ = ["main"]

Content = tuple[dict[str, int], list[dict[str, Any]], list[FormatError]]


def _chat(path: Path) -> Content:
    found = list(read_chat(path))
    rows = [row for row in found if isinstance(row, Conversation)]
    counts = {"conversations": len(rows), "messages": sum(len(row.messages) for row in rows)}
    dump = [{"id": row.id, "source": row.source, "messages": _messages(row)} for row in rows]
    return counts, dump, [row for row in found if isinstance(row, FormatError)]


def _messages(row: Conversation) -> list[dict[str, Any]]:
    """Give the messages, with `weight` 0 on each answer that is not trained."""
    result: list[dict[str, Any]] = []
    answers = 0
    for message in row.messages:
        skipped = message["role"] == "assistant" and answers in row.untrained
        answers += message["role"] == "assistant"
        result.append(message | ({"weight": 0} if skipped else {}))
    return result


def _preference(path: Path) -> Content:
    found = list(read_preference(path))
    rows = [row for row in found if isinstance(row, Pair)]
    dump = [
        {"id": row.id, "source": row.source, "prompt": list(row.prompt), "chosen": row.chosen, "rejected": row.rejected}
        for row in rows
    ]
    return {"pairs": len(rows)}, dump, [row for row in found if isinstance(row, FormatError)]


def _checkpoint(path: Path) -> Content:
    tensors = check_checkpoint(path)
    dump = [
        {"tensor": name, "dtype": tensor.dtype, "shape": list(tensor.shape), "sha256": hash_tensor(tensor)}
        for name, tensor in tensors.items()
    ]
    return count_tensors(tensors), dump, []


_READERS: dict[str, Callable[[Path], Content]] = {"chat": _chat, "preference": _preference, "checkpoint": _checkpoint}


def _check_manifest(name: str, path: Path) -> dict[str, Any] | None:
    """Check the manifest at `path`, hashes included; None where a format's artifact has none."""
    if name == "manifest" or (path / NAME).is_file():
        manifest = read_manifest(path, None if name == "manifest" else name)
        check_files(path, manifest, hashes=True)
        return manifest
    if not path.exists():
        raise FormatError("missing_file", path, "not found; expected a file or a directory")
    return None


def _errors(name: str, path: Path) -> Iterator[FormatError]:
    try:
        manifest = _check_manifest(name, path)
        if name == "manifest":
            return
        counts, _, errors = _READERS[name](path)
    except FormatError as error:
        yield error
        return
    yield from errors
    if manifest is None or errors:
        return
    for field, count in counts.items():
        if manifest["counts"].get(field) != count:
            found = manifest["counts"].get(field, "absent")
            sentence = f'"counts.{field}" is {found}; expected {count}, as the content has'
            yield FormatError("invalid_value", path / NAME, sentence, field=f"counts.{field}")


def _relative(error: FormatError, path: Path) -> str:
    place = Path(error.path)
    if path.is_file():
        return place.name
    return place.relative_to(path).as_posix() if place.is_relative_to(path) else place.as_posix()


def _validate(name: str, path: Path, as_json: bool) -> int:
    errors = list(_errors(name, path))
    for error in errors:
        if as_json:
            value = {
                "code": error.code,
                "path": _relative(error, path),
                "line": error.line,
                "field": error.field,
                "message": error.message,
            }
            print(json.dumps(value, ensure_ascii=False), file=sys.stderr)
        else:
            print(f"{error.code} {error}", file=sys.stderr)
    return 1 if errors else 0


def _dump(name: str, path: Path) -> int:
    manifest = _check_manifest(name, path)
    if name == "manifest":
        assert manifest is not None
        head = {key: manifest[key] for key in ("format", "version", "counts", "details", "files", "inputs")}
        sys.stdout.write(canonical_line(head))
        return 0
    counts, rows, errors = _READERS[name](path)
    if errors:
        raise errors[0]
    sys.stdout.write(canonical_line({"format": name, "version": 1, "counts": counts}))
    for row in rows:
        sys.stdout.write(canonical_line(row))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m open_instruct.formats", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    lineage = commands.add_parser("lineage", help="the chain of manifests back to the source files")
    lineage.add_argument("path", type=Path)
    lineage.add_argument("--all", action="store_true", help="show every source file")
    for name, text in (("validate", "check everything, hashes included"), ("dump", "print canonical JSON lines")):
        command = commands.add_parser(name, help=text)
        command.add_argument("format", choices=["manifest", *_READERS])
        command.add_argument("path", type=Path)
        if name == "validate":
            command.add_argument("--json", action="store_true", help="one JSON object an error")
    options = parser.parse_args(arguments)
    options.path = options.path.expanduser()
    if isinstance(sys.stdout, object) and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")
    try:
        if options.command == "lineage":
            for line in lineage_lines(options.path, show_all=options.all):
                print(line)
            return 0
        if options.command == "validate":
            return _validate(options.format, options.path, options.json)
        return _dump(options.format, options.path)
    except FormatError as error:
        print(f"{error.code} {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 0


if __name__ == "__main__":
    sys.exit(main())

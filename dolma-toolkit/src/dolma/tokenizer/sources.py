"""Token shards in directories, and what their manifests say of all of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dolma.commands.tokens import ITEM_TYPES, tokenizer_path
from dolma.errors import ConfigError, Problem
from dolma.files.mirror import named
from dolma.formats import manifest
from dolma.formats.files import sha256_of

__all__ = ["Known", "Shard", "details_of", "item_type_problems", "shards_in", "shards_of"]

RECORDS = (".dolma/progress.ndjson", ".progress.jsonl")
"""Records in a directory that a command writes, by their current and earlier names."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """A ``.npy`` with its table; ``owner`` is the manifest that lists both."""

    npy: Path
    size_bytes: int
    owner: manifest.Manifest | None

    @property
    def csv(self) -> Path:
        """The table of boundaries."""
        return self.npy.with_suffix(".csv.gz")

    def plan(self) -> dict[str, Any]:
        """As the core reads it."""
        hashes = None
        if self.owner is not None:
            stated = {entry["path"]: entry["sha256"] for entry in self.owner.fields.value["files"]}
            names = (path.relative_to(self.owner.directory).as_posix() for path in (self.npy, self.csv))
            hashes = [stated[name] for name in names]
        return {"npy": str(self.npy), "csv": str(self.csv), "sha256": hashes}


@dataclasses.dataclass(frozen=True)
class Known:
    """What settings say of shards that have no manifest."""

    tokenizer_name_or_path: str | None
    dtype: str | None
    eos_token_id: int | None


def item_type_problems(dtype: str | None) -> Iterator[Problem]:
    """A problem for a type that shards do not have."""
    if dtype is not None and dtype not in ITEM_TYPES:
        yield Problem("dtype", f'is "{dtype}"; expected one of {", ".join(ITEM_TYPES)}')


def shards_in(key: str, directory: str) -> list[Shard]:
    """The shards of a directory tree, sorted by path: those that a manifest lists, and all where there is none.

    Raises:
        ConfigError: there is none, one has no table, or the run that writes them is not finished.
        FormatError: a manifest is not one of tokens.
    """
    root, shown = Path(directory), named(directory)
    if not root.is_dir():
        raise ConfigError([Problem(key, f'is "{shown}", which was not found; expected a directory of token shards')])
    owners: dict[Path, manifest.Manifest | None] = {}
    found: list[Shard] = []
    for path in sorted(root.rglob("*.npy"), key=lambda path: path.relative_to(root).as_posix()):
        if any(part.startswith(".") for part in path.relative_to(root).parts):
            continue
        owner = _owner(key, path.parent, root, owners)
        if owner is not None:
            name = path.relative_to(owner.directory)
            if name.as_posix() not in owner.paths or name.with_suffix(".csv.gz").as_posix() not in owner.paths:
                continue
        shard = Shard(path, path.stat().st_size, owner)
        if not shard.csv.is_file():
            message = f'holds {path.name} without {shard.csv.name}; expected the table beside each shard in "{shown}"'
            raise ConfigError([Problem(key, message)])
        found.append(shard)
    if not found:
        raise ConfigError([Problem(key, f'is "{shown}", which holds no shard; expected .npy files with their .csv.gz')])
    return found


def shards_of(directories: Iterable[str]) -> list[Shard]:
    """The shards of several directories, in their order; one that two of them hold is taken once.

    Raises:
        ConfigError: as ``shards_in``.
    """
    found = {shard.npy.absolute(): shard for directory in directories for shard in shards_in("sources", directory)}
    return list(found.values())


def _owner(
    key: str, directory: Path, root: Path, owners: dict[Path, manifest.Manifest | None]
) -> manifest.Manifest | None:
    if directory not in owners:
        if (directory / manifest.FILE_NAME).is_file():
            owners[directory] = manifest.read(directory, "tokens")
        elif any((directory / name).exists() for name in RECORDS):
            message = f'holds "{named(str(directory))}", which is not finished; expected a manifest.json there'
            raise ConfigError([Problem(key, message, "run the command that writes it again")])
        else:
            owners[directory] = None if directory == root else _owner(key, directory.parent, root, owners)
    return owners[directory]


def details_of(shards: Iterable[Shard], known: Known) -> tuple[dict[str, Any], Path | None]:
    """What a manifest says of all the shards, and the ``tokenizer.json`` where it is at hand.

    Raises:
        ConfigError: the shards differ, or neither manifest nor settings tell.
    """
    owners = {shard.owner.directory: shard.owner for shard in shards if shard.owner is not None}
    found: dict[str, Any] = {}
    where = Path()
    for directory, owner in owners.items():
        details = _details(owner)
        for name, value in details.items():
            if found and found[name] != value:
                message = (
                    f"{named(str(directory))} has {name} {value}, {named(str(where))} {found[name]}; "
                    "expected shards of one tokenizer and item type"
                )
                raise ConfigError([Problem("sources", message)])
        found, where = details, directory
    tokenizer = next((path for d in owners if (path := d / "tokenizer.json").is_file()), None)
    foreign = next((shard for shard in shards if shard.owner is None), None)
    if known.tokenizer_name_or_path is None and foreign is not None:
        message = f"is missing; expected the tokenizer of {named(str(foreign.npy))}, as no manifest tells of it"
        raise ConfigError([Problem("tokenizer_name_or_path", message, "give the path of its tokenizer.json")])
    if known.tokenizer_name_or_path is not None and (foreign is not None or not found):
        stated = _stated(known, found.get("eos_token_id"))
        for name in ("tokenizer_sha256", "dtype") if found else ():
            if stated[name] != found[name]:
                message = f"gives {name} {stated[name]}; expected {found[name]}, as {named(str(where))} has"
                raise ConfigError([Problem("tokenizer_name_or_path", message)])
        return found or stated, tokenizer_path(known.tokenizer_name_or_path)
    return found, tokenizer


def _details(owner: manifest.Manifest) -> dict[str, Any]:
    details = owner.details
    ids = ("eos_token_id", "bos_token_id", "pad_token_id")
    return {
        "dtype": details.string("dtype"),
        "vocab_size": details.integer("vocab_size"),
        **{name: None if details.get(name) is None else details.integer(name) for name in ids},
        "tokenizer_sha256": details.hash("tokenizer_sha256"),
    }


def _stated(known: Known, eos_token_id: int | None) -> dict[str, Any]:
    path = tokenizer_path(known.tokenizer_name_or_path or "")
    size = _vocabulary(path)
    return {
        "dtype": known.dtype or ("uint16" if size <= 1 << 16 else "uint32"),
        "vocab_size": size,
        "eos_token_id": eos_token_id if known.eos_token_id is None else known.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": None,
        "tokenizer_sha256": sha256_of(path),
    }


def _vocabulary(path: Path) -> int:
    """The least number above all ids."""
    try:
        content = json.loads(path.read_bytes())
        vocabulary = content["model"]["vocab"]
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
        highest: int = max([*ids, *(token["id"] for token in content.get("added_tokens") or [])])
        return highest + 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f'is "{path}", which is not a tokenizer ({error!r}); expected a tokenizer.json'
        raise ConfigError([Problem("tokenizer_name_or_path", message)]) from None

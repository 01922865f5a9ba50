"""Token shards as inputs: which there are, what their manifests say of all of them, and work on them in the core."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dolma import _native
from dolma.config import REQUIRED, WorkDir, at_least, setting
from dolma.errors import ConfigError, Problem
from dolma.files.paths import named
from dolma.formats.files import sha256_of
from dolma.formats.manifest import MANIFEST, Manifest, read_manifest
from dolma.places import InputDirectory, LocalPath, OutputDirectory
from dolma.records import Reporter, count_text, error_log, save_config

__all__ = [
    "ITEM_TYPES",
    "Known",
    "Shard",
    "ShardsConfig",
    "derive",
    "details_of",
    "item_type_problems",
    "shards_in",
    "shards_of",
    "tokenizer_path",
]

log = logging.getLogger(__name__)

ITEM_TYPES = ("uint8", "uint16", "uint32")
_OTHER_TOKENIZERS = ("tokenizer.model", "spiece.model", "tiktoken.model", "vocab.json", "merges.txt", "vocab.txt")
"""Tokenizer files that are not supported."""
RECORDS = (".dolma/progress.ndjson", ".progress.jsonl")
"""Records in a directory that a command writes, by their current and earlier names."""


def tokenizer_path(name: str) -> Path:
    """The ``tokenizer.json`` for a path, a directory, or a name in the local Hugging Face cache; nothing is fetched.

    Raises:
        ConfigError: no tokenizer is found.
    """
    path = Path(name)
    if path.is_file():
        return path
    if (path / "tokenizer.json").is_file():
        return path / "tokenizer.json"
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"models--{name.replace('/', '--')}"
    reference = cache / "refs" / "main"
    if reference.is_file():
        cached = cache / "snapshots" / reference.read_text().strip() / "tokenizer.json"
        if cached.is_file():
            return cached
    others = [other for other in _OTHER_TOKENIZERS if (path / other).is_file()]
    if path.is_dir() and others:
        message = f'is "{name}", which has {", ".join(others)} but no tokenizer.json; expected that file'
        hint = "write it with transformers: `AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY)`"
        raise ConfigError([Problem("tokenizer.name_or_path", message, hint)])
    if path.exists() and not path.is_dir():
        message = f'is "{name}", a pipe or a device; expected a file'
        raise ConfigError([Problem("tokenizer.name_or_path", message, "write it to a file first")])
    message = f'is "{name}", which is neither a file, a directory with tokenizer.json, nor in the local cache'
    hint = f"give a path, or fetch it once: `hf download {name} tokenizer.json`" if name.count("/") == 1 else ""
    raise ConfigError([Problem("tokenizer.name_or_path", f"{message}; expected a tokenizer", hint)])


@dataclasses.dataclass(frozen=True)
class Shard:
    """A ``.npy`` with its table; ``owner`` is the manifest that lists both."""

    npy: Path
    size_bytes: int
    owner: Manifest | None

    @property
    def csv(self) -> Path:
        """The table of boundaries."""
        return self.npy.with_suffix(".csv.gz")

    def plan(self) -> dict[str, Any]:
        """As the core reads it."""
        hashes = None
        if self.owner is not None:
            stated = {entry["path"]: entry["sha256"] for entry in self.owner.files}
            names = (path.relative_to(self.owner.directory).as_posix() for path in (self.npy, self.csv))
            hashes = [stated[name] for name in names]
        return {"npy": str(self.npy), "csv": str(self.csv), "sha256": hashes}


@dataclasses.dataclass(frozen=True)
class Known:
    """What settings say of shards that have no manifest."""

    tokenizer_name_or_path: LocalPath | None
    dtype: str | None
    eos_token_id: int | None


def item_type_problems(dtype: str | None) -> Iterator[Problem]:
    """A problem for a type that shards do not have."""
    if dtype is not None and dtype not in ITEM_TYPES:
        yield Problem("dtype", f'is "{dtype}"; expected one of {", ".join(ITEM_TYPES)}')


def shards_in(key: str, directory: str) -> list[Shard]:
    """The shards of a directory tree, sorted by path: those that a manifest lists, or all without one.

    Raises:
        ConfigError: no shard is found, one has no table, or the run that writes them is not finished.
        FormatError: a manifest is not one of tokens.
    """
    root, shown = Path(directory), named(directory)
    if not root.is_dir():
        raise ConfigError([Problem(key, f'is "{shown}", which was not found; expected a directory of token shards')])
    owners: dict[Path, Manifest | None] = {}
    found: list[Shard] = []
    for path in sorted(root.rglob("*.npy"), key=lambda path: path.relative_to(root).as_posix()):
        if any(part.startswith(".") for part in path.relative_to(root).parts):
            continue
        owner = _owner(key, path.parent, root, owners)
        if owner is not None:
            name, listed = path.relative_to(owner.directory), {row["path"] for row in owner.files}
            if not {name.as_posix(), name.with_suffix(".csv.gz").as_posix()} <= listed:
                continue
        shard = Shard(path, path.stat().st_size, owner)
        if not shard.csv.is_file():
            message = f'has {path.name} without {shard.csv.name}; expected the table next to each shard in "{shown}"'
            raise ConfigError([Problem(key, message)])
        found.append(shard)
    if not found:
        raise ConfigError([Problem(key, f'is "{shown}", which has no shard; expected .npy files with their .csv.gz')])
    return found


def shards_of(directories: Iterable[str]) -> list[Shard]:
    """The shards of several directories, in their order; one that two of them have is taken once.

    Raises:
        ConfigError: as ``shards_in``.
    """
    found = {shard.npy.absolute(): shard for directory in directories for shard in shards_in("sources", directory)}
    return list(found.values())


def _owner(key: str, directory: Path, root: Path, owners: dict[Path, Manifest | None]) -> Manifest | None:
    if directory not in owners:
        if (directory / MANIFEST).is_file():
            owners[directory] = read_manifest(directory, "tokens")
        elif any((directory / name).exists() for name in RECORDS):
            message = f'has "{named(str(directory))}", which is not finished; expected a manifest.json there'
            raise ConfigError([Problem(key, message, "run the command that writes it again")])
        else:
            owners[directory] = None if directory == root else _owner(key, directory.parent, root, owners)
    return owners[directory]


def details_of(shards: Iterable[Shard], known: Known) -> tuple[dict[str, Any], Path | None]:
    """What a manifest says of all the shards, and the ``tokenizer.json`` if there is one.

    Raises:
        ConfigError: the shards differ, or neither manifest nor settings say.
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
        message = f"is missing; expected the tokenizer of {named(str(foreign.npy))}, as it has no manifest"
        raise ConfigError([Problem("tokenizer_name_or_path", message, "give the path of its tokenizer.json")])
    if known.tokenizer_name_or_path is not None and (foreign is not None or not found):
        stated = _stated(known, found.get("eos_token_id"))
        for name in ("tokenizer_sha256", "dtype") if found else ():
            if stated[name] != found[name]:
                message = f"gives {name} {stated[name]}; expected {found[name]}, as {named(str(where))} has"
                raise ConfigError([Problem("tokenizer_name_or_path", message)])
        return found or stated, tokenizer_path(known.tokenizer_name_or_path)
    return found, tokenizer


def _details(owner: Manifest) -> dict[str, Any]:
    details = owner.fields("details")
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
    """One more than the highest id."""
    try:
        content = json.loads(path.read_bytes())
        vocabulary = content["model"]["vocab"]
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
        highest: int = max([*ids, *(token["id"] for token in content.get("added_tokens") or [])])
        return highest + 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f'is "{path}", which is not a tokenizer ({error!r}); expected a tokenizer.json'
        raise ConfigError([Problem("tokenizer_name_or_path", message)]) from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardsConfig:
    """Settings of every command that makes something of each token shard."""

    sources: list[InputDirectory] = setting([], "directories of token shards")
    destination: OutputDirectory = setting(REQUIRED, "directory for the results, one for each source shard")
    processes: int = setting(1, "number of threads; the output does not depend on it")
    tokenizer_name_or_path: str | None = setting(None, "tokenizer of shards without a manifest")
    dtype: str | None = setting(None, "item type of shards without a manifest (default: by the tokenizer)")
    eos_token_id: int | None = setting(None, "token that ends documents in shards without a manifest")
    work_dir: WorkDir = setting(WorkDir(), "")
    dryrun: bool = setting(False, "print the settings and stop")

    def check(self) -> Iterator[Problem]:
        """What is wrong between the settings."""
        if not self.sources:
            yield Problem("sources", "is empty; expected directories of token shards")
        yield from at_least(1, processes=self.processes)
        yield from at_least(0, eos_token_id=self.eos_token_id)
        yield from item_type_problems(self.dtype)

    def known(self) -> Known:
        """What the settings say of shards without a manifest."""
        return Known(self.tokenizer_name_or_path, self.dtype, self.eos_token_id)


def derive(
    config: Any,
    destination: Path,
    threads: int,
    shards: Sequence[Shard],
    details: Mapping[str, Any],
    tokenizer: Path | None,
    settings: Mapping[str, Any],
    work: Mapping[str, Any],
    summarize: Callable[[Mapping[str, int]], str] = lambda counts: "",
) -> None:
    """Writes the missing outputs. ``settings`` go to the manifest, ``work`` goes to the core."""
    name = str(settings["command"])
    plan = {
        "sources": [shard.plan() for shard in shards],
        "destination": str(destination),
        "threads": threads,
        "details": dict(details),
        "tokenizer": None if tokenizer is None else str(tokenizer),
        "config": dict(settings),
        "work": dict(work),
    }
    reporter = Reporter(name, [destination])
    start = time.monotonic()
    with error_log(destination):
        summary = json.loads(_native.derive_tokens(json.dumps(plan), reporter))
    save_config(config, [destination])
    counts = summary["counts"]
    if summary["discarded"]:
        log.warning(f"{name}  {summary['discarded']} shards of an unfinished, other run were removed")
    text = f"{count_text(counts['documents'])} documents  {count_text(counts['tokens'])} tokens"
    text += f"  {summary['outputs']} shards ({summary['kept']} were finished before)"
    reporter.finish(time.monotonic() - start, counts, text + summarize(counts))

"""``dolma reshard``: token shards to token shards of other sizes, sources sampled and repeated.

Given the same list of files in the same order, the choices are those of ``dolma.tokenizer.reshard`` 1.2.1 with the same
seed. It takes files as the directory lists them; here they are sorted.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from dolma.config import REQUIRED, WorkDir, at_least, setting, shown_and_done
from dolma.errors import ConfigError, Problem, raises_dolma_errors
from dolma.files.paths import named
from dolma.places import InputDirectory, LocalPath, OutputDirectory
from dolma.staging import with_remote_paths
from dolma.tokenizer import Known, Shard, derive, details_of, item_type_problems, shards_in

__all__ = ["Config", "SourcePrefix", "run"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourcePrefix:
    """A directory of token shards, and how much of it is taken."""

    prefix: InputDirectory = setting(REQUIRED, "directory of token shards")
    sample_rate: float = setting(1.0, "copies of every shard; a fraction takes a random share of the shards once more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of ``dolma reshard``: those of ``python -m dolma.tokenizer.reshard`` of dolma 1.x, and some more."""

    source_prefixes: list[SourcePrefix] = setting([], "")
    sources: list[InputDirectory] = setting(
        [], "directories of token shards that are taken once, after source_prefixes"
    )
    destination_prefix: OutputDirectory = setting(REQUIRED, "directory for the shards")
    local_tempdir: LocalPath | None = setting(None, "directory for copies of remote shards (default: a temporary one)")
    max_size_bytes: int | None = setting(None, "size of a shard; this or max_num_files is required")
    max_num_files: int | None = setting(None, "number of shards; this or max_size_bytes is required")
    max_workers: int = setting(os.cpu_count() or 1, "number of threads; the output does not depend on it")
    random_seed: int = setting(42, "seed of the choice of shards")
    tokenizer_name_or_path: LocalPath | None = setting(None, "tokenizer of shards without a manifest")
    dtype: str | None = setting(None, "item type of shards without a manifest (default: by the tokenizer)")
    eos_token_id: int | None = setting(None, "token that ends documents in shards without a manifest")
    dryrun: bool = setting(False, "print the settings and stop")

    @property
    def work_dir(self) -> WorkDir:
        """Where copies of remote shards go."""
        return WorkDir(output=self.local_tempdir)

    def check(self) -> Iterator[Problem]:
        """What is wrong between the settings."""
        if not self.source_prefixes and not self.sources:
            yield Problem("source_prefixes", "is empty; expected directories of token shards, here or in sources")
        for index, source in enumerate(self.source_prefixes):
            if not 0 < source.sample_rate < float("inf"):
                yield Problem(f"source_prefixes.{index}.sample_rate", f"is {source.sample_rate}; expected above 0")
        if (self.max_size_bytes is None) == (self.max_num_files is None):
            state = "missing" if self.max_size_bytes is None else "given together with max_num_files"
            yield Problem("max_size_bytes", f"is {state}; expected one of max_size_bytes and max_num_files")
        yield from at_least(
            1, max_size_bytes=self.max_size_bytes, max_num_files=self.max_num_files, max_workers=self.max_workers
        )
        yield from at_least(0, random_seed=self.random_seed, eos_token_id=self.eos_token_id)
        yield from item_type_problems(self.dtype)


@with_remote_paths()
@raises_dolma_errors
def run(config: Config) -> None:
    """Writes the missing shards, then the manifest."""
    if shown_and_done(config):
        return
    prefixes = [(source.prefix, source.sample_rate) for source in config.source_prefixes]
    prefixes += [(source, 1.0) for source in config.sources]
    random = Random(config.random_seed)
    shards: list[Shard] = []
    taken: list[int] = []
    for prefix, rate in prefixes:
        found = shards_in("source_prefixes", prefix)
        taken += _sample(range(len(shards), len(shards) + len(found)), rate, random)
        shards += found
    shards, taken = _distinct(shards, taken)
    known = Known(config.tokenizer_name_or_path, config.dtype, config.eos_token_id)
    details, tokenizer = details_of(shards, known)
    destination = Path(config.destination_prefix)
    settings = {
        "command": "reshard",
        "max_num_files": config.max_num_files,
        "max_size_bytes": config.max_size_bytes,
        "random_seed": config.random_seed,
        "sources": [{"path": _relative(prefix, destination), "sample_rate": rate} for prefix, rate in prefixes],
    }
    work: dict[str, Any] = {"command": "reshard", "max_size_bytes": config.max_size_bytes}
    work["groups"] = _groups(config, shards, taken, random)
    derive(config, destination, config.max_workers, shards, details, tokenizer, settings, work)


def _distinct(shards: list[Shard], taken: list[int]) -> tuple[list[Shard], list[int]]:
    """A shard that two prefixes name is one shard; shards that are not taken are not read."""
    positions: dict[Path, int] = {}
    for index in taken:
        positions.setdefault(shards[index].npy.absolute(), len(positions))
    first = {shard.npy.absolute(): shard for shard in reversed(shards)}
    return [first[path] for path in positions], [positions[shards[index].npy.absolute()] for index in taken]


def _groups(config: Config, shards: list[Shard], taken: list[int], random: Random) -> list[list[int]]:
    if config.max_size_bytes is not None:
        return _by_size(taken, [shard.size_bytes for shard in shards], config.max_size_bytes)
    most = max(taken.count(index) for index in set(taken))
    count = config.max_num_files or 1
    if most > count:
        message = f"is {count}; expected at least {most}, as one shard is taken so often"
        raise ConfigError([Problem("max_num_files", message)])
    return _by_count(taken, count, random)


def _relative(prefix: str, destination: Path) -> str:
    shown = named(str(Path(prefix).absolute()))
    return shown if "://" in shown else Path(os.path.relpath(prefix, destination)).as_posix()


def _sample(files: Sequence[int], rate: float, random: Random) -> list[int]:
    """Every file as often as the rate says, and a random share of them once more for its fraction."""
    whole = math.floor(rate)
    taken = list(files) * whole
    share = rate - whole
    if share > 0:
        taken += random.sample(list(files), max(1, round(share * len(files))))
    return taken


def _by_size(taken: Sequence[int], sizes: Sequence[int], max_size_bytes: int) -> list[list[int]]:
    """Files in turn until the next does not fit; copies of one file are never in one group."""
    left = dict(Counter(taken))
    groups: list[list[int]] = []
    while left:
        group: list[int] = []
        size = 0
        for file in sorted(left, key=lambda file: -left[file]):
            if group and size + sizes[file] > max_size_bytes:
                groups.append(group)
                group, size = [], 0
            group.append(file)
            size += sizes[file]
        groups.append(group)
        left = {file: count - 1 for file, count in left.items() if count > 1}
    return groups


def _by_count(taken: Sequence[int], max_num_files: int, random: Random) -> list[list[int]]:
    """At most so many groups; the copies of a file go to different ones, more likely to emptier ones."""
    groups: list[list[int]] = [[] for _ in range(max_num_files)]
    for file, copies in Counter(taken).items():
        weights = [1 / (len(group) + 1) for group in groups]
        total = sum(weights)
        keys = [random.random() * (weight / total) for weight in weights]
        for index in sorted(range(max_num_files), key=lambda index: keys[index], reverse=True)[:copies]:
            groups[index].append(file)
    return [group for group in groups if group]


if __name__ == "__main__":  # `python -m dolma.commands.reshard` is `dolma reshard`
    import sys

    from dolma.__main__ import main

    main(["reshard", *sys.argv[1:]])

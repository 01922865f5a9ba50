"""order.json: the whole order of a run in a few hundred bytes, and what the shards must be for it to hold.

It is written once, when a run begins. With it and the shards alone, wherever they lie by then, any step's documents are
found again; config, checkpoints and tokenizer may be gone. A continued run is refused if its order would be another.

    version          1
    seed, data       as in the config, defaults left out; paths as seen from order.json
    train            steps and batches
    sources          of each: sha256, and its shards, tokens and windows
    ranks            [step, n]: from that step on, n ranks divided each batch
    left_out         positions [first, last) that the run left out when it went back (runtime/watch.py)

The sha256 of a source is that of its manifest.json, which lists each file's; without one it is that of the lines
`<sha256>  <bytes>  <name>` of its shards and boundaries, sorted by name.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..config.errors import ConfigError, Problem
from ..config.parse import as_mapping, build
from ..config.schema import DataConfig, RunConfig, TrainConfig
from ..formats.fields import field_of, mismatch
from ..formats.files import write_atomically
from ..formats.json_lines import read_object, sha256_file
from ..formats.tokens import TokenDirectory
from .batches import BatchPlan
from .order import DataOrder
from .sources import TrainingData, open_directories, order_of, window_sources
from .windows import WindowSource

__all__ = ["ORDER", "KnownOrder", "keep_left_out", "keep_order", "open_order", "order_manifest", "verified"]

ORDER = "order.json"
VERSION = 1
_DATA = ("sequence_length", "order", "packing", "long_documents")
_SOURCE = ("path", "ratio", "max_tokens", "dtype", "eos_token_id", "bos_token_id", "pad_token_id")
_TRAIN = ("steps", "batch_windows", "micro_batch_windows", "batch_warmup", "length_warmup")


@cache
def _hashed_at(path: Path, size_bytes: int, changed_ns: int) -> str:
    return sha256_file(path)


def _hashed(path: Path) -> str:
    """The sha256 of a file, which a process reads once as long as it does not change."""
    status = path.stat()
    return _hashed_at(path, status.st_size, status.st_mtime_ns)


def _digest(directory: TokenDirectory) -> str:
    if directory.manifest is not None:
        return directory.manifest.identity
    lines = []
    for shard in directory.shards:
        for path in (shard.path, shard.boundaries_path):
            if path is not None:
                name = path.relative_to(directory.path).as_posix()
                lines.append(f"{_hashed(path)}  {path.stat().st_size}  {name}\n")
    return hashlib.sha256("".join(sorted(lines, key=lambda line: line.split("  ", 2)[2])).encode()).hexdigest()


def order_manifest(config: RunConfig, data: TrainingData, directory: Path) -> dict[str, Any]:
    """What order.json says of a resolved config before the first step, written into a directory."""
    whole = as_mapping(config)
    defaults = {**as_mapping(DataConfig(sources=(), sequence_length=0)), **as_mapping(TrainConfig(batch_windows=0))}

    def chosen(group: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        kept = {name: group[name] for name in names if group[name] is not None}
        return {name: value for name, value in kept.items() if name not in defaults or value != defaults[name]}

    sources = [chosen(source, _SOURCE) for source in whole["data"]["sources"]]
    for source in sources:
        source["path"] = Path(os.path.relpath(source["path"], directory)).as_posix()
    return {
        "version": VERSION,
        "seed": config.seed,
        "data": {**chosen(whole["data"], _DATA), "sources": sources},
        "train": chosen(whole["train"], _TRAIN),
        "sources": [
            {
                "sha256": _digest(source.directory),
                "shards": len(source.directory.shards),
                "tokens": sum(shard.tokens for shard in source.directory.shards),
                "windows": len(source),
            }
            for source in data.sources
        ],
        "ranks": [],
        "left_out": [],
    }


def keep_order(config: RunConfig, data: TrainingData, directory: Path, *, done_steps: int, world_size: int = 1) -> None:
    """Write order.json; for a run that has done steps, check first that its order is the one it was begun with.

    Raises: FormatError: `checksum_mismatch`: the shards are not what they were.
    """
    path, made = directory / ORDER, order_manifest(config, data, directory)
    if done_steps and path.is_file():
        before = read_object(path)
        made["left_out"] = before["left_out"]
        made["ranks"] = [row for row in before["ranks"] if row[0] <= done_steps]
        for index, (was, now) in enumerate(zip(before["sources"], made["sources"], strict=True)):
            if was != now:
                _refuse(data.sources[index].directory, path, was["sha256"], now["sha256"])
    if not made["ranks"] or made["ranks"][-1][1] != world_size:
        made["ranks"].append([done_steps + 1, world_size])
    _write(path, made)


def keep_left_out(left_out: Sequence[tuple[int, int]], directory: Path) -> None:
    """Have order.json tell what the run leaves out."""
    _write(directory / ORDER, {**read_object(directory / ORDER), "left_out": left_out})


def _write(path: Path, row: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(row, separators=(",", ":"), sort_keys=True) + "\n").encode())


def _refuse(directory: TokenDirectory, order: Path, was: str, now: str) -> None:
    got, expected = f"other shards (sha256 {now[:12]}…)", f"those of sha256 {was[:12]}…, with which {order} was written"
    raise mismatch(directory.path, "checksum_mismatch", got, expected)


@dataclass(frozen=True, kw_only=True)
class KnownOrder:
    """What order.json and the shards tell."""

    path: Path
    sources: tuple[WindowSource, ...]
    order: DataOrder
    batches: BatchPlan
    steps: int
    micro_batch_windows: int
    ranks: tuple[tuple[int, int], ...]

    def world_size(self, step: int) -> int:
        """The ranks that divided the batch of a step."""
        return self.ranks[bisect_right(self.ranks, step, key=lambda row: row[0]) - 1][1]


def open_order(path: Path, places: list[Path], *, unchecked: bool) -> KnownOrder:
    """Open order.json, or that of a run's directory, with its shards; `places` say where the sources lie now.

    Unless `unchecked`, shards without a manifest are held against their sha256; those with one are as they are read.
    Raises: ConfigError: it or the shards are missing; FormatError: it is damaged, or the shards are different ones.
    """
    path = path / ORDER if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(
            Problem(f"{path.parent}: has no {path.name}; expected the directory of a run, or its {ORDER}")
        )
    row = read_object(path)
    if field_of(row, "version", "an integer", path) > VERSION:
        raise mismatch(path, "unsupported_version", str(row["version"]), f"versions 1 to {VERSION}", field="version")
    seed = field_of(row, "seed", "an integer", path)
    data = build(DataConfig, field_of(row, "data", "an object", path), str(path))
    train = build(TrainConfig, field_of(row, "train", "an object", path), str(path))
    stated, ranks = field_of(row, "sources", "an array", path), field_of(row, "ranks", "an array", path)
    if places and len(places) != len(data.sources):
        what = f"--data: is given {len(places)} times; expected {len(data.sources)}, once for each source of {path}"
        raise ConfigError(Problem(what))
    places = places or [Path(os.path.normpath(path.parent / source.path)) for source in data.sources]
    moved = (replace(source, path=str(place)) for source, place in zip(data.sources, places, strict=True))
    data = replace(data, sources=tuple(moved))
    directories = open_directories(data, str(path))
    for directory, source in zip(directories, stated, strict=True):
        if directory.manifest is None and unchecked:
            continue
        if (found := _digest(directory)) != source["sha256"]:
            _refuse(directory, path, source["sha256"], found)
        if data.packing == "best_fit" and not unchecked:
            for shard in directory.shards:
                verified(directory, shard.boundaries_path or shard.path)
    sources = window_sources(data, directories, str(path))
    for opened, source in zip(sources, stated, strict=True):
        if len(opened) != source["windows"]:
            got, expected = f"{len(opened)} windows", f"{source['windows']}, as when the run was begun"
            raise mismatch(opened.directory.path, "invalid_value", got, expected)
    assert train.steps is not None
    order = order_of(data, sources, seed, train.batch_windows, str(path))
    order.gaps = tuple((first, last) for first, last in field_of(row, "left_out", "an array", path))
    return KnownOrder(
        path=path,
        sources=tuple(sources),
        order=order,
        batches=BatchPlan(train, data.sequence_length),
        steps=train.steps,
        micro_batch_windows=train.micro_batch_windows or train.batch_windows,
        ranks=tuple((step, world_size) for step, world_size in ranks),
    )


def verified(directory: TokenDirectory, path: Path) -> Path:
    """A file of a directory with a manifest, held against the sha256 listed there; each file once.

    Raises: FormatError: `checksum_mismatch`.
    """
    if directory.manifest is not None:
        name = path.relative_to(directory.path).as_posix()
        listed = next((row["sha256"] for row in directory.manifest.files if row["path"] == name), "none")
        if (found := _hashed(path)) != listed:
            expected = f"sha256 {listed[:12]}…, as {directory.manifest.path} lists"
            raise mismatch(path, "checksum_mismatch", f"damaged (sha256 {found[:12]}…)", expected)
    return path

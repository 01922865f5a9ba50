"""order.json, and from it which documents were in a step and in which steps a document was.

order.json has the whole order of a run in a few hundred bytes, and what the shards must be for it to be valid. It is
written when a run begins. With it and the shards, wherever they are by then, the documents of any step can be found;
config, checkpoints and tokenizer may be gone. A continued run is refused if its order would be different.

    version          1
    seed, data       as in the config, without defaults; paths relative to order.json
    train            steps and batches
    sources          for each: sha256, and its shards, tokens and windows
    ranks            [step, n]: from that step on, n ranks divided each batch
    left_out         positions [first, last) that the run skipped when it went back (stability.py)

The sha256 of a source is that of its manifest.json, which lists each file's; without one it is that of the lines
`<sha256>  <bytes>  <name>` of its shards and boundaries, sorted by name.
"""

import gzip
import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ..config.schema import DataConfig, RunConfig, TrainConfig
from ..formats.checkpoint import open_tokenizer
from ..formats.contract import ConfigError, Fields, mismatch, read_object, read_rows, sha256_file, write_file
from ..formats.tokens import Boundary, Shard, TokenDirectory, boundaries
from ..settings import as_mapping, build, in_file
from .order import BatchSchedule, rank_slice
from .sources import TrainingData, open_directories, order_of, window_sources
from .windows import Piece

__all__ = ["ORDER", "Provenance", "keep_order", "record_skipped"]


# ---- order.json

ORDER = "order.json"
VERSION = 1
_DATA = ("sequence_length", "order", "packing", "long_documents")
_SOURCE = ("path", "ratio", "max_tokens", "dtype", "eos_token_id", "bos_token_id", "pad_token_id")
_TRAIN = ("steps", "batch_windows", "micro_batch_windows", "batch_warmup", "length_warmup")


@cache
def _hashed_at(path: Path, size_bytes: int, changed_ns: int) -> str:
    return sha256_file(path)


def _hashed(path: Path) -> str:
    """The sha256 of a file, computed once per process unless the file changes."""
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
    """The content of order.json for a resolved config before the first step, with paths relative to a directory."""
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


def record_skipped(skipped: Sequence[tuple[int, int]], directory: Path) -> None:
    """Record in order.json which positions the run skips."""
    _write(directory / ORDER, {**read_object(directory / ORDER), "left_out": skipped})


def _write(path: Path, row: dict[str, Any]) -> None:
    write_file(path, (json.dumps(row, separators=(",", ":"), sort_keys=True) + "\n").encode())


def _refuse(directory: TokenDirectory, order: Path, was: str, now: str) -> None:
    got, expected = f"other shards (sha256 {now[:12]}…)", f"those of sha256 {was[:12]}…, with which {order} was written"
    raise mismatch("checksum_mismatch", directory.path, got, expected)


# ---- step <-> document


class Provenance:
    """Both directions of a run's order.

    `path` is order.json or a run directory with one, `folders` are the sources' current directories. Unless
    `unchecked`, the sha256 of shards without a manifest is checked now, of those with one when they are read. With
    `documents`, the directory that the shards' `src` are relative to, rows also have the documents' source and URL.
    `world_size` replaces the number of ranks in order.json.
    """

    def __init__(
        self,
        path: Path,
        folders: list[Path],
        *,
        unchecked: bool = False,
        documents: Path | None = None,
        world_size: int | None = None,
    ) -> None:
        path = path / ORDER if path.is_dir() else path
        if not path.is_file():
            raise ConfigError(f"{path.parent}: has no {path.name}; expected the directory of a run, or its {ORDER}")
        fields = Fields(read_object(path), path)
        if (version := fields.integer("version")) > VERSION:
            raise mismatch("unsupported_version", path, f"{version}", f"versions 1 to {VERSION}", field="version")
        data = build(DataConfig, fields.object("data").value, str(path))
        train = build(TrainConfig, fields.object("train").value, str(path))
        stated, ranks = fields.array("sources"), fields.array("ranks")
        if folders and len(folders) != len(data.sources):
            times = f"{len(data.sources)}, once for each source of {path}"
            raise ConfigError(f"--data: is given {len(folders)} times; expected {times}")
        folders = folders or [Path(os.path.normpath(path.parent / source.path)) for source in data.sources]
        moved = (replace(source, path=str(now)) for source, now in zip(data.sources, folders, strict=True))
        data = replace(data, sources=tuple(moved))
        self._unchecked, self._documents = unchecked, documents
        with in_file(path):
            directories = open_directories(data)
        for directory, source in zip(directories, stated, strict=True):
            if directory.manifest is None and unchecked:
                continue
            if (found := _digest(directory)) != source["sha256"]:
                _refuse(directory, path, source["sha256"], found)
            if data.packing == "best_fit":
                for shard in directory.shards:
                    self._check(directory, shard.boundaries_path or shard.path)
        with in_file(path):
            self.sources = window_sources(data, directories)
            self.order = order_of(data, self.sources, fields.integer("seed"), train.batch_windows)
        for opened, source in zip(self.sources, stated, strict=True):
            if len(opened) != source["windows"]:
                got, expected = f"{len(opened)} windows", f"{source['windows']}, as when the run began"
                raise mismatch("invalid_value", opened.directory.path, got, expected)
        assert train.steps is not None
        self.order.gaps = tuple((first, last) for first, last in fields.array("left_out"))
        self.path, self.batches, self.steps = path, BatchSchedule(train, data.sequence_length), train.steps
        self._micro_batch_windows = train.micro_batch_windows or train.batch_windows
        self._ranks = [(step, world_size or count) for step, count in ranks]
        self._boundaries: dict[Path, tuple[list[int], list[Boundary]]] = {}
        self._origins: dict[Path, dict[int, dict[str, Any]]] = {}
        self._tokenizers: dict[Path, Tokenizer] = {}

    def _world_size(self, step: int) -> int:
        """The ranks that divided the batch of a step."""
        return self._ranks[bisect_right(self._ranks, step, key=lambda row: row[0]) - 1][1]

    def _check(self, directory: TokenDirectory, path: Path) -> None:
        """Check a file of a directory with a manifest against the sha256 listed there, once per file."""
        if self._unchecked or directory.manifest is None:
            return
        name = path.relative_to(directory.path).as_posix()
        listed = next((row["sha256"] for row in directory.manifest.files if row["path"] == name), "none")
        if (found := _hashed(path)) != listed:
            expected = f"sha256 {listed[:12]}…, as {directory.manifest.path} lists"
            raise mismatch("checksum_mismatch", path, f"damaged (sha256 {found[:12]}…)", expected)

    def documents_of_step(self, step: int, rank: int | None, *, text: bool) -> Iterator[dict[str, Any]]:
        """A row for each span of a document that was trained on in a step (from 1), by all ranks or by one.

        `position` is that in the order, which has gaps if the run went back; `instance` counts windows through all
        sources; `start` and `end` are token offsets in the file; `text` is the span as the model saw it.
        """
        positions = self._positions(step)
        world_size = self._world_size(step)
        if rank is not None and not 0 <= rank < world_size:
            message = f"--rank: is {rank}; expected 0 to {world_size - 1}, the ranks that divided the batch"
            raise ConfigError(message)
        for position in positions if rank is None else rank_slice(positions, rank, world_size):
            item = self.order.at(position)
            source = self.sources[item.source]
            who = self._who(position, step)
            for piece in source.pieces(item.window):
                shard = source.directory.shards[piece.shard]
                starts, found = self._of(source.directory, shard)
                for number in range(max(0, bisect_right(starts, piece.start) - 1), bisect_right(starts, piece.end - 1)):
                    document = found[number]
                    start, end = max(document.start, piece.start), min(document.end, piece.end)
                    yield {
                        "step": step,
                        "position": item.position,
                        **who,
                        "epoch": item.epoch,
                        "instance": self.order.number(item),
                        "source": str(source.directory.path),
                        "file": shard.name,
                        "window": item.window,
                        "start": start,
                        "end": end,
                        **self._described(document),
                        **({"text": self._text(source.directory, shard, start, end)} if text else {}),
                    }

    def steps_of_document(self, identifier: str, *, text: bool) -> Iterator[dict[str, Any]]:
        """A row for each document with an id: the steps that saw any of it, and `seen`, each occurrence.

        `tokens_left_out` were in no window. A document that had to be cut for the shards has a row for each part.
        """
        found = False
        limit = self.batches.first_window(self.steps + 1)
        for source_index, source in enumerate(self.sources):
            for shard_index, shard in enumerate(source.directory.shards):
                for document in self._of(source.directory, shard)[1]:
                    if document.id != identifier:
                        continue
                    found = True
                    windows = source.windows_of(Piece(shard_index, document.start, document.end))
                    held = [piece for window in windows for piece in source.pieces(window)]
                    inside = sum(
                        max(0, min(document.end, piece.end) - max(document.start, piece.start))
                        for piece in held
                        if piece.shard == shard_index
                    )
                    seen = sorted(
                        (position, window)
                        for window in windows
                        for position in self.order.positions(source_index, window, limit)
                    )
                    steps = [self.batches.step_of(position) for position, _ in seen]
                    yield {
                        "source": str(source.directory.path),
                        "file": shard.name,
                        "start": document.start,
                        "end": document.end,
                        **self._described(document),
                        "tokens_left_out": document.end - document.start - inside,
                        "windows": windows,
                        "steps": sorted(set(steps)),
                        "seen": [
                            {
                                "step": step,
                                "position": self.order.shifted(position),
                                **self._who(position, step),
                                "window": window,
                            }
                            for step, (position, window) in zip(steps, seen, strict=True)
                        ],
                        **({"text": self._text(source.directory, shard, document.start, document.end)} if text else {}),
                    }
        if not found:
            what = f'--document: is "{identifier}"; expected the id of a document in the shards of {self.path}'
            raise ConfigError(what)

    def write_data_indices(self, directory: Path) -> None:
        """Write OLMo's `rank<r>.tsv.gz`: a line a step, the step and the instances of the rank in it."""
        directory.mkdir(parents=True, exist_ok=True)
        steps = range(1, self.steps + 1)
        for rank in range(max(map(self._world_size, steps))):
            lines = []
            for step in steps:
                if rank < (world_size := self._world_size(step)):
                    positions = rank_slice(self._positions(step), rank, world_size)
                    instances = (self.order.number(self.order.at(position)) for position in positions)
                    lines.append("\t".join(map(str, [step, *instances])) + "\n")
            (directory / f"rank{rank}.tsv.gz").write_bytes(gzip.compress("".join(lines).encode(), mtime=0))

    def _positions(self, step: int) -> range:
        if not 1 <= step <= self.steps:
            raise ConfigError(f"--step: is {step}; expected 1 to {self.steps}, the run's steps")
        return range(self.batches.first_window(step), self.batches.first_window(step + 1))

    def _who(self, position: int, step: int) -> dict[str, int]:
        """The rank that read a position in a step, and the number of its micro-batch (from 0)."""
        turn, rank = divmod(position - self.batches.first_window(step), self._world_size(step))
        return {"rank": rank, "micro_batch": turn // self._micro_batch_windows}

    def _of(self, directory: TokenDirectory, shard: Shard) -> tuple[list[int], list[Boundary]]:
        """Starts, rising, and documents of a shard; read once."""
        if shard.path not in self._boundaries:
            self._check(directory, shard.boundaries_path or shard.path)
            found = [item for item in boundaries(shard, directory.eos_token_id) if item.end > item.start]
            self._boundaries[shard.path] = [document.start for document in found], found
        return self._boundaries[shard.path]

    def _text(self, directory: TokenDirectory, shard: Shard, start: int, end: int) -> str:
        path = directory.tokenizer_path
        if path is None:
            text = "the tokenizer that made the ids, for --text"
            raise ConfigError(f"{directory.path}: has no tokenizer.json; expected {text}", hint="remove --text")
        self._check(directory, shard.path)
        if path not in self._tokenizers:
            self._tokenizers[path] = open_tokenizer(path)
        decoded: str = self._tokenizers[path].decode(shard.ids()[start:end].tolist(), skip_special_tokens=False)
        return decoded

    def _described(self, document: Boundary) -> dict[str, Any]:
        """What is known about a document: id, file and line, and that line's source and URL."""
        known = {"id": document.id, "src": document.src, "loc": document.loc}
        if self._documents is None or not document.src:
            return known
        path = self._documents / document.src
        if path not in self._origins:
            self._origins[path] = {line: _origin(row) for line, row in read_rows(path)}
        origin = self._origins[path].get(document.loc)
        if origin is None or origin["id"] != document.id:
            got = "missing" if origin is None else f'of the document "{origin["id"]}"'
            raise mismatch("invalid_value", path, got, f'the document "{document.id}"', line=document.loc)
        return {**known, "document_source": origin["source"], "url": origin["url"]}


def _origin(row: dict[str, Any]) -> dict[str, Any]:
    """Id, source and URL of a row of docs/formats/document.md."""
    metadata = row.get("metadata") or {}
    return {"id": row.get("id"), "source": row.get("source"), "url": metadata.get("url", row.get("url"))}

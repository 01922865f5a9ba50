"""Which documents were in a step, and in which steps a document was.

Nothing is stored while training: the order is a function of order.json (order_manifest.py) and the boundaries lie
beside the shards, so both directions are worked out anew.
"""

from __future__ import annotations

import gzip
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ..config.errors import ConfigError, Problem
from ..formats.fields import mismatch
from ..formats.inspection import open_tokenizer
from ..formats.json_lines import read_rows
from ..formats.tokens import Boundary, Shard, TokenDirectory, boundaries
from .order import rank_slice
from .order_manifest import KnownOrder, verified
from .windows import Piece

__all__ = ["Provenance"]


class Provenance:
    """Both directions of a run's order.

    `unchecked` reads files without holding them against the sha256 that a manifest lists. With `documents`, the
    directory that the shards' `src` are relative to, rows also tell what the documents' files say of them. `world_size`
    is for another number of ranks than order.json tells.
    """

    def __init__(
        self,
        known: KnownOrder,
        *,
        unchecked: bool = False,
        documents: Path | None = None,
        world_size: int | None = None,
    ) -> None:
        self.known, self._unchecked, self._documents = known, unchecked, documents
        self._world_size = known.world_size if world_size is None else lambda step: world_size
        self._boundaries: dict[Path, tuple[list[int], list[Boundary]]] = {}
        self._origins: dict[Path, dict[int, dict[str, Any]]] = {}
        self._tokenizers: dict[Path, Tokenizer] = {}

    def documents_of_step(self, step: int, rank: int | None, *, text: bool) -> Iterator[dict[str, Any]]:
        """A row for each stretch of a document that was trained on in a step (from 1), by all ranks or by one.

        `position` is that of the order, which leaves gaps where the run went back; `instance` counts windows through
        all sources; `start` and `end` are token offsets in the file; `text` is the stretch as the model saw it.
        Raises: ConfigError: no such step or rank; FormatError: shards that are not what they were.
        """
        positions = self._positions(step)
        world_size = self._world_size(step)
        if rank is not None and not 0 <= rank < world_size:
            message = f"--rank: is {rank}; expected 0 to {world_size - 1}, the ranks that divided the batch"
            raise ConfigError(Problem(message))
        for position in positions if rank is None else rank_slice(positions, rank, world_size):
            place = self.known.order.at(position)
            source = self.known.sources[place.source]
            who = self._who(position, step)
            for piece in source.pieces(place.window):
                shard = source.directory.shards[piece.shard]
                starts, found = self._of(source.directory, shard)
                for number in range(max(0, bisect_right(starts, piece.start) - 1), bisect_right(starts, piece.end - 1)):
                    document = found[number]
                    start, end = max(document.start, piece.start), min(document.end, piece.end)
                    yield {
                        "step": step,
                        "position": place.position,
                        **who,
                        "epoch": place.epoch,
                        "instance": self.known.order.number(place),
                        "source": str(source.directory.path),
                        "file": shard.name,
                        "window": place.window,
                        "start": start,
                        "end": end,
                        **self._told(document),
                        **({"text": self._text(source.directory, shard, start, end)} if text else {}),
                    }

    def steps_of_document(self, identifier: str, *, text: bool) -> Iterator[dict[str, Any]]:
        """A row for each document with an id: the steps that saw any of it, and `seen`, each time that one did.

        `tokens_left_out` were in no window. A document that had to be cut for the shards has a row for each part.
        Raises: ConfigError: no document has the id; FormatError: shards that are not what they were.
        """
        found, known = False, self.known
        limit = known.batches.first_window(known.steps + 1)
        for source_index, source in enumerate(known.sources):
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
                        for position in known.order.positions(source_index, window, limit)
                    )
                    steps = [known.batches.step_of(position) for position, _ in seen]
                    yield {
                        "source": str(source.directory.path),
                        "file": shard.name,
                        "start": document.start,
                        "end": document.end,
                        **self._told(document),
                        "tokens_left_out": document.end - document.start - inside,
                        "windows": windows,
                        "steps": sorted(set(steps)),
                        "seen": [
                            {
                                "step": step,
                                "position": known.order.shifted(position),
                                **self._who(position, step),
                                "window": window,
                            }
                            for step, (position, window) in zip(steps, seen, strict=True)
                        ],
                        **({"text": self._text(source.directory, shard, document.start, document.end)} if text else {}),
                    }
        if not found:
            what = f'--document: is "{identifier}"; expected the id of a document in the shards of {self.known.path}'
            raise ConfigError(Problem(what))

    def write_data_indices(self, directory: Path) -> None:
        """Write OLMo's `rank<r>.tsv.gz`: a line a step, the step and the instances of the rank in it."""
        directory.mkdir(parents=True, exist_ok=True)
        steps = range(1, self.known.steps + 1)
        for rank in range(max(map(self._world_size, steps))):
            lines = []
            for step in steps:
                if rank < (world_size := self._world_size(step)):
                    positions = rank_slice(self._positions(step), rank, world_size)
                    instances = (self.known.order.number(self.known.order.at(position)) for position in positions)
                    lines.append("\t".join(map(str, [step, *instances])) + "\n")
            (directory / f"rank{rank}.tsv.gz").write_bytes(gzip.compress("".join(lines).encode(), mtime=0))

    def _positions(self, step: int) -> range:
        if not 1 <= step <= self.known.steps:
            raise ConfigError(Problem(f"--step: is {step}; expected 1 to {self.known.steps}, the run's steps"))
        return range(self.known.batches.first_window(step), self.known.batches.first_window(step + 1))

    def _who(self, position: int, step: int) -> dict[str, int]:
        """The rank that read a position in a step, and in which of its micro-batches (from 0)."""
        turn, rank = divmod(position - self.known.batches.first_window(step), self._world_size(step))
        return {"rank": rank, "micro_batch": turn // self.known.micro_batch_windows}

    def _of(self, directory: TokenDirectory, shard: Shard) -> tuple[list[int], list[Boundary]]:
        """Starts, rising, and documents of a shard; read once."""
        if shard.path not in self._boundaries:
            self._check(directory, shard.boundaries_path or shard.path)
            found = [item for item in boundaries(shard, directory.eos_token_id) if item.end > item.start]
            self._boundaries[shard.path] = [document.start for document in found], found
        return self._boundaries[shard.path]

    def _check(self, directory: TokenDirectory, path: Path) -> None:
        if not self._unchecked:
            verified(directory, path)

    def _text(self, directory: TokenDirectory, shard: Shard, start: int, end: int) -> str:
        path = directory.tokenizer_path
        if path is None:
            text = "the tokenizer that made the ids, to tell the text of --text"
            raise ConfigError(Problem(f"{directory.path}: has no tokenizer.json; expected {text}", "leave out --text"))
        self._check(directory, shard.path)
        if path not in self._tokenizers:
            self._tokenizers[path] = open_tokenizer(path)
        decoded: str = self._tokenizers[path].decode(shard.ids()[start:end].tolist(), skip_special_tokens=False)
        return decoded

    def _told(self, document: Boundary) -> dict[str, Any]:
        """What is known of a document: its id, its file and line, and what that line says of source and URL."""
        known = {"id": document.id, "src": document.src, "loc": document.loc}
        if self._documents is None or not document.src:
            return known
        path = self._documents / document.src
        if path not in self._origins:
            self._origins[path] = {line: _origin(row) for line, row in read_rows(path)}
        origin = self._origins[path].get(document.loc)
        if origin is None or origin["id"] != document.id:
            got = "missing" if origin is None else f'of the document "{origin["id"]}"'
            raise mismatch(path, "invalid_value", got, f'the document "{document.id}"', line=document.loc)
        return {**known, "document_source": origin["source"], "url": origin["url"]}


def _origin(row: dict[str, Any]) -> dict[str, Any]:
    """Of a row of docs/formats/document.md, where the text is from."""
    metadata = row.get("metadata") or {}
    return {"id": row.get("id"), "source": row.get("source"), "url": metadata.get("url", row.get("url"))}

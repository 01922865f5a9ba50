"""The data of a run: its shard directories, their tokenizer and special tokens, the batches, and reading them ahead."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

from ..config.schema import DataConfig, RunConfig, SourceConfig, WindowFilterConfig
from ..formats.checkpoint import open_tokenizer
from ..formats.contract import ConfigError, FormatError, Problem, mismatch, sha256_file
from ..formats.manifest import MANIFEST
from ..formats.tokens import TokenDirectory, boundaries, open_tokens
from ..settings import SettingError
from .order import DataOrder
from .windows import Chunks, Layout, Packs, ShardReader, WindowSource

__all__ = [
    "Batch",
    "Loader",
    "SpecialTokens",
    "TrainingData",
    "check_repetition",
    "input_rows",
    "open_directories",
    "open_training_data",
    "order_of",
    "repetition_warnings",
    "repetitive",
    "window_sources",
]


# ---- repetitive windows


def repetitive(
    ids_BT: npt.NDArray[np.int64], min_period: int, max_period: int, max_count: int
) -> npt.NDArray[np.bool_]:
    """Which rows (B) repeat a sequence with a period in that range `max_count` (3 or more) times in a row.

    A run of period p and n tokens has ⌊n / p⌋ repetitions. It is a run of n − p positions equal to that p before
    them; whether there is one so long is found by joining runs of doubled length, on whole arrays.
    """
    rows, length = ids_BT.shape
    found_B = np.zeros(rows, dtype=np.bool_)
    for period in range(min_period, min(max_period, length // 3) + 1):
        wanted, joined = (max_count - 1) * period, 1
        if wanted + period > length:
            break
        equal = ids_BT[:, period:] == ids_BT[:, :-period]
        while joined < wanted and equal.any():  # equal[i]: the `joined` positions from i on equal those before them
            step = min(joined, wanted - joined)
            equal = equal[:, :-step] & equal[:, step:]
            joined += step
        found_B |= equal.any(axis=1)
    return found_B


# ---- sources


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Ids of special tokens; null if the tokenizer has none."""

    eos: int
    bos: int | None
    pad: int | None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch: B windows of T tokens, at B positions."""

    tokens_BT: npt.NDArray[np.int64]
    loss_mask_BT: npt.NDArray[np.bool_] | None
    """Whether predicting a token is part of the loss; None if all are."""
    document_ids_BT: npt.NDArray[np.int32] | None
    """Equal for tokens of the same document of a row; None if tokens attend to all before them."""
    masked_windows: int
    """Windows excluded from the loss because they are repetitive."""


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Windows in order, and what a checkpoint records about their origin."""

    sources: tuple[WindowSource, ...]
    order: DataOrder
    tokenizer_path: Path
    tokenizer_sha256: str
    vocab_size: int
    special: SpecialTokens
    sequence_length: int

    document_mask: bool = False
    window_filter: WindowFilterConfig | None = None

    def read(self, positions: range) -> Batch:
        """The windows at these positions; may be called by several threads."""
        items = [self.order.at(position) for position in positions]
        windows = [self.sources[item.source].read(item.window) for item in items]
        tokens_BT = np.stack([window.ids_T for window in windows])
        loss_mask_BT = np.stack([window.loss_mask_T for window in windows])
        masked = 0
        if self.window_filter is not None:
            padding_BT = np.arange(self.sequence_length) >= np.array([[window.filled] for window in windows])
            # padding repeats itself, so give the filter distinct values instead
            seen_BT = np.where(padding_BT, -1 - np.arange(self.sequence_length), tokens_BT)
            repetitive_B = repetitive(
                seen_BT,
                self.window_filter.repetition_min_period,
                self.window_filter.repetition_max_period,
                self.window_filter.repetition_max_count,
            )
            loss_mask_BT[repetitive_B] = False
            masked = int(repetitive_B.sum())
        return Batch(
            tokens_BT=tokens_BT,
            loss_mask_BT=None if loss_mask_BT.all() else loss_mask_BT,
            document_ids_BT=np.stack([window.documents_T for window in windows]) if self.document_mask else None,
            masked_windows=masked,
        )

    def inputs(self, artifact: Path) -> list[dict[str, Any]]:
        """The manifest's rows for what was trained on, with paths as seen from `artifact`."""
        paths: list[tuple[str, Path]] = []
        for source in self.sources:
            directory = source.directory
            shards = [shard.path for shard in directory.shards]
            paths += [("tokens", path) for path in (shards if directory.manifest is None else [directory.path])]
        masks = {path for source in self.sources for path in source.label_masks}
        paths += [("label_masks", path) for path in sorted(masks)]
        if not any(source.directory.tokenizer_path == self.tokenizer_path for source in self.sources):
            paths.append(("tokenizer", self.tokenizer_path))
        return [row for role, path in paths for row in input_rows(role, path, artifact)]


def input_rows(role: str, path: Path, artifact: Path) -> list[dict[str, Any]]:
    """A manifest's rows for an input of an artifact directory: by its manifest, or file by file."""
    row: dict[str, Any] = {"role": role, "path": Path(os.path.relpath(path, artifact)).as_posix()}
    if path.is_file():
        return [{**row, "sha256": sha256_file(path), "size_bytes": path.stat().st_size}]
    if (path / MANIFEST).is_file():
        return [{**row, "manifest_sha256": sha256_file(path / MANIFEST)}]
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    return [row for file in files for row in input_rows(role, file, artifact)]


def open_training_data(config: RunConfig) -> TrainingData:
    """Open all sources of a config."""
    data = config.data
    directories = open_directories(data)
    tokenizer_path, tokenizer_sha256 = _tokenizer(data, directories)
    vocabulary = open_tokenizer(tokenizer_path).get_vocab(with_added_tokens=True)
    rows = 1 + max(vocabulary.values(), default=-1)
    special = _special_tokens(directories, rows)
    known = [replace(directory, vocab_size=directory.vocab_size or rows) for directory in directories]
    sources = window_sources(data, known)
    return TrainingData(
        sources=tuple(sources),
        order=order_of(data, sources, config.seed, config.train.batch_windows),
        tokenizer_path=tokenizer_path,
        tokenizer_sha256=tokenizer_sha256,
        vocab_size=max(rows, *(source.directory.vocab_size or 0 for source in sources)),
        special=special,
        sequence_length=data.sequence_length,
        document_mask=data.document_mask,
        window_filter=data.window_filter,
    )


def open_directories(data: DataConfig) -> list[TokenDirectory]:
    """The shards of all sources."""
    problems: list[Problem] = []
    opened = [_open(source, f"data.sources.{index}", problems) for index, source in enumerate(data.sources)]
    if problems:
        raise SettingError(*problems)
    return [directory for directory in opened if directory is not None]


def window_sources(data: DataConfig, directories: list[TokenDirectory]) -> list[WindowSource]:
    """The windows of all sources, which share their open files."""
    sources, reader = [], ShardReader()
    for index, (directory, chosen) in enumerate(zip(directories, data.sources, strict=True)):
        layout: Layout = Chunks(directory, data.sequence_length)
        if data.packing == "best_fit":
            layout = Packs(directory, data.sequence_length, truncate=data.long_documents == "truncate")
        source = WindowSource(
            directory,
            data.sequence_length,
            layout,
            max_tokens=chosen.max_tokens,
            label_masks=None if chosen.label_masks is None else Path(chosen.label_masks),
            reader=reader,
        )
        if len(source) == 0:
            tokens = sum(shard.tokens for shard in directory.shards)
            held = f"whose {len(directory.shards)} shards have {tokens} tokens"
            what = f'"data.sources.{index}.path" is {directory.path}, {held}'
            text = f"a file with at least one window of {data.sequence_length} tokens"
            raise SettingError(f"{what}; expected {text}", hint="shorten data.sequence_length")
        sources.append(source)
    return sources


def order_of(data: DataConfig, sources: list[WindowSource], seed: int, batch_windows: int) -> DataOrder:
    """The order of the sources' windows."""
    ratios = [source.ratio for source in data.sources if source.ratio is not None]
    legacy_batch = batch_windows if data.order == "legacy" else None
    order = DataOrder([len(source) for source in sources], ratios or None, seed, legacy_batch=legacy_batch)
    if legacy_batch is not None and order.epoch_windows == 0:
        windows = sum(order.sizes)
        text = f"at most {windows}, the windows of an epoch, since OLMo's order drops those that fill no batch"
        raise SettingError(f'"train.batch_windows" is {legacy_batch}; expected {text}')
    if order.epoch_windows == 0 or 0 in order.quotas:
        text = "ratios that leave every source at least one window"
        raise SettingError(f'"data.sources" is too small in its scarcest source; expected {text}')
    return order


def check_repetition(config: RunConfig, data: TrainingData, windows: int) -> None:
    """Check a run of that many windows against the sources' `max_repetition`."""
    problems = []
    for index, source in enumerate(config.data.sources):
        times = data.order.repetition(index, windows)
        if source.max_repetition is not None and times > source.max_repetition + 1e-9:
            what = f'"data.sources.{index}.max_repetition" is {source.max_repetition:g}'
            tokens = windows * data.sequence_length
            text = f"{times:.4g} or more, since a run of {tokens} tokens sees {source.path} that often"
            problems.append(Problem(f"{what}; expected {text}", "train for fewer steps or lower its ratio"))
    if problems:
        raise SettingError(*problems)


_WORTH_REPEATING = 4  # arXiv 2305.16264: up to four times, repeated tokens are almost as good as new ones


def repetition_warnings(data: TrainingData, windows: int) -> list[str]:
    """A warning for each source that a run of this many windows repeats too often."""
    found = []
    for index, source in enumerate(data.sources):
        times = data.order.repetition(index, windows)
        if times > _WORTH_REPEATING:
            held = f"{len(source) * data.sequence_length:,} tokens"
            often = f"{times:,.0f}" if times >= 10 else f"{times:.2g}"
            found.append(
                f"{source.directory.path}: its {held} are seen {often} times; beyond {_WORTH_REPEATING} times,"
                " repeated tokens are worth less and less (arXiv 2305.16264)"
            )
    return found


def _open(source: SourceConfig, key: str, problems: list[Problem]) -> TokenDirectory | None:
    path = Path(source.path)
    if not path.is_dir():
        problems.append(Problem(f'"{key}.path" is {path}, which was not found; expected a directory'))
        return None
    given = {name: getattr(source, name) for name in ("dtype", "eos_token_id", "bos_token_id", "pad_token_id")}
    if (path / MANIFEST).is_file():
        directory = open_tokens(path)
        for name, value in given.items():
            stated = getattr(directory, name)
            if value is not None and value != stated:
                text = f"{stated}, as {path / MANIFEST} says"
                problems.append(Problem(f'"{key}.{name}" is {value}; expected {text}', "remove the setting"))
    else:
        for name in ("dtype", "eos_token_id"):
            if given[name] is None:
                what = f'"{key}.{name}" is missing and {path} has no manifest.json that says it'
                text = {"dtype": "uint8, uint16 or uint32", "eos_token_id": "the id that ends a document"}[name]
                problems.append(Problem(f"{what}; expected {text}", f"set {key}.{name}"))
        if source.dtype is None or source.eos_token_id is None:
            return None
        directory = open_tokens(path, dtype=source.dtype, eos_token_id=source.eos_token_id)
        directory = replace(directory, bos_token_id=source.bos_token_id, pad_token_id=source.pad_token_id)
        _check_claimed_dtype(directory)
    if not directory.shards:
        problems.append(Problem(f'"{key}.path" is {path}, which contains no .npy file; expected token shards'))
    return directory


def _check_claimed_dtype(directory: TokenDirectory) -> None:
    """Files without a manifest do not state their dtype: if they have boundaries, those must end with the file."""
    for shard in directory.shards:
        if shard.boundaries_path is None:
            continue
        last = 0
        try:
            for boundary in boundaries(shard):
                last = boundary.end
        except FormatError as error:
            if error.code != "bad_boundary":
                raise
            expected = f"{shard.tokens} tokens, which the file holds as {shard.dtype} ({error})"
            got = f"not {shard.dtype}, by {shard.boundaries_path.name}, whose documents reach token {last} or further"
            hint = "set the source's dtype to what the writer used"
            raise mismatch("wrong_dtype", shard.path, got, expected, hint=hint) from error


def _tokenizer(data: DataConfig, directories: list[TokenDirectory]) -> tuple[Path, str]:
    """The one tokenizer of all sources."""
    if data.tokenizer is not None:
        path = Path(data.tokenizer)
        if not path.is_file():
            message = f'"data.tokenizer" is {path}, which was not found; expected a tokenizer.json'
            raise SettingError(message)
    else:
        found = [directory.tokenizer_path for directory in directories if directory.tokenizer_path is not None]
        if not found:
            names = ", ".join(str(directory.path) for directory in directories)
            what = f'"data.tokenizer" is missing and {names} contains no tokenizer.json'
            raise SettingError(f"{what}; expected the tokenizer that made the ids", hint="set data.tokenizer")
        path = found[0]
    sha256 = sha256_file(path)
    for directory in directories:
        if directory.tokenizer_sha256 not in (None, sha256):
            what = f"{path}: tokenizer has sha256 {sha256[:12]}…"
            text = f"{str(directory.tokenizer_sha256)[:12]}…, with which {directory.path} was written"
            raise ConfigError(f"{what}; expected {text}", hint="use shards of one tokenizer")
    return path, sha256


def _special_tokens(directories: list[TokenDirectory], rows: int) -> SpecialTokens:
    first = directories[0]
    for name in ("eos_token_id", "bos_token_id", "pad_token_id"):
        values = {getattr(directory, name) for directory in directories}
        if len(values) > 1:
            shown = " and ".join(str(value) for value in sorted(values, key=str))
            text = "one value, since a model has one"
            raise SettingError(f'"{name}" of the sources is {shown}; expected {text}')
        value = getattr(first, name)
        if value is not None and value >= rows:
            text = f"an id of the tokenizer, below {rows}"
            raise SettingError(f'"{name}" of the sources is {value}; expected {text}')
    if first.eos_token_id is None:
        text = "the id that ends a document, which the checkpoint needs"
        raise SettingError(f'"eos_token_id" of {first.path} is null; expected {text}')
    return SpecialTokens(eos=first.eos_token_id, bos=first.bos_token_id, pad=first.pad_token_id)


# ---- reading ahead

B = TypeVar("B")


class Loader(Generic[B]):
    """Reads the batches at given positions, up to `ahead` of them before they are requested.

    `read` makes a batch from its positions, in a thread; without threads, when the batch is requested.
    `waited_s` is the time spent waiting for the last batch. An exception in `read` is raised when its batch is taken.
    """

    def __init__(self, read: Callable[[range], B], positions: Iterator[range], *, threads: int, ahead: int) -> None:
        self._read, self._positions, self._ahead = read, positions, max(1, ahead)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="data") if threads else None
        self._begun: deque[Future[B]] = deque()
        self.waited_s = 0.0

    def next(self) -> B:
        """The next batch.

        Raises: StopIteration: there are no more positions; whatever `read` raised.
        """
        asked = time.monotonic()
        if self._pool is None:
            batch = self._read(next(self._positions))
        else:
            self._begin(self._pool)
            if not self._begun:
                raise StopIteration
            batch = self._begun.popleft().result()
            self._begin(self._pool)
        self.waited_s = time.monotonic() - asked
        return batch

    def _begin(self, pool: ThreadPoolExecutor) -> None:
        while len(self._begun) < self._ahead and (positions := next(self._positions, None)) is not None:
            self._begun.append(pool.submit(self._read, positions))

    def close(self) -> None:
        """Drop unused batches and end the threads, after the reads in progress."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._begun.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

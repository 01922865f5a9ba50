"""From shards to windows: layouts, packing, documents, label masks and the filter of repetitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from olmo_trainer.data.sources import repetitive
from olmo_trainer.data.windows import Chunks, Packs, Piece, WindowSource, best_fit_decreasing, pieces_of
from olmo_trainer.formats.contract import FormatError
from olmo_trainer.formats.tokens import TokenDirectory, boundaries, open_tokens
from shards import EOS, PAD, write_shard

Files = dict[str, list[int]]
"""File names and the sizes of their documents, end tokens included."""

files_strategy = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.lists(st.integers(1, 30), max_size=12), min_size=1, max_size=3
)


def directory_of(root: Path, files: Files, *, pad: int | None = PAD, dtype: str = "uint16") -> TokenDirectory:
    """Shards whose token ids say where they stand: 2, 3, 4 … through all files, the end token aside."""
    counter = 2
    for name, sizes in files.items():
        documents = []
        for size in sizes:
            documents.append((f"{name}{len(documents)}", [*range(counter, counter + size - 1), EOS]))
            counter += size - 1
        write_shard(root, name, documents, dtype)
    opened = open_tokens(root, dtype=dtype, eos_token_id=EOS)
    return TokenDirectory(**{**vars(opened), "pad_token_id": pad})


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), max_size=40), capacity=st.integers(12, 20))
def test_packing_is_best_fit_decreasing_as_it_is_written(sizes: list[int], capacity: int) -> None:
    room: list[int] = []
    expected = [0] * len(sizes)
    for item in sorted(range(len(sizes)), key=lambda item: -sizes[item]):
        fitting = [number for number, left in enumerate(room) if left >= sizes[item]]
        number = min(fitting, key=lambda number: (room[number], number), default=len(room))
        if number == len(room):
            room.append(capacity)
        room[number] -= sizes[item]
        expected[item] = number
    bins, count = best_fit_decreasing(np.array(sizes, dtype=np.int64), capacity)
    assert (bins.tolist(), count) == (expected, len(room))


def test_packing_pads_little_and_cuts_only_what_is_too_long() -> None:
    draw = np.random.default_rng(0)
    sizes = np.maximum(1, draw.lognormal(6, 1.2, 20_000)).astype(np.int64)
    ends = np.cumsum(sizes)
    starts, pieces = pieces_of(ends - sizes, ends, 2048, truncate=False)
    assert pieces.sum() == sizes.sum()
    assert np.isin(ends - sizes, starts).all()
    assert len(starts) - len(sizes) == ((sizes - 1) // 2048).sum()
    bins, count = best_fit_decreasing(pieces, 2048)
    assert np.bincount(bins, weights=pieces).max() <= 2048
    assert 1 - pieces.sum() / (count * 2048) < 0.01
    _, truncated = pieces_of(ends - sizes, ends, 2048, truncate=True)
    assert truncated.tolist() == np.minimum(sizes, 2048).tolist()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=files_strategy, length=st.integers(2, 9), layout=st.sampled_from(["concat", "fragment", "truncate"]))
def test_each_token_is_in_one_window_and_the_window_is_found(
    files: Files, length: int, layout: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = directory_of(tmp_path_factory.mktemp("shards"), files)
    laid = Chunks(directory, length) if layout == "concat" else Packs(directory, length, truncate=layout == "truncate")
    source = WindowSource(directory, length, laid)
    where: dict[tuple[int, int], list[int]] = {}
    for window in range(len(source)):
        read, place = source.read(window), 0
        for piece in source.pieces(window):
            ids = directory.shards[piece.shard].ids()[piece.start : piece.end]
            assert read.ids_T[place : place + len(ids)].tolist() == ids.tolist()
            place += len(ids)
            for token in range(piece.start, piece.end):
                where.setdefault((piece.shard, token), []).append(window)
        assert place == read.filled
        assert set(read.ids_T[place:].tolist()) <= {PAD}
        assert not read.loss_mask_T[place:].any()
        assert layout != "concat" or place == length
    assert all(len(windows) == 1 for windows in where.values())
    for number, shard in enumerate(directory.shards):
        left_out = 0
        for found in boundaries(shard):
            left_out += max(0, found.end - found.start - length)
            for first in range(found.start, found.end):
                for last in (first + 1, found.end):
                    expected = {w for token in range(first, last) for w in where.get((number, token), [])}
                    assert source.windows_of(Piece(number, first, last)) == sorted(expected)
        seen = sum(key[0] == number for key in where)
        rest = {"concat": shard.tokens % length, "fragment": 0, "truncate": left_out}[layout]
        assert seen == shard.tokens - rest


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=files_strategy, length=st.integers(2, 9), packing=st.sampled_from(["concat", "best_fit"]))
def test_documents_and_counted_labels_are_those_of_a_plain_reading(
    files: Files, length: int, packing: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every token of every file is looked up by its place: its document, and whether one begins there."""
    directory = directory_of(tmp_path_factory.mktemp("shards"), files)
    packs = packing == "best_fit"
    source = WindowSource(directory, length, Packs(directory, length, truncate=False) if packs else None)
    documents = [list(boundaries(shard)) for shard in directory.shards]
    for window in range(len(source)):
        read = source.read(window)
        places = [(piece.shard, token) for piece in source.pieces(window) for token in range(piece.start, piece.end)]
        owner = [next((s, d.start) for d in documents[s] if d.start <= token < d.end) for s, token in places]
        for left in range(length - 1):
            if left + 1 >= read.filled:
                assert not read.loss_mask_T[left + 1]
                same = left >= read.filled
            else:
                follows = places[left + 1] == (places[left][0], places[left][1] + 1)
                begins = owner[left + 1] == places[left + 1]
                ends = read.ids_T[left] == EOS
                same = follows and owner[left] == owner[left + 1]
                assert read.loss_mask_T[left + 1] == (same or (begins and ends))
            assert (read.documents_T[left] == read.documents_T[left + 1]) == same


def test_windows_kept_by_max_tokens_are_spread_and_found(tmp_path: Path) -> None:
    directory = directory_of(tmp_path, {"a": [40] * 5, "b": [40] * 5})
    whole = WindowSource(directory, 4)
    part = WindowSource(directory, 4, max_tokens=4 * 30 + 3)
    assert (len(whole), len(part)) == (100, 30)
    kept = {tuple(part.pieces(window)): window for window in range(30)}
    assert len(kept) == 30
    assert {piece.shard for (piece,) in kept} == {0, 1}
    for window in range(100):
        (piece,) = whole.pieces(window)
        assert part.windows_of(piece) == ([kept[(piece,)]] if (piece,) in kept else [])
    assert len(WindowSource(directory, 4, max_tokens=10**9)) == 100


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_all_item_types_with_and_without_boundaries(tmp_path: Path, dtype: str) -> None:
    directory = directory_of(tmp_path, {"a": [9, 5, 7], "b": [11]}, dtype=dtype)
    expected = [WindowSource(directory, 4, layout).read(2) for layout in (None, Packs(directory, 4, truncate=False))]
    for path in tmp_path.glob("*.csv.gz"):
        path.unlink()
    bare = open_tokens(tmp_path, dtype=dtype, eos_token_id=EOS)
    bare = TokenDirectory(**{**vars(bare), "pad_token_id": PAD})
    found = [WindowSource(bare, 4, layout).read(2) for layout in (None, Packs(bare, 4, truncate=False))]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.ids_T.tolist() == theirs.ids_T.tolist()
        assert ours.documents_T.tolist() == theirs.documents_T.tolist()


def test_label_masks_leave_tokens_out_of_the_loss(tmp_path: Path) -> None:
    directory = directory_of(tmp_path / "tokens", {"a": [9, 5, 7], "b": [11]})
    masks = tmp_path / "masks"
    masks.mkdir()
    draw = np.random.default_rng(0)
    for shard in directory.shards:
        draw.integers(0, 2, shard.tokens).astype(np.bool_).tofile(masks / shard.name)
    for layout in (Chunks(directory, 4), Packs(directory, 4, truncate=False)):
        masked, plain = (WindowSource(directory, 4, layout, label_masks=given) for given in (masks, None))
        for window in range(len(masked)):
            place = 0
            counted = plain.read(window).loss_mask_T.copy()
            for piece in masked.pieces(window):
                of_file = np.fromfile(masks / directory.shards[piece.shard].name, dtype=np.bool_)
                size = piece.end - piece.start
                counted[place : place + size] &= of_file[piece.start : piece.end]
                place += size
            assert masked.read(window).loss_mask_T.tolist() == counted.tolist()
    (masks / "b.npy").write_bytes(b"\1" * 10)
    with pytest.raises(FormatError, match=r"b\.npy: is 10 bytes long; expected 11, one for each token"):
        WindowSource(directory, 4, label_masks=masks)
    (masks / "b.npy").unlink()
    with pytest.raises(FormatError, match="expected the label mask of"):
        WindowSource(directory, 4, label_masks=masks)


def brute_force_repetitive(ids: list[int], min_period: int, max_period: int, max_count: int) -> bool:
    for period in range(min_period, min(max_period, len(ids) // 3) + 1):
        for start in range(len(ids)):
            end = start + period
            while end < len(ids) and ids[end] == ids[end - period]:
                end += 1
            if (end - start) // period >= max_count:
                return True
    return False


@settings(max_examples=150, deadline=None)
@given(
    unit=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    times=st.integers(0, 9),
    around=st.lists(st.integers(0, 3), max_size=20),
    limits=st.tuples(st.integers(1, 3), st.integers(0, 6), st.integers(3, 8)),
)
def test_the_filter_finds_what_a_plain_search_finds(
    unit: list[int], times: int, around: list[int], limits: tuple[int, int, int]
) -> None:
    ids = around + unit * times + around[::-1]
    low, more, count = limits
    found = repetitive(np.array([ids, ids[::-1]], dtype=np.int64), low, low + more, count)
    assert found.tolist() == [brute_force_repetitive(row, low, low + more, count) for row in (ids, ids[::-1])]


@pytest.mark.parametrize(
    ("period", "times", "expected"), [(1, 31, 0), (1, 32, 1), (13, 32, 1), (13, 31, 0), (14, 40, 0)]
)
def test_the_filter_at_the_values_of_olmo_2(period: int, times: int, expected: int) -> None:
    ids = np.arange(1000, 1000 + 1024)
    ids[100 : 100 + period * times] = np.tile(np.arange(period), times)
    assert repetitive(ids[None], 1, 13, 32).tolist() == [bool(expected)]

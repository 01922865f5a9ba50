"""The order of the data: permutations, no repeated order, shares, and its inverse."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from olmo_trainer.data.order import DataOrder, legacy_permutation, permutation, rank_slice


def test_an_epoch_is_a_permutation() -> None:
    order = DataOrder([7, 5], None, seed=1)
    for epoch in range(3):
        places = [order.at(epoch * 12 + slot) for slot in range(12)]
        assert {place.epoch for place in places} == {epoch}
        windows = {(place.source, place.window) for place in places}
        assert windows == {(source, window) for source, size in enumerate((7, 5)) for window in range(size)}


def test_the_order_is_that_of_the_documented_generator() -> None:
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence([9, 2]))).permutation(50)
    order = DataOrder([50], None, seed=9)
    assert [order.at(100 + slot).window for slot in range(50)] == expected.tolist()


def test_no_two_of_seed_epoch_and_stream_give_one_order() -> None:
    seen = {
        permutation(seed, epoch, 64, stream).tobytes()
        for seed in (*range(12), 2**32 - 1)
        for epoch in range(12)
        for stream in range(3)
    }
    assert len(seen) == 13 * 12 * 3


def test_the_shuffle_is_uniform() -> None:
    counts = np.zeros((8, 8))
    for epoch in range(4000):
        counts[np.arange(8), permutation(5, epoch, 8)] += 1
    chi_square = ((counts - 500) ** 2 / 500).sum()
    assert chi_square < 90  # 49 degrees of freedom: above 85.4 once in a thousand draws, and the draw is fixed


@pytest.mark.parametrize("sizes", [[1000], [300, 700]])
def test_windows_are_uniform_over_an_epoch(sizes: list[int]) -> None:
    """Tenths of the windows over tenths of an epoch, through 40 epochs; and which window follows which."""
    order = DataOrder(sizes, None, seed=2)
    stands, follows = np.zeros((10, 10)), np.zeros((10, 10))
    for epoch in range(40):
        numbers = [order.number(order.at(epoch * 1000 + slot)) // 100 for slot in range(1000)]
        np.add.at(stands, (np.arange(1000) // 100, numbers), 1)
        np.add.at(follows, (numbers[:-1], numbers[1:]), 1)
    assert ((stands - 400) ** 2 / 400).sum() < 126  # 81 degrees of freedom: above 126.1 once in a thousand draws
    expected = follows.sum(1, keepdims=True) * follows.sum(0) / follows.sum()
    assert ((follows - expected) ** 2 / expected).sum() < 126


def test_ratios_hold_and_no_window_comes_twice_before_all_came_once() -> None:
    order = DataOrder([40, 90], [0.5, 0.5], seed=0)
    assert order.quotas == (40, 40)
    seen = [order.at(position) for position in range(2 * order.epoch_windows)]
    assert Counter(place.source for place in seen) == {0: 80, 1: 80}
    assert set(Counter(place.window for place in seen if place.source == 0).values()) == {2}
    assert set(Counter(place.window for place in seen if place.source == 1).values()) == {1}


@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    shares=st.lists(st.floats(0.2, 5), min_size=3, max_size=3) | st.none(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_positions_are_the_inverse_of_at(sizes: list[int], shares: list[float] | None, seed: int) -> None:
    order = DataOrder(sizes, shares[: len(sizes)] if shares else None, seed)
    if order.epoch_windows == 0:
        return
    limit = 3 * order.epoch_windows + 1
    forward: dict[tuple[int, int], list[int]] = {}
    for position in range(limit):
        place = order.at(position)
        forward.setdefault((place.source, place.window), []).append(position)
    for source, size in enumerate(sizes):
        for window in range(size):
            assert order.positions(source, window, limit) == forward.get((source, window), [])


@pytest.mark.parametrize(("position", "again"), [(0, 0), (5, 5), (31, 31)])
def test_a_position_does_not_depend_on_what_was_asked_before(position: int, again: int) -> None:
    used = DataOrder([10, 7], [1, 2], seed=4)
    for other in (40, 3, 17):
        used.at(other)
    assert used.at(position) == DataOrder([10, 7], [1, 2], seed=4).at(again)


@pytest.mark.parametrize(("seed", "size", "batch"), [(6198, 103, 10), (0, 20, 5), (7, 64, 1)])
def test_legacy_order_is_that_of_olmo(seed: int, size: int, batch: int) -> None:
    """Each epoch is shuffled by seed + epoch, and its last windows that fill no batch are dropped."""
    order = DataOrder([size - 3, 3], None, seed, legacy_batch=batch)
    assert order.epoch_windows == size // batch * batch
    expected: list[int] = []
    for epoch in range(3):
        indices = np.arange(size, dtype=np.uint32)
        np.random.Generator(np.random.PCG64(seed=seed + epoch)).shuffle(indices)
        expected += indices[: size // batch * batch].tolist()
    found = [order.number(order.at(position)) for position in range(len(expected))]
    assert found == expected
    for number in range(size):
        source, window = (0, number) if number < size - 3 else (1, number - size + 3)
        where = [position for position, there in enumerate(expected) if there == number]
        assert order.positions(source, window, len(expected)) == where


def test_the_orders_of_olmo_1_begin_as_they_did() -> None:
    """Seed 6198 (the official configs) over 1000 windows; the first epoch of our order is OLMo's, others are not.

    numpy fills a seed's missing words with zeros, so [seed, 0] is the seed alone.
    """
    assert legacy_permutation(6198, 0, 1000)[:4].tolist() == [615, 832, 881, 9]
    assert np.array_equal(permutation(6198, 0, 1000), legacy_permutation(6198, 0, 1000))
    assert not np.array_equal(permutation(6198, 1, 1000), legacy_permutation(6198, 1, 1000))
    assert np.array_equal(legacy_permutation(6198, 1, 1000), legacy_permutation(6199, 0, 1000))  # what ours avoids


@given(batch=st.integers(1, 40), first=st.integers(0, 100), world=st.integers(1, 8))
def test_ranks_read_each_position_once(batch: int, first: int, world: int) -> None:
    positions = range(first, first + batch)
    parts = [rank_slice(positions, rank, world) for rank in range(world)]
    assert sorted(position for part in parts for position in part) == list(positions)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_permutation_takes_four_bytes_a_window_and_two_epochs_are_kept() -> None:
    assert permutation(0, 0, 1000).dtype == np.uint32
    order = DataOrder([1000], None, seed=0)
    for epoch in range(5):
        order.at(epoch * 1000)
    assert [len(kept) for kept in order._kept.values()] == [2]

"""Standard errors, intervals and tests against scipy and closed forms; the coverage of each interval by simulation."""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from catwalk.statistics import (
    block_bootstrap,
    clustered_stderr,
    holm,
    interval,
    isotonic,
    mann_kendall,
    mcnemar_p,
    mean_and_stderr,
    mean_covariance,
    minimal_detectable_effect,
    paired_difference,
    paired_ratio_difference,
    ratio_stderr,
    sign_flip_p,
    tied_groups,
    unpaired_difference,
    wilson,
)
from hypothesis import given
from hypothesis import strategies as st

stats = pytest.importorskip("scipy.stats")
optimize = pytest.importorskip("scipy.optimize")


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40))
def test_mean_and_stderr_match_scipy(values: list[float]) -> None:
    mean, stderr = mean_and_stderr(values)
    assert mean == pytest.approx(float(np.mean(values)), rel=1e-9, abs=1e-6)
    assert stderr == pytest.approx(float(stats.sem(values)), rel=1e-6, abs=1e-6)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_matches_scipy(hits_of: tuple[int, int]) -> None:
    hits, n = hits_of
    expected = stats.binomtest(hits, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.integers(0, 80), st.integers(0, 80))
def test_mcnemar_matches_the_binomial_test(first: int, second: int) -> None:
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar_p(first, second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_many_items_is_finite() -> None:
    assert 0 <= mcnemar_p(2000, 3000) < 1e-10


def test_holm_by_hand() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])


def test_paired_difference_finds_a_small_effect() -> None:
    draw = random.Random(1)
    first = [float(draw.random() < 0.5) for _ in range(300)]
    second = [1.0 if draw.random() < 0.06 else value for value in first]
    paired = paired_difference(first, second, binary=True)
    gained = sum(b > a for a, b in zip(first, second, strict=True))
    assert paired.difference == pytest.approx(gained / 300)
    assert paired.stderr == pytest.approx(stats.sem(np.array(second) - np.array(first)))
    assert paired.p == pytest.approx(stats.binomtest(0, gained).pvalue)


def test_paired_ratio_difference_is_the_difference_of_the_ratios() -> None:
    draw = random.Random(2)
    sizes = [float(draw.randint(10, 99)) for _ in range(50)]
    first = [size * draw.gauss(1.0, 0.2) for size in sizes]
    second = [value * 0.9 for value in first]
    paired = paired_ratio_difference(first, second, sizes)
    assert paired.difference == pytest.approx(sum(second) / sum(sizes) - sum(first) / sum(sizes))
    assert paired.p is not None
    assert paired.p < 1e-6


# ---- items in clusters, documents in blocks


@given(st.lists(st.tuples(st.floats(-10, 10), st.integers(0, 5)), min_size=3, max_size=40))
def test_clustered_stderr_is_the_closed_form(rows: list[tuple[float, int]]) -> None:
    values, clusters = [value for value, _ in rows], [cluster for _, cluster in rows]
    found = clustered_stderr(values, clusters)
    if len(set(clusters)) == 1:
        assert found is None
        return
    design = np.asarray(values) - np.mean(values)
    totals = np.asarray([design[np.asarray(clusters) == one].sum() for one in set(clusters)])
    count = len(totals)
    expected = math.sqrt(count / (count - 1) * (totals**2).sum()) / len(values)
    assert found == pytest.approx(expected, abs=1e-9)
    assert clustered_stderr(values, range(len(values))) == pytest.approx(mean_and_stderr(values)[1], abs=1e-9)


def test_repeated_items_do_not_make_a_mean_more_precise() -> None:
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    once = mean_and_stderr(values)[1]
    five_times = clustered_stderr(values * 5, list(range(6)) * 5)
    assert five_times == pytest.approx(once)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 3)), min_size=2, max_size=20))
def test_covariance_of_means_gives_the_error_of_each_difference(items: list[tuple[int, int, int]]) -> None:
    first, second, clusters = zip(*items, strict=True)
    rows = np.asarray([first, second], dtype=float)
    differences = [float(b - a) for a, b in zip(first, second, strict=True)]
    for names, expected in (((), mean_and_stderr(differences)[1]), (clusters, clustered_stderr(differences, clusters))):
        v = mean_covariance(rows, names)
        assert math.sqrt(max(0.0, v[0, 0] + v[1, 1] - 2 * v[0, 1])) == pytest.approx(expected or 0.0, abs=1e-7)


def test_interval_of_an_accuracy_counts_passages() -> None:
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    alone = interval("acc_raw", 2 / 3, mean_and_stderr(values)[1], 6)
    assert alone == pytest.approx(wilson(2 / 3, 6))
    five_times = interval("acc_raw", 2 / 3, clustered_stderr(values * 5, list(range(6)) * 5), 30)
    assert five_times == pytest.approx(wilson(2 / 3, 6))
    assert interval("acc_raw", 1.0, 0.0, 30) == pytest.approx(wilson(1.0, 30))


def test_paired_difference_of_clusters_flips_whole_clusters() -> None:
    first, second = [0.0] * 40, [1.0] * 40
    assert paired_difference(first, second, binary=True).p == pytest.approx(2 / 2**40)
    found = paired_difference(first, second, binary=True, clusters=[n // 10 for n in range(40)])
    assert found.p == pytest.approx(2 / 2**4)
    assert found.stderr == pytest.approx(0.0)


def test_block_bootstrap_agrees_with_the_delta_method_and_scipy() -> None:
    draw = np.random.default_rng(3)
    sizes = draw.integers(100, 900, 200).astype(float)
    bits = sizes * draw.normal(1.0, 0.2, 200)
    low, high = block_bootstrap(bits, sizes, resamples=4000) or (0.0, 0.0)
    stderr = ratio_stderr(list(bits), list(sizes)) or 0.0
    assert (high - low) / (2 * 1.96 * stderr) == pytest.approx(1, abs=0.06)
    other = stats.bootstrap(
        (bits, sizes), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, method="basic", rng=draw
    ).confidence_interval
    assert (low, high) == pytest.approx((other.low, other.high), abs=0.006)
    assert block_bootstrap([1.0], [1.0]) is None
    assert block_bootstrap(bits, sizes, seed=5) == block_bootstrap(bits, sizes, seed=5)


# ---- tests


@given(st.lists(st.integers(-4, 4), min_size=2, max_size=9))
def test_sign_flips_match_scipy_where_they_are_counted(differences: list[int]) -> None:
    values = np.asarray(differences, dtype=float)
    expected = 1.0
    if values.any():
        test = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=np.inf)
        expected = test.pvalue
    assert sign_flip_p(differences) == pytest.approx(expected)


def test_sampled_sign_flips_are_near_the_normal_approximation() -> None:
    draw = random.Random(4)
    values = [draw.gauss(0.15, 1.0) for _ in range(200)]
    normal = 2 * stats.norm.sf(abs(sum(values)) / math.sqrt(sum(value * value for value in values)))
    assert sign_flip_p(values) == pytest.approx(normal, abs=0.02)
    assert sign_flip_p([1.0] * 100) == pytest.approx(1 / 10_001)


def test_unpaired_difference_is_welchs() -> None:
    draw = random.Random(5)
    first, second = [draw.gauss(0, 1) for _ in range(400)], [draw.gauss(0.2, 2) for _ in range(300)]
    found = unpaired_difference(first, second)
    assert found.p == pytest.approx(stats.ttest_ind(second, first, equal_var=False).pvalue, rel=0.02)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_its_definition_rejects(ps: list[float]) -> None:
    adjusted = holm(ps)
    rejected, order = set(), sorted(range(len(ps)), key=lambda index: ps[index])
    for rank, index in enumerate(order):
        if ps[index] * (len(ps) - rank) > 0.05:
            break
        rejected.add(index)
    assert {index for index, p in enumerate(adjusted) if p is not None and p <= 0.05} == rejected


def test_minimal_detectable_effect_is_the_effect_found_with_80_per_cent() -> None:
    stderr = 0.02
    effect = minimal_detectable_effect(stderr)
    power = stats.norm.sf(1.959964 - effect / stderr) + stats.norm.cdf(-1.959964 - effect / stderr)
    assert power == pytest.approx(0.8, abs=1e-4)


# ---- groups and trends


def test_tied_groups_by_hand() -> None:
    # a > c is clear, a = b and b = c are not: two overlapping groups
    differs = [[False, False, True], [False, False, False], [True, False, False]]
    assert tied_groups([0.9, 0.8, 0.7], differs) == ["a", "ab", "b"]
    everywhere = [[i != j for j in range(3)] for i in range(3)]
    assert tied_groups([0.7, 0.9, 0.8], everywhere) == ["c", "a", "b"]
    assert tied_groups([0.7, 0.9, 0.8], [[False] * 3] * 3) == ["a", "a", "a"]
    assert tied_groups([2.0, 1.0], [[False, True], [True, False]], higher_is_better=False) == ["b", "a"]


@given(
    st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.booleans(), min_size=n * n, max_size=n * n)))
)
def test_two_models_share_a_letter_exactly_if_no_test_separates_them(case: tuple[int, list[bool]]) -> None:
    n, bits = case
    differs = [[i != j and bits[min(i, j) * n + max(i, j)] for j in range(n)] for i in range(n)]
    letters = tied_groups([float(index) for index in range(n)], differs)
    for i in range(n):
        for j in range(n):
            assert bool(set(letters[i]) & set(letters[j])) != differs[i][j]


@given(st.lists(st.integers(0, 9), min_size=3, max_size=25))
def test_isotonic_regression_matches_scipy(values: list[int]) -> None:
    assert isotonic(values) == pytest.approx(list(optimize.isotonic_regression(np.asarray(values, dtype=float)).x))


def test_mann_kendall_matches_scipys_kendall() -> None:
    draw = random.Random(6)
    values = [step * 0.05 + draw.gauss(0, 1) for step in range(40)]
    tau, p = mann_kendall(values)
    expected = stats.kendalltau(range(40), values)
    assert tau == pytest.approx(expected.statistic)
    assert p == pytest.approx(expected.pvalue, abs=0.005)
    assert mann_kendall([1.0, 1.0, 1.0]) == (0.0, 1.0)
    assert mann_kendall([1.0, 2.0]) == (1.0, None)


# ---- coverage: how often an interval contains the truth

Interval = Callable[[np.random.Generator], bool]


def _wilson(draw: np.random.Generator) -> bool:
    low, high = wilson(draw.binomial(120, 0.3) / 120, 120)
    return bool(low <= 0.3 <= high)


def _passages(draw: np.random.Generator) -> bool:
    """Accuracy on 60 passages of five questions that are hard or easy together."""
    values = (draw.random(300) < np.repeat(draw.choice([0.2, 0.8], 60), 5)).astype(float).tolist()
    stderr = clustered_stderr(values, [n // 5 for n in range(300)])
    low, high = interval("acc_raw", sum(values) / 300, stderr, 300) or (0.0, 0.0)
    return low <= 0.5 <= high


def _mean(draw: np.random.Generator) -> bool:
    values = draw.exponential(1.0, 200)
    mean, stderr = mean_and_stderr(list(values))
    low, high = interval("probability_mass", mean, stderr, 200) or (0.0, 0.0)
    return low <= 1.0 <= high


def _clustered(draw: np.random.Generator) -> bool:
    clusters = np.repeat(np.arange(80), 4)
    values = list(draw.normal(0, 1, 80)[clusters] + draw.normal(0, 1, 320))
    half = 1.96 * (clustered_stderr(values, list(clusters)) or 0.0)
    return abs(math.fsum(values) / 320) <= half


def _documents(draw: np.random.Generator) -> tuple[list[float], list[float]]:
    sizes = draw.integers(100, 2000, 150).astype(float)
    return list(sizes * draw.normal(1.0, 0.3, 150)), list(sizes)


def _delta(draw: np.random.Generator) -> bool:
    bits, sizes = _documents(draw)
    return abs(sum(bits) / sum(sizes) - 1.0) <= 1.96 * (ratio_stderr(bits, sizes) or 0.0)


def _bootstrap(draw: np.random.Generator) -> bool:
    bits, sizes = _documents(draw)
    low, high = block_bootstrap(bits, sizes, seed=int(draw.integers(1 << 30)), resamples=500) or (0.0, 0.0)
    return low <= 1.0 <= high


def _paired(draw: np.random.Generator) -> bool:
    first = draw.random(300) < 0.5
    second = np.where(draw.random(300) < 0.2, draw.random(300) < 0.8, first)
    found = paired_difference(list(first.astype(float)), list(second.astype(float)), binary=True)
    return abs(found.difference - 0.2 * 0.3) <= 1.96 * (found.stderr or 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("covers", [_wilson, _passages, _mean, _clustered, _delta, _bootstrap, _paired])
def test_intervals_contain_the_truth_in_95_per_cent(covers: Interval) -> None:
    draw = np.random.default_rng(7)
    runs = 2000
    share = sum(covers(draw) for _ in range(runs)) / runs
    assert 0.925 <= share <= 0.97


@pytest.mark.slow
def test_tests_reject_5_per_cent_without_an_effect() -> None:
    draw = np.random.default_rng(8)
    flips = [sign_flip_p(list(draw.normal(0, 1, 40)), resamples=500) <= 0.05 for _ in range(1500)]
    assert 0.035 <= sum(flips) / len(flips) <= 0.065
    trends = [(mann_kendall(list(draw.normal(0, 1, 20)))[1] or 0.0) <= 0.05 for _ in range(1500)]
    assert 0.03 <= sum(trends) / len(trends) <= 0.065
    splits = [draw.binomial(60, 0.5) for _ in range(1500)]
    assert sum(mcnemar_p(split, 60 - split) <= 0.05 for split in splits) / 1500 <= 0.065  # exact: never more than 5 %

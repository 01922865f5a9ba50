"""Normalisations computed by hand; standard errors and tests compared with scipy."""

import math
import random

import numpy as np
import pytest
from catwalk.metrics import (
    holm,
    item_metrics,
    mcnemar_p,
    mean_and_stderr,
    paired_difference,
    paired_ratio_difference,
    predicted,
    round_logprob,
    round_significant,
    task_metrics,
    wilson,
)
from catwalk.types import ItemScore
from hypothesis import given
from hypothesis import strategies as st

stats = pytest.importorskip("scipy.stats")

# raw −3 beats −4 and −6; per token −6/4 wins; per character −4/20; per byte −6/60; unconditional −4 + 9
_SCORE = ItemScore(
    id="0",
    label=1,
    sum_logprobs=(-3.0, -4.0, -6.0),
    sum_logprobs_unconditional=(-4.0, -9.0, -6.0),
    tokens=(1, 2, 5),
    chars=(4, 20, 15),
    bytes=(4, 20, 60),
)


def test_every_normalisation_picks_its_own_choice() -> None:
    assert predicted(_SCORE) == {
        "acc_raw": 0,
        "acc_per_token": 2,
        "acc_per_char": 1,
        "acc_per_byte": 2,
        "acc_unconditional": 1,
    }


def test_item_metrics_by_hand() -> None:
    values = item_metrics(_SCORE)
    assert [values[f"acc_{name}"] for name in ("raw", "per_token", "per_char", "unconditional")] == [0, 0, 1, 1]
    assert values["bits_per_byte_gold"] == pytest.approx(4 / (20 * math.log(2)))
    assert values["probability_mass"] == pytest.approx(math.exp(-3) + math.exp(-4) + math.exp(-6))


def test_first_of_equal_choices_is_taken() -> None:
    score = ItemScore(
        id="0",
        label=0,
        sum_logprobs=(-2.0, -2.0),
        sum_logprobs_unconditional=(-1.0, -1.0),
        tokens=(1, 1),
        chars=(1, 1),
        bytes=(1, 1),
    )
    assert set(predicted(score).values()) == {0}


def test_task_metrics_are_means_with_their_standard_errors() -> None:
    wrong = ItemScore(**{**vars(_SCORE), "label": 0, "id": "1"})
    metrics = task_metrics([_SCORE, _SCORE, wrong])
    assert metrics["acc_per_char"]["value"] == pytest.approx(2 / 3)
    assert metrics["acc_per_char"]["stderr"] == pytest.approx(np.std([1, 1, 0], ddof=1) / math.sqrt(3))
    assert metrics["acc_per_char"]["n"] == 3
    assert task_metrics([_SCORE])["acc_raw"]["stderr"] is None


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


@pytest.mark.parametrize(("value", "expected"), [(-1.23456749, -1.234567), (1e-8, 0.0), (-1e-9, 0.0), (-0.0, 0.0)])
def test_logprobs_are_rounded_to_six_decimals_and_never_positive(value: float, expected: float) -> None:
    assert str(round_logprob(value)) == str(expected)


def test_significant_digits() -> None:
    assert round_significant(12345.678901234) == 12345.6789
    assert round_significant(0.0) == 0.0

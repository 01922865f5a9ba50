"""Normalisations and rounding, computed by hand."""

import math

import numpy as np
import pytest
from catwalk.metrics import item_metrics, predicted, round_logprob, round_significant
from catwalk.rows import choice_row, task_row
from catwalk.types import ItemScore

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
    rows = [choice_row(score) for score in (_SCORE, _SCORE, wrong)]
    metrics = task_row("x", "test", "acc_raw", rows)["metrics"]
    assert metrics["acc_per_char"]["value"] == pytest.approx(2 / 3)
    assert metrics["acc_per_char"]["stderr"] == pytest.approx(np.std([1, 1, 0], ddof=1) / math.sqrt(3))
    assert metrics["acc_per_char"]["n"] == 3
    assert task_row("x", "test", "acc_raw", rows[:1])["metrics"]["acc_raw"]["stderr"] is None


@pytest.mark.parametrize(("value", "expected"), [(-1.23456749, -1.234567), (1e-8, 0.0), (-1e-9, 0.0), (-0.0, 0.0)])
def test_logprobs_are_rounded_to_six_decimals_and_never_positive(value: float, expected: float) -> None:
    assert str(round_logprob(value)) == str(expected)


def test_significant_digits() -> None:
    assert round_significant(12345.678901234) == 12345.6789
    assert round_significant(0.0) == 0.0

"""Learning rates against tables worked out by hand."""

from __future__ import annotations

import pytest
from olmo_trainer.config.schema import ScheduleConfig
from olmo_trainer.optim.schedule import learning_rate

CASES = {
    "linear": [0.5, 1.0, 0.775, 0.55, 0.325, 0.1],
    "cosine": [0.5, 1.0, 0.1 + 0.9 * (1 + 2**-0.5) / 2, 0.55, 0.1 + 0.9 * (1 - 2**-0.5) / 2, 0.1],
    "constant": [0.5, 1.0, 1.0, 1.0, 1.0, 1.0],
}


@pytest.mark.parametrize("kind", CASES)
def test_schedule_follows_its_table(kind: str) -> None:
    schedule = ScheduleConfig(kind=kind, warmup_steps=2, final_ratio=0.1)  # type: ignore[arg-type]
    rates = [learning_rate(step, 6, 3.0, schedule) for step in range(1, 7)]
    assert rates == pytest.approx([3.0 * value for value in CASES[kind]], rel=1e-12)


def test_without_warmup_the_first_step_has_begun_to_fall() -> None:
    schedule = ScheduleConfig(kind="linear", warmup_steps=0, final_ratio=0.0)
    assert [learning_rate(step, 4, 1.0, schedule) for step in range(1, 5)] == [0.75, 0.5, 0.25, 0.0]


def test_a_run_that_is_all_warmup_ends_at_the_peak() -> None:
    schedule = ScheduleConfig(kind="cosine", warmup_steps=4)
    assert learning_rate(4, 4, 2.0, schedule) == 2.0

"""Learning rates, durations and batches against tables worked out by hand from the published formulas."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from olmo_trainer.config.schema import BatchPhase, LengthPhase, ScheduleConfig, TrainConfig
from olmo_trainer.data.order import BatchSchedule, steps_of_duration
from olmo_trainer.optim import learning_rate
from olmo_trainer.settings import build

ROOT = 2**-0.5  # cos 45°
E = {0: 1.0, 1: 0.1 + 0.9 * (1 + ROOT) / 2, 2: 0.55, 3: 0.1 + 0.9 * (1 - ROOT) / 2, 4: 0.1}  # a cosine from 1 to 0.1

# kind, settings, {t: rate over the peak}; the run ends at t = 10, warmup is 2 and the last rate a tenth, if not said
TABLE: list[tuple[str, dict[str, Any], dict[float, float]]] = [
    ("constant", {}, {0: 0, 1: 0.5, 2: 1, 3: 1, 10: 1}),
    ("linear", {}, {0: 0, 1: 0.5, 2: 1, 4: 0.775, 6: 0.55, 8: 0.325, 10: 0.1, 12: 0.1}),
    ("linear", {"t_max": 18.0}, {2: 1, 6: 0.775, 10: 0.55}),  # the run ends before the shape
    ("linear", {"warmup_min_lr": 0.3}, {0: 0.1, 1: 0.55, 2: 1}),  # peak 3: from a tenth of it, as OLMo-1
    ("linear", {"warmup": 0.2}, {1: 0.5, 2: 1, 6: 0.55}),  # a share
    ("cosine", {}, {1: 0.5, 2: E[0], 4: E[1], 6: E[2], 8: E[3], 10: E[4], 11: 0.1}),
    (
        "cosine_linear_envelope",
        {},
        {2: 1, 4: 0.1 + 0.75 * (E[1] - 0.1), 6: 0.325, 8: 0.1 + 0.25 * (E[3] - 0.1), 10: 0.1},
    ),
    ("half_cosine", {}, {1: 0.275, 2: E[2], 6: E[3], 10: E[4]}),
    ("inv_sqrt", {}, {1: 0.5, 2: 1, 4: ROOT, 8: 0.5, 10: 0.2**0.5}),
    ("exponential", {}, {2: 1, 6: 0.1**0.5, 10: 0.1}),
    ("power", {"scale": 6.0, "exponent": -0.5}, {1: 0.5, 2: 1, 4: 1, 9: 2 / 3, 10: 2 / 10**0.5}),
    ("wsd", {"decay": 4.0, "final_ratio": 0.0}, {1: 0.5, 2: 1, 6: 1, 7: 0.75, 8: 0.5, 10: 0}),
    ("wsd", {"decay": 0.4}, {2: 1, 6: 1, 8: 0.55, 10: 0.1}),
    (
        "wsds",
        {"decay": 2.0, "periods": [5.0], "final_ratio": 0.0},
        {1: 0.5, 2: 1, 3: 1, 4: 0.5, 5: 0, 6: 1, 8: 1, 9: 0.5},
    ),
    ("max", {"parts": [{"kind": "linear"}, {"kind": "constant", "warmup": 20.0}]}, {0: 1, 2: 0.82, 8: 0.4, 10: 0.5}),
    (
        "sequential",
        {"parts": [{"kind": "linear", "length": 4.0, "final_ratio": 0.5}, {"kind": "linear", "final_ratio": 0.0}]},
        {0: 1, 2: 0.75, 4: 0.5, 7: 0.25, 10: 0},
    ),
    (
        "sequential",  # a cosine meant for longer, cut short, then straight to 0
        {"parts": [{"kind": "cosine", "t_max": 8.0, "length": 4.0}, {"kind": "linear", "final_ratio": 0.0}]},
        {2: E[1], 4: E[2], 7: 0.275, 10: 0},
    ),
    (
        "bolt_on",
        {"warmup_from": 4.0, "parts": [{"kind": "linear", "final_ratio": 0.0}]},
        {3: 0, 4: 0, 5: 0.2, 6: 0.4, 8: 0.2},
    ),
]


def schedule_of(kind: str, settings: dict[str, Any]) -> ScheduleConfig:
    return build(ScheduleConfig, {"kind": kind, "warmup": 2.0, **settings}, "test")


@pytest.mark.parametrize(("kind", "settings", "expected"), TABLE)
def test_schedule_follows_its_table(kind: str, settings: dict[str, Any], expected: dict[float, float]) -> None:
    schedule = schedule_of(kind, settings)
    for t, ratio in expected.items():
        assert learning_rate(t, 10, 3.0, schedule) == pytest.approx(3.0 * ratio, rel=1e-12, abs=1e-15), t


@given(
    case=st.sampled_from([case for case in TABLE if case[0] not in ("wsds", "sequential", "max", "bolt_on")]),
    t=st.integers(0, 40),
    end=st.integers(3, 30),
    scale=st.floats(0.01, 100),
)
def test_rates_stay_in_bounds_rise_then_fall_and_do_not_care_for_the_unit(
    case: tuple[str, dict[str, Any], Any], t: int, end: int, scale: float
) -> None:
    schedule = schedule_of(case[0], case[1])
    rate, following = learning_rate(t, end, 3.0, schedule), learning_rate(t + 1, end, 3.0, schedule)
    assert 0 <= rate <= 3.0
    warmup = schedule.warmup * (1 if schedule.warmup >= 1 else end)
    if t + 1 <= warmup and schedule.decay == 0.1:
        assert rate <= following
    elif t >= warmup:
        assert following <= rate
    if schedule.kind not in ("power", "inv_sqrt") and schedule.warmup >= 1 and schedule.warmup_min_lr == 0:
        lengths = {name: getattr(schedule, name) for name in ("warmup", "t_max", "decay")}
        scaled = {name: value * 1000 for name, value in lengths.items() if value is not None and value >= 1}
        in_tokens = dataclasses.replace(schedule, **scaled)
        assert learning_rate(t * 1000, end * 1000, 3.0, in_tokens) == pytest.approx(rate, rel=1e-9, abs=1e-12)
    if schedule.warmup_min_lr == 0:
        louder = dataclasses.replace(schedule, scale=schedule.scale * scale)
        assert learning_rate(t, end, 3.0 * scale, louder) == pytest.approx(rate * scale, rel=1e-9, abs=1e-12)


def test_without_warmup_the_first_step_has_begun_to_fall() -> None:
    schedule = ScheduleConfig(kind="linear", final_ratio=0.0)
    assert [learning_rate(step, 4, 1.0, schedule) for step in range(1, 5)] == [0.75, 0.5, 0.25, 0.0]


def test_a_run_that_is_all_warmup_ends_at_the_peak() -> None:
    schedule = ScheduleConfig(kind="cosine", warmup=4)
    assert learning_rate(4, 4, 2.0, schedule) == 2.0


def phases(*rows: tuple[int, float]) -> tuple[BatchPhase, ...]:
    return tuple(BatchPhase(batch_windows=windows, until_tokens=until) for windows, until in rows)


def test_batches_grow_at_the_given_tokens() -> None:
    train = TrainConfig(
        batch_windows=8,
        batch_warmup=phases((2, 35), (4, 100)),
        length_warmup=(LengthPhase(sequence_length=5, until_tokens=80),),
    )
    plan = BatchSchedule(train, window_tokens=10)
    # 35 tokens are reached in the second step of 20; 80 and 100 after one more of 40 each
    assert [plan.windows(step) for step in range(1, 7)] == [2, 2, 4, 4, 8, 8]
    assert [plan.tokens(step) for step in range(7)] == [0, 20, 40, 80, 120, 200, 280]
    assert [plan.sequence_length(step) for step in range(1, 6)] == [5, 5, 5, 10, 10]


@given(
    rows=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3000)), max_size=4, unique_by=lambda row: row[1]),
    last=st.integers(1, 9),
    window=st.integers(0, 5000),
)
def test_step_and_window_are_inverse(rows: list[tuple[int, float]], last: int, window: int) -> None:
    rows.sort(key=lambda row: row[1])
    plan = BatchSchedule(TrainConfig(batch_windows=last, batch_warmup=phases(*rows)), window_tokens=7)
    step = plan.step_of(window)
    assert plan.first_window(step) <= window < plan.first_window(step) + plan.windows(step)
    assert plan.first_window(step + 1) == plan.first_window(step) + plan.windows(step)
    wanted = next((windows for windows, until in rows if plan.first_window(step) * 7 < until), last)
    assert plan.windows(step) == wanted


DURATIONS = {
    "1000 steps": 1000,
    "1 step": 1,
    "800T": 10,
    "801T": 11,
    "2.4e3T": 30,
    "1ep": 12,  # 99 windows in steps of 8: the last three would begin the epoch again
    "2ep": 24,
    "0.5ep": 6,
    "2chinchilla": 500,  # 2 · 20 · 1000 tokens
    "12": None,
    "many": None,
    "0 steps": 0,
}


@pytest.mark.parametrize(("text", "steps"), DURATIONS.items())
def test_durations(text: str, steps: int | None) -> None:
    plan = BatchSchedule(TrainConfig(batch_windows=8), window_tokens=10)
    assert steps_of_duration(text, plan, epoch_windows=99, parameters=1000) == steps

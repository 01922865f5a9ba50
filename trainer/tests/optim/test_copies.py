"""Copies of the metrics are one curve, whatever the run went through: each step once, as metrics.jsonl has it."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import olmo_trainer.train as training
import pytest
from conftest import settings, write_config
from test_rewind import CHANGES, opened, poison
from test_run import olmo

LOSS = "train/CrossEntropyLoss"

pytestmark = pytest.mark.processes  # each run starts W&B's own


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("WANDB_SILENT", "true")


def records(path: Path) -> Iterator[Any]:
    """The messages of an offline run's file: LevelDB's log format behind seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, message = path.read_bytes(), 7, b""
    assert data.startswith(b":W&B")
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        if place + 7 + size > len(data):
            return  # W&B's process is still writing it
        message += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(message)
            message = b""
            yield record


def whole(path: Path) -> list[Any]:
    """All messages of a file, which W&B's own process ends a moment after the run."""
    for _ in range(600):
        found = list(records(path))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{path} is not ended")


def curves(run: Path) -> list[list[tuple[int, float]]]:
    """(step, loss) of each part of the W&B run, in the order of their writing."""
    parts = sorted((run / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.parent.name)
    assert len({part.stem for part in parts}) == 1  # all of one run
    found = []
    for part in parts:
        messages = whole(part)
        rows = (record.history for record in messages if record.WhichOneof("record_type") == "history")
        named = [{item.key or ".".join(item.nested_key): item.value_json for item in row.item} for row in rows]
        found.append([(int(row["_step"]), float(row[LOSS])) for row in named if LOSS in row])
    return found


def truth(run: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row[LOSS]) for row in rows if LOSS in row]


def assert_tensorboard_has(expected: list[tuple[int, float]], run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload().Scalars(LOSS)
    assert [event.step for event in events] == [step for step, _ in expected]
    assert [event.value for event in events] == pytest.approx([loss for _, loss in expected])


def changed(**changes: Any) -> dict[str, Any]:
    return {**CHANGES, "wandb__enabled": True, "logging__tensorboard": True, **changes}


def test_a_stopped_run_continues_its_curve(made: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", settings(made, tmp_path / "run", **changed(stability={})))
    for stop in (5, 12):
        assert olmo("train", config, f"train.stop_at={stop} steps") == 0
    expected = truth(tmp_path / "run")
    assert [step for step, _ in expected] == list(range(1, 13))
    assert curves(tmp_path / "run") == [expected[:5], expected[5:]]
    assert_tensorboard_has(expected, tmp_path / "run")


def test_a_killed_run_repeats_the_rows_it_had_copied(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B leaves out steps that are not above the last; those that are done again are the same."""
    config = write_config(tmp_path / "c.yaml", settings(made, tmp_path / "run", **changed(stability={})))
    with monkeypatch.context() as patch:

        def killed(progress: Any, *_: Any) -> None:
            if progress.step == 5:
                raise KeyboardInterrupt

        patch.setattr(training, "handle_bad_step", killed)
        assert olmo("train", config) == 130
    assert olmo("train", config) == 0
    expected = truth(tmp_path / "run")
    assert curves(tmp_path / "run") == [expected[:5], expected[3:]]
    assert_tensorboard_has(expected, tmp_path / "run")


def test_a_run_that_went_back_has_no_row_of_the_steps_it_left(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path / "c.yaml", settings(made, tmp_path / "run", **changed()))
    poison(monkeypatch, opened(config), [2, 3, 8, 9], 1e3)
    assert olmo("train", config) == 0
    expected = truth(tmp_path / "run")
    assert [step for step, _ in expected] == list(range(1, 13))
    assert curves(tmp_path / "run") == [expected]
    assert_tensorboard_has(expected, tmp_path / "run")

"""Bad batches in a real run: it goes back, leaves them out, and is then the run that never had them."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import olmo_trainer.train as training
import pytest
import torch
from conftest import settings, texts, write_config
from olmo_trainer.__main__ import main
from olmo_trainer.config.load import load_config
from olmo_trainer.data.order import DataOrder, joined
from olmo_trainer.data.sources import TrainingData, open_training_data
from olmo_trainer.device import TensorBatch
from olmo_trainer.step import Learner
from shards import write_tokens
from test_run import manifest, olmo, rows_of

CHANGES = {
    "validation": {},
    "checkpoint": {"every_steps": 3},
    "stability": {"rewind_after": 2, "outlier_window": 6, "max_rewinds": 2},
}


def opened(config: Path) -> TrainingData:
    return open_training_data(load_config(config, []))


def poison(monkeypatch: pytest.MonkeyPatch, data: TrainingData, batches: list[int], factor: float) -> list[int]:
    """Have the batches that stand at these steps of an undisturbed run give a bad gradient; returns the steps done."""
    bad = [torch.from_numpy(data.read(range(4 * (step - 1), 4 * step)).tokens_BT[:1]) for step in batches]
    real, done = training.train_step, []

    def poisoned(learner: Learner, batch: TensorBatch, *arguments: Any) -> Any:
        hit = any(torch.equal(batch.tokens_BT[:1].cpu().long(), first.long()) for first in bad)
        hook = learner.model.norm.register_forward_hook(lambda module, inputs, out: out * factor) if hit else None
        stats = real(learner, batch, *arguments)
        if hook is not None:
            hook.remove()
        done.append(len(done))
        return stats

    monkeypatch.setattr(training, "train_step", poisoned)
    return done


@pytest.mark.parametrize(
    ("batches", "factor", "restart"),
    [([8, 9], float("nan"), 6), ([8, 9], 1e3, 6), ([2, 3], float("inf"), 0)],
    ids=["nan", "spike", "before-the-first-checkpoint"],
)
def test_a_run_that_went_back_is_the_run_without_the_bad_batches(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    batches: list[int],
    factor: float,
    restart: int,
) -> None:
    gap = (4 * (batches[0] - 1), 4 * batches[-1])
    clean, run, stopped = tmp_path / "clean", tmp_path / "run", tmp_path / "stopped"
    config = write_config(tmp_path / "clean.yaml", settings(made, clean, **CHANGES))
    data = opened(config)
    with monkeypatch.context() as patch:  # the order with a gap from the beginning
        patch.setattr(DataOrder, "shifted", lambda self, taken: taken + (gap[1] - gap[0]) * (taken >= gap[0]))
        assert olmo("train", config) == 0
    with monkeypatch.context() as patch:
        done = poison(patch, data, batches, factor)
        assert olmo("train", write_config(tmp_path / "run.yaml", settings(made, run, **CHANGES))) == 0
        assert len(done) == batches[-1] + 12 - restart
        other = write_config(tmp_path / "stopped.yaml", settings(made, stopped, **CHANGES))
        for stop in (batches[0], 10, 12):  # within the bad steps, and after them
            assert olmo("train", other, f"train.stop_at={stop} steps") == 0
    weights = [path / "checkpoints" / "step-12" / "model.safetensors" for path in (clean, run, stopped)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    moments = [path.parent / "training" / "optimizer.safetensors" for path in weights]
    assert moments[0].read_bytes() == moments[1].read_bytes()
    assert manifest(weights[1].parent) == manifest(weights[2].parent)
    assert rows_of(run) == rows_of(stopped)
    state = json.loads((weights[1].parent / "training" / "state.json").read_text())
    assert (state["rewinds"], state["left_out"], state["position"]) == (1, [list(gap)], 48)

    rows = rows_of(run)[1:]
    assert [row["step"] for row in rows] == list(range(1, 13))
    told = [row.get("stability/left_out_first") for row in rows]
    assert told == [None] * restart + [gap[0]] * (12 - restart)
    plain = [{key: value for key, value in row.items() if not key.startswith("stability/")} for row in rows]
    expected = [{key: row[key] for key in found} for row, found in zip(rows_of(clean)[1:], plain, strict=True)]
    assert plain == expected

    capsys.readouterr()
    taken: list[tuple[int, int]] = []
    steps_of: dict[str, set[int]] = {}
    for step in range(1, 13):
        assert olmo("inspect", run, "--step", step) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        taken += sorted({(row["position"], row["window"]) for row in found})
        for row in found:
            steps_of.setdefault(row["id"], set()).add(step)
    positions = [*range(gap[0]), *range(gap[1], 48 + gap[1] - gap[0])]
    assert taken == [(position, data.order.at(position).window) for position in positions]
    for identifier, steps in sorted(steps_of.items())[::7]:
        assert olmo("inspect", run, "--document", identifier) == 0
        assert json.loads(capsys.readouterr().out)["steps"] == sorted(steps)


@pytest.mark.processes
def test_a_run_killed_again_and_again_goes_back_all_the_same(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**CHANGES, "checkpoint": {"every_steps": 2, "keep_last": 1}, "train__steps": 16}
    whole, killed = (
        write_config(tmp_path / f"{name}.yaml", settings(made, tmp_path / name, **changes)) for name in ("w", "k")
    )
    poison(monkeypatch, opened(whole), [6, 7, 12, 13], float("nan"))
    assert olmo("train", whole) == 0
    context, draw, kills = multiprocessing.get_context("fork"), random.Random(), 0
    while True:
        child = context.Process(target=lambda: os._exit(main(["train", str(killed)])))
        child.start()
        child.join(timeout=draw.uniform(0.05, 0.2 + 0.05 * kills))
        if not child.is_alive():
            break
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        kills += 1
    assert child.exitcode == 0
    assert kills >= 1
    assert rows_of(tmp_path / "k") == rows_of(tmp_path / "w")
    last = [tmp_path / name / "checkpoints" / "step-16" for name in ("w", "k")]
    assert manifest(last[0]) == manifest(last[1])
    orders = [json.loads((tmp_path / name / "order.json").read_text()) for name in ("w", "k")]
    assert orders[0]["left_out"] == orders[1]["left_out"] == [[20, 28], [44, 52]]


def test_going_back_twice_leaves_both_out_and_a_third_time_is_the_end(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "c.yaml", settings(made, tmp_path / "run", **CHANGES))
    poison(monkeypatch, opened(config), [5, 6, 7, 8, 11, 12], float("nan"))
    assert olmo("train", config) == 1  # 5 and 6, then 7 and 8 in their place, then 11 and 12
    assert "2 bad steps in a row at step 8 after going back 2 times" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "order.json").read_text())["left_out"] == [[16, 32]]
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"step-3", "step-6"}


def test_a_rewind_that_a_kill_undid_is_not_reported(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the same steps need not be bad again; what is left out is what the checkpoint says."""
    run = tmp_path / "run"
    config = write_config(tmp_path / "c.yaml", settings(made, run, **CHANGES))
    data = opened(config)
    with monkeypatch.context() as patch:
        poison(patch, data, [8, 9], float("nan"))
        assert olmo("train", config, "train.stop_at=10 steps") == 0
    assert json.loads((run / "order.json").read_text())["left_out"] == [[28, 36]]
    for step in (9, 10):
        shutil.rmtree(run / "checkpoints" / f"step-{step}")
    assert olmo("train", config) == 0
    assert json.loads((run / "order.json").read_text())["left_out"] == []


def test_gaps_and_the_order_are_inverse() -> None:
    order = DataOrder([30, 20], [2, 1], seed=5)
    order.gaps = joined([(40, 45), (7, 9), (45, 50), (90, 91)])
    assert order.gaps == ((7, 9), (40, 50), (90, 91))
    places = [order.at(taken) for taken in range(100)]
    assert [place.position for place in places] == [*range(7), *range(9, 40), *range(50, 90), *range(91, 113)]
    for source, size in enumerate(order.sizes):
        for window in range(size):
            wanted = [t for t, place in enumerate(places) if (place.source, place.window) == (source, window)]
            assert order.positions(source, window, 100) == wanted


def test_garbage_among_real_text_is_found_and_skipped(made: Path, tmp_path: Path) -> None:
    """Nothing is forced here: two batches of random ids stand out by their loss alone, and only they are left out."""
    rows = [(f"d{index}", text) for index, text in enumerate(texts(400, 3))]
    tokens = write_tokens(tmp_path / "tokens", {"a": rows}, made / "tokenizer.json")
    (tokens / "manifest.json").unlink()  # as if another tool had written the shards
    source = {"path": str(tokens), "dtype": "uint16", "eos_token_id": 0, "pad_token_id": 1}
    changes = {
        "data": {"sources": [source], "sequence_length": 32},
        "train": {"duration": "1ep", "batch_windows": 2, "device": "cpu", "num_threads": 1},
        "optimizer": {"learning_rate": 0.005},  # calm enough that rounding of another processor makes no outliers
        "checkpoint": {"every_steps": 20, "keep_last": 1},
        "stability": {"rewind_after": 1, "outlier_window": 40, "outlier_sigma": 20.0},
        "validation": {},
        "seed": 1,
    }
    config = write_config(tmp_path / "c.yaml", settings(made, tmp_path / "run", **changes))
    placed = opened(config).order
    garbage = {placed.at(position).window for position in (200, 201, 280, 281)}
    ids, draw = np.fromfile(tokens / "a.npy", dtype="<u2"), np.random.Generator(np.random.PCG64(0))
    for window in garbage:
        ids[32 * window : 32 * (window + 1)] = draw.integers(2, 330, size=32)
    ids.tofile(tokens / "a.npy")
    assert olmo("train", config) == 0
    rows_found = rows_of(tmp_path / "run")
    order = json.loads((tmp_path / "run" / "order.json").read_text())
    left_out = [placed.at(position).window for first, last in order["left_out"] for position in range(first, last)]
    assert order["left_out"] == [[200, 202], [280, 282]]
    assert garbage == set(left_out)
    assert rows_found[-1]["stability/rewinds"] == 2

"""Whole runs of several ranks: started, dealt out, sharded, saved, and taken up by another number of ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import settings, write_config
from forked import on_ranks
from olmo_trainer.__main__ import main
from safetensors.torch import load_file

PROCESSES = pytest.mark.processes
TIMES = ("time_s", "throughput/device/", "System/", "energy/")


def train(world: int, config: Path) -> None:
    """Train on so many ranks."""
    if world == 1:
        assert main(["train", str(config)]) == 0
        return
    on_ranks(world, trained, config)


def trained(config: Path) -> None:
    assert main(["train", str(config)]) == 0


def rows_of(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith(TIMES)} for row in rows]


def check_like(run: Path, whole: Path, steps: int) -> None:
    ours, theirs = rows_of(run), rows_of(whole)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == list(range(steps + 1))
    for row, expected in zip(ours, theirs, strict=True):
        assert row.keys() == expected.keys()
        assert row == pytest.approx(expected, rel=1e-5, abs=1e-6)
        losses = [key for key in row if key == "train/CrossEntropyLoss" or key.startswith("eval/")]
        assert [row[key] for key in losses] == pytest.approx([expected[key] for key in losses], rel=1e-6)
    place = Path("checkpoints") / f"step-{steps}"
    for file in ("model.safetensors", "training/optimizer"):
        tensors, expected_tensors = (
            load_file((root / place / file).with_suffix(".safetensors")) for root in (run, whole)
        )
        assert tensors.keys() == expected_tensors.keys()
        for name, tensor in tensors.items():
            assert (tensor - expected_tensors[name]).abs().max() <= 1e-4, name


def changes(kind: str, steps: int, tensor_ranks: int = 1) -> dict[str, Any]:
    return {
        "train__stop_at": f"{steps} steps",
        "train__parallel": {"kind": kind, "tensor_ranks": tensor_ranks},
        "train__micro_batch_windows": 1,
        "validation__every_steps": 3,
        "checkpoint__every_steps": 3,
        # the last one is compared file by file
        "checkpoint__sharded": kind == "fsdp" and steps < 12,
        "checkpoint__background": kind == "fsdp",
        "model__num_key_value_heads": 2,
        "optimizer__learning_rate": 0.002,  # at a higher one, last bits grow in 12 steps
    }


@pytest.fixture(scope="module")
def whole(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on one rank."""
    root = tmp_path_factory.mktemp("whole")
    train(1, write_config(root / "c.yaml", settings(made, root / "run", **changes("ddp", 12))))
    return root / "run"


@PROCESSES
def test_launch_starts_ranks_that_save_and_report_once(whole: Path, made: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", settings(made, tmp_path / "run", **changes("fsdp", 3)))
    command = [sys.executable, "-m", "olmo_trainer", "launch", str(config), "--nproc", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == done.stderr.count("train  done") == 1
    rows = rows_of(tmp_path / "run")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    for row, expected in zip(rows, rows_of(whole), strict=False):
        assert row == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert (tmp_path / "run" / "checkpoints" / "step-3" / "manifest.json").is_file()
    assert json.loads((tmp_path / "run" / "order.json").read_text())["ranks"] == [[1, 2]]


@PROCESSES
@pytest.mark.parametrize(
    "stages",
    [
        [(1, "ddp", 1, 3), (2, "fsdp", 1, 6), (4, "fsdp", 1, 9), (1, "fsdp", 1, 12)],
        [(1, "ddp", 1, 3), (2, "ddp", 2, 6), (2, "fsdp", 1, 9), (1, "ddp", 1, 12)],
        [(4, "fsdp", 2, 3), (2, "fsdp", 2, 6), (4, "ddp", 2, 12)],
        [(4, "ddp", 1, 3), (2, "ddp", 1, 12)],
    ],
)
def test_a_run_resumes_with_another_number_of_ranks(
    stages: list[tuple[int, str, int, int]], whole: Path, made: Path, tmp_path: Path
) -> None:
    for world, kind, tensor_ranks, steps in stages:
        wanted = settings(made, tmp_path / "run", **changes(kind, steps, tensor_ranks))
        train(world, write_config(tmp_path / f"{steps}.yaml", wanted))
    check_like(tmp_path / "run", whole, 12)
    ranks = json.loads((tmp_path / "run" / "order.json").read_text())["ranks"]
    begun = [1, *(steps + 1 for *_, steps in stages)]
    dealt = [[first, world // tensor_ranks] for first, (world, _, tensor_ranks, _) in zip(begun, stages, strict=False)]
    assert ranks == [row for before, row in zip([[0, 0], *dealt], dealt, strict=False) if row[1] != before[1]]


@pytest.mark.parametrize(("kind", "tensor_ranks"), [("ddp", 1), ("fsdp", 1), ("ddp", 2)])
def test_statistics_are_those_of_all_ranks(kind: str, tensor_ranks: int, made: Path, tmp_path: Path) -> None:
    rows = []
    for world in (1, 2):
        config = settings(
            made, tmp_path / str(world), **changes(kind, 2, min(world, tensor_ranks)), logging__statistics_every_steps=1
        )
        train(world, write_config(tmp_path / "c.yaml", config))
        rows.append(rows_of(tmp_path / str(world))[1:])
    for alone, together in zip(*rows, strict=True):
        assert {"activation/embedding.min", "activation/blocks.1.norm", "optim/grad/embedding.avg"} <= alone.keys()
        assert together == pytest.approx(alone, rel=1e-4, abs=1e-6)


def test_ranks_that_a_batch_cannot_be_dealt_to_are_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    config = settings(made, tmp_path / "run", train__parallel={"kind": "hsdp", "shard_ranks": 2})
    assert main(["train", str(write_config(tmp_path / "c.yaml", config))]) == 2
    told = capsys.readouterr().err
    assert '"train.batch_windows" is 4; expected a multiple of the 3 ranks' in told
    assert '"train.parallel.shard_ranks" is 2; expected a divisor of the 3 ranks' in told


@PROCESSES
@pytest.mark.parametrize(("kind", "tensor_ranks"), [("ddp", 1), ("fsdp", 1), ("fsdp", 2)])
def test_as_many_ranks_as_before_give_the_same_bytes(kind: str, tensor_ranks: int, made: Path, tmp_path: Path) -> None:
    runs = [tmp_path / "straight", tmp_path / "stopped"]
    for run, stages in zip(runs, [[6], [3, 6]], strict=True):
        for steps in stages:
            train(2, write_config(tmp_path / "c.yaml", settings(made, run, **changes(kind, steps, tensor_ranks))))
    last, shards = (run / "checkpoints" / "step-6" for run in runs), "training/optimizer"
    straight, stopped = ({p.relative_to(d): p.read_bytes() for p in d.rglob("*.safetensors")} for d in last)
    assert straight == stopped
    assert sum(path.as_posix().startswith(f"{shards}/") for path in straight) == (2 if kind == "fsdp" else 0)
    assert rows_of(runs[0]) == rows_of(runs[1])


def test_what_cannot_be_shared_is_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(made, tmp_path / "run", model__intermediate_size=25, train__parallel={"tensor_ranks": 2})
    path = write_config(tmp_path / "c.yaml", config)
    assert main(["train", str(path), "--dry-run"]) == 2
    told = capsys.readouterr().err
    assert '"model.num_key_value_heads" is 1; expected a multiple of train.parallel.tensor_ranks 2' in told
    assert '"model.intermediate_size" is 25; expected a multiple' in told
    assert "model.num_attention_heads" not in told
    experts = ["model.family=olmoe", "model.num_key_value_heads=2", "model.tie_word_embeddings=false"]
    assert main(["train", str(path), *experts]) == 2
    assert '"train.parallel.tensor_ranks" is 2 and "model.family" olmoe; expected 1' in capsys.readouterr().err
    dense = ["model.intermediate_size=24", "model.num_key_value_heads=2"]
    assert main(["train", str(path), "--dry-run", "--ranks", "3", *dense]) == 2
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert main(["train", str(path), *dense]) == 2
    assert capsys.readouterr().err.count('"train.parallel.tensor_ranks" is 2; expected a divisor of the 3 ranks') == 2


def test_a_dry_run_prints_the_work_of_one_of_several_ranks(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config(tmp_path / "c.yaml", settings(made, tmp_path / "run", **changes("ddp", 12)))
    told = []
    for overrides in ([], ["train.parallel.tensor_ranks=2"], ["train.parallel.tensor_ranks=2", "--ranks", "4"]):
        assert main(["train", str(path), "--dry-run", "--json", *overrides]) == 0
        told.append(json.loads(capsys.readouterr().out))
    memory = [row["memory_per_rank_bytes"]["weights"] for row in told]
    norms = 4 * (2 * 2 + 1) * 16  # bytes; every rank has them whole
    assert memory[1] == memory[2] == (memory[0] - norms) // 2 + norms
    assert [row["flops"] // row["flops_per_rank"] for row in told] == [1, 2, 4]
    assert [row["micro_batches"] for row in told] == [4, 4, 2]

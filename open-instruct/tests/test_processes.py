"""Several processes train what one process trains: the same losses, weights, evaluations and order of rows."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import chat_rows, pair_rows, read_metrics, write_rows
from open_instruct.__main__ import main
from open_instruct.formats.__main__ import main as formats
from open_instruct.order import RowOrder
from safetensors.torch import load_file

pytestmark = pytest.mark.timeout(300)  # two processes that import torch on a busy machine
# Seven rows in batches of four: the second batch of an epoch is short, and a process has nothing to train in it
RUNS = {
    "sft": ["sft", "training.num_epochs=2"],
    "packed": ["sft", "sequence.packing=true", "sequence.max_length_tokens=80", "loss_reduction=example"],
    "dpo": ["dpo", "lora.rank=4", "lora.dropout=0.0", "loss.precompute_reference=false", "loss.kind=apo_zero"],
}


@pytest.fixture(scope="module")
def outputs(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of every run with one process in `1`, and with two in `2`."""
    folder = tmp_path_factory.mktemp("processes")
    data = {
        "sft": write_rows(folder / "chats.jsonl", chat_rows(7)),
        "dpo": write_rows(folder / "pairs.jsonl", pair_rows(7)),
    }
    both: dict[int, list[list[str]]] = {1: [], 2: []}
    for name, (stage, *more) in RUNS.items():
        config = folder / f"{name}.yaml"
        config.write_text(
            f"model: {checkpoint()}\noutput_dir: x\nseed: 3\n"
            f"data: {{train: [{data[stage]}], eval: [{data[stage]}]}}\n"
            "sequence: {max_length_tokens: 128}\n"
            "optimizer: {learning_rate: 0.01, epsilon: 0.001}\n"
            "training: {num_epochs: 1, batch_sequences: 4, micro_batch_sequences: 1, log_every_steps: 1,\n"
            "  eval_batch_sequences: 2}\n"
            "runtime: {device: cpu, num_threads: 1}\n"
        )
        for count, runs in both.items():
            runs.append([stage, str(config), f"output_dir={folder / str(count) / name}", *more])
    (folder / "runs.json").write_text(json.dumps(both[2]))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*launch, str(Path(__file__).with_name("ranks.py")), str(folder / "runs.json")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for arguments in both[1]:
        assert main(arguments) == 0
    return folder


@pytest.mark.parametrize("name", list(RUNS))
def test_two_processes_train_what_one_trains(outputs, name):
    one, two = (outputs / str(count) / name for count in (1, 2))
    for a, b in zip(read_metrics(one), read_metrics(two), strict=True):
        assert a["step"] == b["step"]
        for key in ("train/loss", "eval/loss", "eval/rewards/margins", "train/rewards/margins", "train/logps/chosen"):
            assert (key in a) == (key in b)
            if key in a:
                assert a[key] == pytest.approx(b[key], abs=2e-6, rel=2e-6), (key, a["step"])
        if "train/grad_norm" in a:
            assert a["train/grad_norm"] == pytest.approx(b["train/grad_norm"], rel=1e-4)
    weights = load_file(one / "model.safetensors")
    for key, tensor in load_file(two / "model.safetensors").items():
        assert torch.allclose(tensor, weights[key], atol=1e-5), key
    assert formats(["validate", "checkpoint", str(two)]) == 0
    assert json.loads((two / "manifest.json").read_text())["config"]["runtime"]["num_processes"] == 2


def test_result_of_two_processes_is_done_for_one(outputs, checkpoint):
    config = outputs / "sft.yaml"
    before = (outputs / "2" / "sft" / "manifest.json").read_bytes()
    assert main([*RUNS["sft"][:1], str(config), f"output_dir={outputs / '2' / 'sft'}", *RUNS["sft"][1:]]) == 0
    assert (outputs / "2" / "sft" / "manifest.json").read_bytes() == before


def test_batch_that_processes_cannot_share_is_refused(outputs, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert main(["sft", str(outputs / "sft.yaml"), f"output_dir={outputs / 'new'}"]) == 2
    assert "training.batch_sequences: 4 with 3 processes and micro-batches of 1" in capsys.readouterr().err


def test_every_process_gets_as_many_rows_and_no_row_twice():
    for length, multiple in ((7, 4), (8, 4), (1, 4), (9, 1)):
        order = list(RowOrder([1] * length, 5, multiple_of=multiple))
        assert len(order) % multiple == 0
        assert sorted(order)[:length] == list(range(length))
        assert set(order[length:]) <= {length}  # the empty row
        assert order[:length] == list(RowOrder([1] * length, 5))

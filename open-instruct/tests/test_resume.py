"""Interrupted runs, and what a run may touch: no half result, the same bytes, no network, a clean stderr."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import chat_rows, read_metrics, write_rows
from open_instruct.__main__ import main
from open_instruct.formats.contract import sha256_file

NO_NETWORK = """
import socket
def refuse(*arguments, **keywords):
    raise AssertionError(f"network: {arguments}")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import sys
from open_instruct.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def config(tmp_path, checkpoint) -> Path:
    data = write_rows(tmp_path / "chats.jsonl", chat_rows(24))
    path = tmp_path / "run.yaml"
    path.write_text(
        f"model: {checkpoint()}\noutput_dir: {tmp_path / 'out'}\ndata: {{train: [{data}], eval_fraction: 0.2}}\n"
        "optimizer: {learning_rate: 0.01}\nsequence: {max_length_tokens: 128}\n"
        "training: {max_steps: 30, batch_sequences: 4, micro_batch_sequences: 2,\n"
        "  log_every_steps: 1, eval_every_steps: 10}\n"
        "runtime: {device: cpu, num_threads: 1}\n"
    )
    return path


def _steps(rows: list[dict]) -> list[tuple[int, float]]:
    return [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]


@pytest.mark.parametrize("save_every", [pytest.param("null", marks=pytest.mark.slow), "3"])
def test_killed_run_ends_in_the_same_bytes(config, tmp_path, save_every):
    arguments = ["sft", str(config), f"training.save_every_steps={save_every}"]
    metrics = tmp_path / "out.partial" / "metrics.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "open_instruct", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.is_file() and '"step": 7' in metrics.read_text():
            break
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (tmp_path / "out").exists()
    saved = {path.name for path in (tmp_path / "out.partial").glob("trainer/checkpoint-*")}
    assert bool(saved) == (save_every != "null")

    assert main(arguments) == 0
    assert not (tmp_path / "out.partial").exists()
    assert main([*arguments, f"output_dir={tmp_path / 'straight'}"]) == 0
    for name in ("model.safetensors", "manifest.json"):
        assert sha256_file(tmp_path / "out" / name) == sha256_file(tmp_path / "straight" / name)
    resumed, straight = read_metrics(tmp_path / "out"), read_metrics(tmp_path / "straight")
    assert _steps(resumed) == _steps(straight)
    evaluations = [
        [(row["step"], row["eval/loss"]) for row in rows if "eval/loss" in row] for rows in (resumed, straight)
    ]
    assert evaluations[0] == evaluations[1]
    assert [step for step, _ in evaluations[0]] == [0, 10, 20, 30]


def test_trainer_checkpoint_that_was_cut_short_is_not_used(config, tmp_path):
    from open_instruct.output import Output

    output = Output(tmp_path / "x", format_name="checkpoint", stage="sft", config={}, inputs=[])
    with output.begin(keep_trainer=True) as resume_from:
        assert resume_from is None
        for step, state in ((3, '{"global_step": 3}'), (6, '{"global_st'), (9, None)):
            folder = output.trainer / f"checkpoint-{step}"
            folder.mkdir(parents=True)
            if state is not None:
                (folder / "trainer_state.json").write_text(state)
    with output.begin(keep_trainer=True) as resume_from:
        assert resume_from is not None
        assert resume_from.name == "checkpoint-3"
    changed = Output(tmp_path / "x", format_name="checkpoint", stage="sft", config={"seed": 1}, inputs=[])
    with changed.begin(keep_trainer=True) as resume_from:
        assert resume_from is None  # other settings: start over


def test_two_processes_do_not_write_one_output(config, tmp_path, capfd):
    from open_instruct.output import Output

    other = Output(tmp_path / "out", format_name="checkpoint", stage="sft", config={}, inputs=[])
    with other.begin(keep_trainer=False):
        assert main(["sft", str(config)]) == 2
    assert "another process is writing" in capfd.readouterr().err


def test_run_needs_no_network_and_says_only_its_own_lines(config, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", NO_NETWORK, "sft", str(config), "training.max_steps=2"],
        check=False,
        capture_output=True,
        text=True,
        cwd=home,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    unexpected = [
        line for line in done.stderr.splitlines() if not line.startswith(("sft  ", "training rows", "held-out rows"))
    ]
    assert unexpected == []
    assert not [path for path in home.rglob("*") if path.is_file()]  # no caches, no logs
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["config"]["runtime"]["num_threads"] == 1

"""`olmo launch`: several machines, a job script that the shell understands, and a stop by signal."""

from __future__ import annotations

import argparse
import json
import os
import signal
import stat
import subprocess
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from conftest import settings, write_config
from olmo_trainer.__main__ import main
from olmo_trainer.commands import torchrun_command
from olmo_trainer.step import StepStats


def test_several_machines_meet_at_one() -> None:
    arguments = argparse.Namespace(config=Path("c.yaml"), overrides=["seed=1"], nproc=8, nodes=4, rendezvous="a:29500")
    command = " ".join(torchrun_command(arguments)[1:])
    assert command == (
        "-m torch.distributed.run --nproc-per-node 8 --nnodes 4 --rdzv-backend c10d --rdzv-endpoint a:29500"
        " --rdzv-id c.yaml -m olmo_trainer train c.yaml seed=1"
    )


def test_wrong_numbers_are_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path / "c.yaml", settings(made, tmp_path / "run"))
    assert main(["launch", str(config), "--nproc", "0", "--nodes", "2"]) == 2
    told = capsys.readouterr().err
    assert "--nproc is 0; expected 1 or more" in told
    assert "--rendezvous is missing" in told


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.processes
def test_a_job_is_saved_before_its_time_is_over_and_queued_again(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script runs under stand-ins for SLURM's two programs; the task is stopped as SLURM does it."""
    run = tmp_path / "a run"
    config = write_config(tmp_path / "c.yaml", settings(made, run, train__steps=100_000, checkpoint__every_steps=None))
    arguments = ["launch", str(config), "--slurm", "--nodes", "1", "--sbatch", "time=1:00:00", "--sbatch=exclusive"]
    assert main([*arguments, "--stop-before", "120"]) == 0
    script = capsys.readouterr().out
    head = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    assert {"signal=USR1@120", "requeue", "time=1:00:00", "exclusive", "ntasks-per-node=1", "nodes=1"} <= set(head)
    (tmp_path / "job.sh").write_text(script)
    subprocess.run(["bash", "-n", str(tmp_path / "job.sh")], check=True)
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "log"
    program(programs / "scontrol", f'[ "$1" = show ] && echo localhost || echo "$@" >> {log}')
    begun = 'until grep -q \'"step": 2,\' "$RUN/metrics.jsonl" 2>/dev/null; do sleep 0.05; done'
    start = 'shift; export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=1; "$@" & task=$!'
    program(programs / "srun", f"{start}; {begun}; kill -USR1 $task; wait $task")
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "localhost", "RUN": str(run)}
    environment = {**os.environ, **slurm, "PATH": f"{programs}:{os.environ['PATH']}"}
    job = subprocess.run(
        ["bash", str(tmp_path / "job.sh")], env=environment, capture_output=True, text=True, timeout=120
    )
    assert job.returncode == 75, job.stderr
    assert log.read_text() == "requeue 7\n"
    (saved,) = (run / "checkpoints").iterdir()
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert saved.name == f"step-{last}"
    assert f"stopped on SIGTERM or SIGUSR1; saved at step {last}" in job.stderr


def test_a_stopped_run_resumes_to_the_same_bytes(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from olmo_trainer import train

    def command(name: str) -> list[str]:
        config = settings(made, tmp_path / name)
        config["logging"] = {**config.get("logging", {}), "metrics_every_steps": 4}
        return ["train", str(write_config(tmp_path / f"{name}.yaml", config))]

    assert main(command("whole")) == 0
    before, step, steps = signal.getsignal(signal.SIGTERM), train.train_step, count(1)

    def signalled(*arguments: Any) -> StepStats:
        if next(steps) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_step", signalled)
        assert main(command("stopped")) == 75
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / "stopped" / "checkpoints" / "step-5" / "manifest.json").is_file()
    rows = (tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["step"] == 5  # what was spent until then is not forgotten
    assert main(command("stopped")) == 0
    last = [tmp_path / name / "checkpoints" / "step-12" / "manifest.json" for name in ("whole", "stopped")]
    assert last[0].read_bytes() == last[1].read_bytes()

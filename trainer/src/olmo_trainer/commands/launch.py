"""`olmo launch`: `olmo train` on several processes, here, on several machines, or as a SLURM job."""

from __future__ import annotations

import argparse
import os
import shlex
import sys

from ..config.errors import ConfigError, Problem
from ..runtime.signals import STOPPED_STATUS
from .request import Verbs, add_config, read_request

__all__ = ["add", "slurm_script", "torchrun_command"]


def add(verbs: Verbs) -> None:
    """Add the verb."""
    launch = verbs.add_parser("launch", help="train on several processes; with --slurm print a script for sbatch")
    add_config(launch)
    launch.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings that replace the file's")
    launch.add_argument("--nproc", type=int, default=1, help="processes on a machine: as many as it has GPUs")
    launch.add_argument("--nodes", type=int, default=1, help="machines")
    launch.add_argument("--rendezvous", metavar="HOST:PORT", help="of one of them, if there are several")
    launch.add_argument("--slurm", action="store_true", help="print a script that sbatch takes, and start nothing")
    launch.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help="for sbatch, as time=24:00:00")
    launch.add_argument("--stop-before", type=int, default=300, metavar="S", help="seconds left when the job is saved")
    launch.set_defaults(work=_launch)


def _launch(arguments: argparse.Namespace) -> None:
    problems = [
        Problem(f"--{name} is {value}; expected 1 or more")
        for name, value in (("nproc", arguments.nproc), ("nodes", arguments.nodes))
        if value < 1
    ]
    if arguments.nodes > 1 and arguments.rendezvous is None and not arguments.slurm:
        problems.append(Problem("--rendezvous is missing; expected HOST:PORT of one of the machines", "or use --slurm"))
    if problems:
        raise ConfigError(*problems)
    config, _, where = read_request(arguments)  # what is wrong is said here, once
    from ..runtime.ranks import check_world

    check_world(config.train, arguments.nodes * arguments.nproc, where)
    if arguments.slurm:
        sys.stdout.write(slurm_script(arguments, name=os.path.basename(config.run_directory)))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun would do it and warn; train.num_threads decides
    command = torchrun_command(arguments)
    sys.stdout.flush()
    os.execv(command[0], command)


def torchrun_command(arguments: argparse.Namespace) -> list[str]:
    """torchrun with `olmo train`; the same on each of several machines."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(arguments.nproc)]
    if arguments.nodes == 1:
        command.append("--standalone")
    else:
        command += ["--nnodes", str(arguments.nodes), "--rdzv-backend", "c10d"]
        command += ["--rdzv-endpoint", arguments.rendezvous, "--rdzv-id", os.path.basename(arguments.config)]
    return [*command, "-m", "olmo_trainer", "train", str(arguments.config), *arguments.overrides]


def slurm_script(arguments: argparse.Namespace, name: str) -> str:
    """A script for sbatch: a task for each rank, which SLURM tells to save before the time is over; then again."""
    options = {
        "job-name": name,
        "nodes": str(arguments.nodes),
        "ntasks-per-node": str(arguments.nproc),
        "signal": f"USR1@{arguments.stop_before}",
        "open-mode": "append",
    }
    options |= dict(option.removeprefix("--").partition("=")[::2] for option in arguments.sbatch)
    lines = [f"#SBATCH --{key}={value}" if value else f"#SBATCH --{key}" for key, value in options.items()]
    train = shlex.join([sys.executable, "-m", "olmo_trainer", "train", str(arguments.config), *arguments.overrides])
    rank = "export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS"
    ranks = f"{rank} LOCAL_WORLD_SIZE={arguments.nproc}; exec {train}"
    return "\n".join(
        [
            "#!/bin/bash",
            *lines,
            "#SBATCH --requeue",
            "",
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))",
            "export MASTER_ADDR MASTER_PORT",
            f"srun --kill-on-bad-exit=1 bash -c {shlex.quote(ranks)}",
            "status=$?",
            f"if [ $status -eq {STOPPED_STATUS} ]; then  # saved before the time limit",
            '    scontrol requeue "$SLURM_JOB_ID"',
            "fi",
            "exit $status",
            "",
        ]
    )

"""Measure training speed next to olmo-core, litgpt and Hugging Face's Trainer, and the cost of monitoring and loading.

    python bench/run.py [--presets 20m 60m] [--device cpu] [--dtype float32] [--batch 2] [--length 512] [--threads N]
    python bench/run.py --device cuda --presets olmo2-1b --length 2048 4096 --batch 8 --dtype bfloat16 --compile

Every trainer runs its own loop in its own process, with the same shape, batch, dtype and number of threads. They take
turns, one step each, so that other load affects all alike. Writes bench/results.md and bench/results.json. The peers
are in `.venv-peers` at the root, made with uv from bench/peers.txt. Peers that cannot be installed are skipped with a
message.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loader
import torch
from olmo_trainer.config.published import PRESETS
from olmo_trainer.config.schema import ModelConfig
from olmo_trainer.device import matmul_peak, peak_flops
from olmo_trainer.model.architecture import architecture_of, flops_per_token
from olmo_trainer.settings import build
from report import write_report

HERE = Path(__file__).resolve().parent
PEERS = HERE.parents[1] / ".venv-peers"
TRAINERS = ("ours", "hf-trainer", "litgpt", "olmo-core")
VOCABULARY = 50_304  # GPT-NeoX's 50,280 rounded up to a multiple of 128, as allenai/OLMo configs/tiny has it
BEGUN = time.monotonic()
WARMUP = 2  # steps that do not count: buffers and kernels are made in them


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"{time.monotonic() - BEGUN:4.0f} s  {text}", file=sys.stderr, flush=True)


def peers_python() -> Path | None:
    """The interpreter of the peers' environment, made if needed; None if it cannot be made."""
    ready, python = PEERS / "ready", PEERS / "bin" / "python"
    pins = (HERE / "peers.txt").read_text(encoding="utf-8")
    if ready.is_file() and ready.read_text(encoding="utf-8") == pins:
        return python
    next_to_python = Path(sys.executable).parent / "uv"
    uv = str(next_to_python) if next_to_python.is_file() else shutil.which("uv")
    if uv is None:
        say("no peers: uv not found next to python or on the PATH (pip install uv)")
        return None
    say("making the environment of the peers")
    install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--no-deps", "--python", str(python)]
    for command in ([uv, "venv", "--quiet", "--clear", str(PEERS)], [*install, "-r", str(HERE / "peers.txt")]):
        if subprocess.run(command, check=False).returncode:
            say("no peers: their packages cannot be installed here")
            return None
    ready.write_text(pins, encoding="utf-8")
    return python


class Worker:
    """A trainer in its own process; `why` is the reason if it is not running."""

    def __init__(self, name: str, python: Path | str, threads: int) -> None:
        self.name, self.why, self.version = name, "", ""
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        self._said = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [str(python), str(HERE / "workers.py"), name],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )

    def send(self, line: str) -> None:
        """Give it a line."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # `hear` finds out why

    def hear(self) -> dict[str, Any]:
        """Its next line; nothing once it has ended."""
        assert self._process.stdout is not None
        line = "" if self.why else self._process.stdout.readline()
        if line:
            said: dict[str, Any] = json.loads(line)
            return said
        if not self.why:
            self._process.wait()
            self._said.seek(0)
            self.why = (self._said.read().strip().splitlines() or ["it ended without a word"])[-1]
            say(f"{self.name}: skipped ({self.why})")
        return {}

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._said.close()


def started(names: list[str], threads: int) -> list[Worker]:
    """The installed trainers, ready for jobs; a peer's packages take half a minute to import."""
    python = peers_python() if set(names) - {"ours"} else None
    workers = []
    for name in names:
        if name == "ours":
            workers.append(Worker(name, sys.executable, threads))
        elif python is not None:
            workers.append(Worker(name, python, threads))
    for worker in workers:
        worker.version = worker.hear().get("version", "")
    say(f"ready: {', '.join(worker.name for worker in workers if not worker.why)}")
    return [worker for worker in workers if not worker.why]


def train(workers: list[Worker], jobs: list[dict[str, Any]], steps: int, measure_peak: bool) -> list[dict[str, Any]]:
    """Let each trainer do its job, one step each in turn; return a row for each that finished.

    `peak_flops` of a row is the best rate of matrix products that was found between the rounds.
    """
    for worker, job in zip(workers, jobs, strict=True):
        worker.send(json.dumps(job))
    rows = [{"trainer": worker.name, "version": worker.version, **worker.hear()} for worker in workers]
    timed: list[list[dict[str, float]]] = [[] for _ in workers]
    for worker in workers:
        worker.hear()  # asks for its first batch
    peak = 0.0
    for _ in range(steps + WARMUP):
        for worker, times in zip(workers, timed, strict=True):
            worker.send("go")
            times.append(worker.hear())
        if measure_peak:
            dtype = getattr(torch, jobs[0]["dtype"])
            peak = max(peak, matmul_peak(torch.device(jobs[0]["device"]), dtype, seconds=0.3))
    for worker in workers:
        worker.send("end")
    done = []
    for worker, row, times, job in zip(workers, rows, timed, jobs, strict=True):
        last = worker.hear()
        if worker.name == "ours":
            row["spent"] = worker.hear()
        if worker.why:
            continue
        row |= {"nats": [row["nats"], last["nats"]], "peak_flops": peak or None, "tokens": job["batch"] * job["length"]}
        for kind in ("seconds", "cpu_seconds"):
            row[kind] = [round(time_of[kind], 5) for time_of in times[WARMUP:]]
        done.append(row)
    return done


def job_of(arguments: argparse.Namespace, preset: str, length: int, **changes: Any) -> dict[str, Any]:
    """The job of a worker."""
    return {
        "model": PRESETS[preset],
        "vocabulary": VOCABULARY,
        "batch": arguments.batch,
        "length": length,
        "threads": arguments.threads,
        "device": arguments.device,
        "dtype": arguments.dtype,
        "compile": arguments.compile,
        "statistics_every_steps": 50,  # the default
        "bare": False,
        **changes,
    }


def speeds(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of all shapes and lengths."""
    rows = []
    workers = started(arguments.trainers, arguments.threads)
    for preset in arguments.presets:
        model = build(ModelConfig, PRESETS[preset], "bench")
        for length in arguments.length:
            flops = flops_per_token(architecture_of(model, VOCABULARY), length)
            say(f"{preset}, {arguments.batch} × {length} tokens")
            workers = [worker for worker in workers if not worker.why]
            jobs = [job_of(arguments, preset, length)] * len(workers)
            found = train(workers, jobs, arguments.steps, measure_peak=arguments.device == "cpu")
            for row in found:
                if arguments.device == "cuda":
                    row["peak_flops"] = peak_flops(torch.cuda.get_device_name(), getattr(torch, arguments.dtype))
                rows.append({"preset": preset, "length": length, "flops_per_token": flops, **row})
    for worker in workers:
        worker.close()
    return rows


def monitoring(arguments: argparse.Namespace) -> dict[str, float] | None:
    """The cost of monitoring at the default settings, on the first preset: its seconds, and steps with and without it.

    A step in `looks` has statistics here and one in 50 by default; the share is that of the default.
    """
    preset, length, looks = arguments.presets[0], arguments.length[0], 4
    jobs = [
        job_of(arguments, preset, length, statistics_every_steps=looks),
        job_of(arguments, preset, length, statistics_every_steps=None, bare=True),
    ]
    workers = started(["ours", "ours"], arguments.threads)
    rows = train(workers, jobs[: len(workers)], 2 * arguments.steps, measure_peak=False)
    for worker in workers:
        worker.close()
    if len(rows) < 2:
        return None
    watched, bare = rows
    spent, step = watched["spent"], statistics.median(bare["seconds"])
    plain = [seconds for number, seconds in enumerate(watched["seconds"], WARMUP + 1) if number % looks]
    every_step, looked = spent["every step"] / spent["steps"], spent["statistics"] / (spent["steps"] // looks)
    return {
        "step_s": step,
        "every_step_s": every_step,
        "statistics_s": looked,
        "share": (every_step + looked / 50) / step,
        "difference_of_medians": statistics.median(plain) / step - 1,
        "waiting_share": spent["waiting for data"] / spent["steps"] / step,
    }


def machine(arguments: argparse.Namespace) -> dict[str, Any]:
    """The machine and the settings, without names and paths."""
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else _cpu()
    said = sys.argv[1:]
    if "--output" in said:  # the output's location does not matter, and reports name no path
        del said[said.index("--output") : said.index("--output") + 2]
    chosen = {name: getattr(arguments, name) for name in ("batch", "length", "dtype", "threads", "compile", "steps")}
    return {
        "device": device,
        "cores": os.cpu_count(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": " ".join(["python bench/run.py", *said]),
        **chosen,
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else ():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["ladder-20m", "ladder-60m"], choices=PRESETS)
    parser.add_argument("--trainers", nargs="+", default=list(TRAINERS), choices=TRAINERS)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--batch", type=int, default=2, help="windows in a step")
    parser.add_argument("--length", type=int, nargs="+", default=[512], help="tokens of a window")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps", type=int, default=6, help="steps that are timed, of each trainer")
    parser.add_argument("--compile", action="store_true", help="torch.compile for all")
    parser.add_argument("--no-loader", action="store_true", help="leave out the loader's figures")
    parser.add_argument("--megabytes", type=int, default=200, help="of the loader's shards")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of results.md and results.json")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    results: dict[str, Any] = {"machine": machine(arguments), "monitoring": None, "loader": None}
    stages: dict[str, Callable[[], Any]] = {
        "speeds": lambda: speeds(arguments),
        "monitoring": lambda: monitoring(arguments),
    }
    if not arguments.no_loader:
        stages["loader"] = lambda: loader.measure(arguments.megabytes)
    for name, stage in stages.items():  # what is known is written after each
        say(name)
        results[name] = stage()
        results["machine"]["seconds"] = round(time.monotonic() - BEGUN)
        text = write_report(results, arguments.output)
    print(text, end="")


if __name__ == "__main__":
    main()

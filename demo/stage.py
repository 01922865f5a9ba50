"""Stages of the demo: what they run, when they are done, and what they cost in time, memory and energy."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
from artifact import file_hash

ENERGY_COUNTERS = "/sys/class/powercap"
SAMPLE_S = 0.1


class Failed(Exception):
    """A stage failed."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step: commands that run one after another in the work directory."""

    name: str
    commands: list[list]
    _: dataclasses.KW_ONLY
    inputs: list[str] = dataclasses.field(default_factory=list)
    """Artifact directories that the commands read."""
    outputs: list[str] = dataclasses.field(default_factory=list)
    """Artifact directories that the commands write, each with a manifest."""
    extra: list[str] = dataclasses.field(default_factory=list)
    """Other paths that the commands write; removed with the outputs."""
    configs: list[str] = dataclasses.field(default_factory=list)
    scripts: list[str] = dataclasses.field(default_factory=list)
    """Files next to the called script that it uses."""
    sources: list[str] = dataclasses.field(default_factory=list)
    """Files or directories of the user that the commands read."""
    expected_s: float = 1.0
    """Seconds on two idle cores; only the time left depends on it."""


class Workplace:
    """The work directory: which stages are done, and how to run the others."""

    def __init__(self, directory: Path, here: Path, workers: int) -> None:
        self.directory, self.here, self.workers = directory, here, workers
        self.stamps = directory / "stages"
        self.stamps.mkdir(parents=True, exist_ok=True)
        configs = directory / "configs"
        shutil.rmtree(configs, ignore_errors=True)
        shutil.copytree(here / "configs", configs)

    def tool(self, name: str) -> list[str]:
        """The command of an installed package."""
        return [str(Path(sys.executable).parent / name)]

    def script(self, name: str, *arguments: object) -> list:
        """The command of one of the demo's own scripts."""
        return [sys.executable, str(self.here / name), *arguments]

    def say(self, line: str) -> None:
        """Write a line of progress to stderr."""
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def key(self, stage: Stage) -> str:
        """The hash of everything that the outputs depend on: commands, settings, scripts, the identity of the inputs.

        It excludes worker counts and the paths of programs, since outputs do not depend on them.
        """
        commands = []
        for command in stage.commands:
            words = [str(word) for word in command]
            if "--processes" in words:
                position = words.index("--processes")
                del words[position : position + 2]
            commands.append([Path(word).name if word.startswith("/") else word for word in words])
        scripts = sorted(
            {Path(str(word)) for command in stage.commands for word in command if str(word).startswith(str(self.here))}
        )
        scripts += [self.here / name for name in (*stage.scripts, *(["artifact.py"] if scripts else []))]
        parts = {
            "commands": commands,
            "configs": {name: file_hash(self.here / "configs" / name) for name in stage.configs},
            "scripts": {path.name: file_hash(path) for path in scripts if path.is_file()},
            "inputs": {name: self.identity(name) for name in stage.inputs},
            "sources": {path: source_identity(Path(path)) for path in stage.sources},
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def identity(self, artifact: str) -> str | None:
        """The sha256 of an artifact's manifest, None if there is none."""
        manifest = self.directory / artifact / "manifest.json"
        return file_hash(manifest) if manifest.is_file() else None

    def is_done(self, stage: Stage) -> bool:
        """Whether the stamp matches what the stage would do now, and its outputs are unchanged."""
        stamp = read_json(self.stamps / f"{stage.name.replace(' ', '-')}.json")
        if stamp is None or stamp["key"] != self.key(stage):
            return False
        return all(self.identity(name) == stamp["outputs"][name] for name in stage.outputs)

    def perform(self, stage: Stage) -> None:
        """Run the commands; keep what an interrupted attempt at the same work left, since the tools resume from it.

        Raises Failed: a command fails, or an output has no manifest.
        """
        slug = stage.name.replace(" ", "-")
        begun_path, key = self.stamps / f"{slug}.begun", self.key(stage)
        begun = read_json(begun_path)
        if begun is None or begun["key"] != key:
            begun = {"key": key, "seconds": 0.0}
            for name in (*stage.outputs, *stage.extra):
                path = self.directory / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            write_json(begun_path, begun)
        started, energy = time.monotonic(), energy_joules()
        peak_bytes = 0
        for command in stage.commands:
            peak_bytes = max(peak_bytes, self.execute(stage, [str(word) for word in command]))
        outputs = {name: self.identity(name) for name in stage.outputs}
        for name, identity in outputs.items():
            if identity is None:
                raise Failed(f"{stage.name}: {name} has no manifest.json; expected the command to write it last")
        spent = energy_joules()
        write_json(
            self.stamps / f"{slug}.json",
            {
                "key": key,
                "name": stage.name,
                "outputs": outputs,
                "seconds": begun["seconds"] + time.monotonic() - started,
                "energy_joules": None if energy is None or spent is None else spent - energy,
                "peak_memory_bytes": peak_bytes,
            },
        )
        begun_path.unlink(missing_ok=True)

    def execute(self, stage: Stage, command: list[str]) -> int:
        """Run one command, with its output to stderr and `logs/`; return the peak memory of its processes in bytes."""
        log = self.directory / "logs" / f"{stage.name.replace(' ', '-')}.log"
        log.parent.mkdir(exist_ok=True)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "PYTHONHASHSEED": "0"}
        environment |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": "", "OMP_NUM_THREADS": "2"}
        process = subprocess.Popen(
            command,
            cwd=self.directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        watch = MemoryWatch(process.pid)
        watch.start()
        assert process.stdout is not None
        try:
            with log.open("ab") as file:
                for line in process.stdout:
                    file.write(line)
                    sys.stderr.buffer.write(b"      " + line)
                    sys.stderr.flush()
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            watch.stop()
        if code != 0:
            shown = " ".join([Path(command[0]).name, *command[1:]])
            raise Failed(f"{stage.name}: `{shown}` exited with {code}; expected 0\nhint: see {log}")
        return watch.peak_bytes


class MemoryWatch(threading.Thread):
    """Samples the resident memory of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process, self.peak_bytes, self.ended = psutil.Process(pid), 0, threading.Event()

    def run(self) -> None:
        """Sample until stopped."""
        while True:
            try:
                family = [self.process, *self.process.children(recursive=True)]
                total = sum(member.memory_info().rss for member in family)
                self.peak_bytes = max(self.peak_bytes, total)
            except psutil.Error:
                pass  # a process ended between listing and reading; the next sample sees it
            if self.ended.wait(SAMPLE_S):
                return

    def stop(self) -> None:
        """End the sampling."""
        self.ended.set()
        self.join()


def energy_joules() -> float | None:
    """The sum of the processor packages' energy counters, None if the machine has none that can be read."""
    total, found = 0.0, False
    for counter in sorted(Path(ENERGY_COUNTERS).glob("intel-rapl:[0-9]*/energy_uj")):
        try:
            total, found = total + int(counter.read_text()) / 1e6, True
        except OSError:
            continue
    return total if found else None


def running_threads() -> float:
    """Threads of other processes that run or wait for a core, averaged over half a second; 0 if unknown."""
    counts = []
    for _ in range(20):
        try:
            found = re.search(r"procs_running (\d+)", Path("/proc/stat").read_text())
        except OSError:
            return 0.0
        counts.append(int(found[1]) - 1 if found else 0)
        time.sleep(0.025)
    return sum(counts) / len(counts)


def source_identity(path: Path) -> str:
    """A hash of the names, sizes and times of a user's files, which notices changes without reading them."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    rows = [f"{file}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files if file.is_file()]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def read_json(path: Path) -> dict | None:
    """Read a stamp; None if there is none or it is incomplete."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def write_json(path: Path, value: dict) -> None:
    """Write a stamp, under a temporary name first."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    os.replace(temporary, path)

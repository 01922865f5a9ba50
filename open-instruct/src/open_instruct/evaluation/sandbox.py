"""Runs a program that a model wrote: in a process group of its own, without network, with limits.

The program gets an empty directory, no environment, no input, and limits on processor time, wall time, memory, and the
size and number of its files. It has no network: it starts in a network namespace of its own where the system allows
that, and Python's sockets are blocked in any case. It is a guard against accidents, not against an attacker: the
program can read the files that the user can read.
"""

import contextlib
import functools
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Outcome", "run_program"]

_GUARD = """import sys
def _refuse(event, arguments):
    processes = "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"
    if event.startswith("socket.") or event in processes:
        raise PermissionError(event + " is not allowed here")
sys.addaudithook(_refuse)
del _refuse, sys
"""


@dataclass(frozen=True)
class Outcome:
    """Whether a program ended with exit code 0 in time, and the end of what it wrote to stderr."""

    passed: bool
    message: str


@functools.cache
def _isolate() -> tuple[str, ...]:
    """The command that gives a process its own network namespace; empty where that is not allowed."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    command = (unshare, "--net", "--map-root-user", "--")
    done = subprocess.run([*command, "true"], capture_output=True, check=False)
    return command if done.returncode == 0 else ()


def run_program(
    source: str,
    *,
    time_s: float = 5.0,
    memory_bytes: int = 1 << 30,
    file_bytes: int = 1 << 20,
) -> Outcome:
    """Run a Python program to its end, or to the limits."""
    with tempfile.TemporaryDirectory(prefix="catwalk-") as folder:
        program = Path(folder) / "program.py"
        program.write_text(_GUARD + source, encoding="utf-8", errors="surrogatepass")

        def limit() -> None:
            seconds = max(1, round(time_s))
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
            resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
            resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        with subprocess.Popen(
            [*_isolate(), sys.executable, "-I", "-S", "-B", str(program)],
            cwd=folder,
            env={"PATH": os.defpath, "HOME": folder, "TMPDIR": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=limit,
        ) as process:
            try:
                _, errors = process.communicate(timeout=time_s)
            except subprocess.TimeoutExpired:
                return Outcome(passed=False, message=f"not finished after {time_s:g} s")
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return Outcome(passed=process.returncode == 0, message=errors[-2000:].decode("utf-8", "replace"))

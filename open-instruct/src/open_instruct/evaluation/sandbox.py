"""Runs a program that a model wrote: in a process group of its own, without network, with limits.

The program gets an empty directory, no environment and no input. It cannot start processes, send signals, load
libraries, or change files elsewhere. Processor time, wall time, memory, and the size and number of files are limited.
It has no network: it starts in a network namespace of its own where the system allows that, and Python's sockets are
blocked in any case. It is a guard against accidents and against programs that end before their tests, not against an
attacker: it works inside Python, and the program can read the files that the user can read.
"""

import contextlib
import functools
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Outcome", "run_program"]

# Runs in the other process. Only a program that comes to its end, after its tests, creates the file `done`.
_GUARD = """
import json, os, resource, sys
program, done, seconds, memory, file_bytes, num_files = json.loads(sys.argv.pop())
for limit, value in (("CPU", seconds), ("AS", memory), ("FSIZE", file_bytes), ("NOFILE", 32), ("CORE", 0)):
    resource.setrlimit(getattr(resource, "RLIMIT_" + limit), (value, value))

def guard():
    import _posixsubprocess
    root, inside = os.path.realpath("."), os.path.realpath(".") + os.sep
    real, absolute, decode, error = os.path.realpath, os.path.isabs, os.fsdecode, PermissionError
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    refused = {"os." + name for name in ("fork", "forkpty", "exec", "posix_spawn", "spawn", "system", "kill", "killpg")}
    refused |= {"subprocess.Popen", "resource.setrlimit", "resource.prlimit", "pty.spawn"}
    changing = {"os." + name for name in ("chdir", "chmod", "chown", "link", "mkdir", "remove", "rename", "rmdir")}
    changing |= {"os." + name for name in ("symlink", "truncate", "utime", "setxattr", "removexattr", "chflags")}
    opened = 0

    def check(path):
        if isinstance(path, (str, bytes)):
            found = real(decode(path))
            if found != root and not found.startswith(inside):
                raise error("changing files outside its directory is not allowed here")

    def refuse(event, arguments):
        nonlocal opened
        if event in refused or event.startswith(("socket.", "ctypes.")):
            raise error(event + " is not allowed here")
        if event == "open":
            path, mode, flags = arguments
            if flags & writing and not isinstance(path, int):
                if mode is None and not absolute(decode(path)):
                    raise error("os.open of a relative path for writing is not allowed here")
                check(path)
                opened += 1
                if opened > num_files:
                    raise error(f"opening more than {num_files} files for writing is not allowed here")
        elif event in changing:
            for argument in arguments:
                check(argument)
                if isinstance(argument, int) and argument >= 0 and event in ("os.chdir", "os.remove", "os.rename"):
                    raise error(event + " with a file descriptor is not allowed here")

    def no_fork(*_):
        raise error("_posixsubprocess.fork_exec is not allowed here")

    _posixsubprocess.fork_exec = no_fork
    sys.addaudithook(refuse)

guard()
del guard
with open(program, encoding="utf-8", errors="surrogatepass") as file:
    source = file.read()
exec(compile(source, program, "exec"), {"__name__": "__main__", "__file__": program, "__builtins__": __builtins__})
os.close(os.open(done, os.O_WRONLY | os.O_CREAT))
"""


@dataclass(frozen=True)
class Outcome:
    """Whether a program came to its end in time, with exit code 0; and the end of what it wrote to stderr."""

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
    num_files: int = 100,
) -> Outcome:
    """Run a Python program to its end, or to the limits."""
    with tempfile.TemporaryDirectory(prefix="catwalk-") as folder, tempfile.TemporaryFile() as errors:
        program, done = Path(folder).resolve() / "program.py", Path(folder).resolve() / secrets.token_hex(16)
        program.write_text(source, encoding="utf-8", errors="surrogatepass")
        seconds = max(1, round(time_s))
        settings = json.dumps([str(program), str(done), seconds, memory_bytes, file_bytes, num_files])
        with subprocess.Popen(
            [*_isolate(), sys.executable, "-I", "-S", "-B", "-c", _GUARD, settings],
            cwd=folder,
            env={"PATH": os.defpath, "HOME": folder, "TMPDIR": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,  # a file, so that its size is limited too
            start_new_session=True,
        ) as process:
            try:
                process.wait(timeout=time_s)
            except subprocess.TimeoutExpired:
                return Outcome(passed=False, message=f"not finished after {time_s:g} s")
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - 2000))
        message = errors.read().decode("utf-8", "replace")
        if process.returncode == 0 and not done.exists():
            return Outcome(passed=False, message=f"{message}the program ended before its end")
        return Outcome(passed=process.returncode == 0, message=message)

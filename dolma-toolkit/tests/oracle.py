"""dolma 1.2.1 as the reference: where it is, and how the tests run both on the same files.

It takes seconds to import, so one process (``oracle_server.py``) imports it for all tests and forks for each call. What
calls it has the marker ``oracle``.

Its commands are looked for in the directory that ``DOLMA_ORACLE`` names, or in ``.venv-oracle/bin`` at the root of the
repository; without them the tests that need them are skipped.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gzip
import io
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from dolma_corpus import find_shared_data

REPOSITORY = Path(__file__).resolve().parents[2]
IN_PROCESSES = ("tag", "tokens", "stat")
"""Commands of 1.2.1 that, without ``--debug``, start processes that each import it again."""


def oracle() -> Path:
    """The command of dolma 1.2.1; skips the test where there is none."""
    path = Path(os.environ.get("DOLMA_ORACLE", REPOSITORY / ".venv-oracle" / "bin")) / "dolma"
    if not path.exists():
        pytest.skip("dolma 1.2.1 is not here: set DOLMA_ORACLE to the directory of its commands")
    return path


@functools.cache
def _server(python: Path) -> subprocess.Popen[str]:
    """The process that has imported dolma 1.2.1."""
    command = [str(python), "-I", "-W", "ignore", str(Path(__file__).with_name("oracle_server.py"))]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    pipe = subprocess.PIPE
    server = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment, cwd="/"
    )
    atexit.register(_stop, server)
    return server


def _stop(server: subprocess.Popen[str]) -> None:
    server.kill()
    server.communicate()


def there(arguments: Sequence[object], script: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """``dolma`` of 1.2.1 with these arguments, or a script in its environment; in the current directory."""
    server = _server(oracle().with_name("python"))
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        call = {
            "arguments": [str(argument) for argument in arguments],
            "script": script,
            "directory": os.getcwd(),
            # so that what it leaves in its temporary directory on failure is removed too
            "environment": {**os.environ, "TMPDIR": folder, "TOKENIZERS_PARALLELISM": "false", **environment},
            "out": f"{folder}/out",
            "err": f"{folder}/err",
        }
        try:
            server.stdin.write(json.dumps(call) + "\n")
            server.stdin.flush()
            status = int(server.stdout.readline())
        except BaseException:  # a test timed out: the next call would read this answer
            _server.cache_clear()
            _stop(server)
            raise
        out, err = (Path(call[name]).read_text("utf-8") for name in ("out", "err"))
    return subprocess.CompletedProcess(call["arguments"], status, out, err)


def corpus(*sources: str) -> list[Path]:
    """Document files of real sources, of all if none is named; skips the test without SHARED_DATA."""
    folder = find_shared_data() / "corpus"
    return [path for source in sources or "*" for path in sorted(folder.glob(f"{source}/documents/*.gz"))]


def _written(name: str, config: Mapping[str, Any], folder: Path) -> list[str]:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    return ["-c", str(path), name]


def theirs(name: str, config: Mapping[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command of dolma 1.2.1 with these settings, from a file in the folder."""
    return there([*_written(name, config, folder), *(["--debug"] if name in IN_PROCESSES else [])])


def ours(name: str, config: Mapping[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """The same with this package, in this process."""
    return here(_written(name, config, folder))


def here(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """This package's command with these arguments, in this process."""
    from dolma.__main__ import main

    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as exit:
            status = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """A ``.jsonl.gz`` file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def read_rows(directory: Path) -> Iterator[dict[str, Any]]:
    """Rows of all ``.gz`` files below a directory, files in order."""
    for path in sorted(directory.rglob("*.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)

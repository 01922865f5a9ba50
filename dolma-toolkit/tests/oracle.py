"""dolma 1.2.1 as the reference: where it is, and how the tests run both on the same files.

Each of its commands is a process that takes a second to start. So tests of one kind share a run: all streams of one
``mix``, all documents of one ``tag``; and what starts it has the marker ``oracle``.

Its commands are looked for in the directory that ``DOLMA_ORACLE`` names, or in ``.venv-oracle/bin`` at the root of the
repository; without them the tests that need them are skipped.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CORPUS = REPOSITORY.parent / "shared" / "data" / "corpus"


def oracle() -> Path:
    """The command of dolma 1.2.1; skips the test where there is none."""
    path = Path(os.environ.get("DOLMA_ORACLE", REPOSITORY / ".venv-oracle" / "bin")) / "dolma"
    if not path.exists():
        pytest.skip("dolma 1.2.1 is not here: set DOLMA_ORACLE to the directory of its commands")
    return path


def corpus(*sources: str) -> list[Path]:
    """Document files of real sources; skips the test where they are not."""
    files = [path for source in sources for path in sorted((CORPUS / source / "documents").glob("*.gz"))]
    if not files:
        pytest.skip(f"{CORPUS} is not here")
    return files


def run(command: Path | str, name: str, config: Mapping[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs ``COMMAND -c CONFIG NAME``."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    # 1.2.1 leaves its temporary directories behind when it is stopped
    environment = {**os.environ, "TMPDIR": str(folder)}
    call = [str(command), "-c", str(path), name]
    return subprocess.run(call, capture_output=True, text=True, timeout=110, env=environment)


def ours(name: str, config: Mapping[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """The same with this package, in this process."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    return here(["-c", str(path), name])


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

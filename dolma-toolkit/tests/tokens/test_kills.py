"""``dolma tokens``, ``reshard``, ``tokens pack`` and ``tokens export`` killed at random moments and run again."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dolma_corpus import Dolma, artifact_hashes, make_rows, write_rows
from token_shards import options

KILLS = 20


def killed(arguments: list[str], delay_s: float, temporary: Path) -> bool:
    """Starts the command and kills it after that time; whether it still ran then."""
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen([sys.executable, "-m", "dolma", *arguments], stderr=subprocess.DEVNULL, env=environment)
    try:
        process.wait(delay_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    assert process.returncode == 0
    return False


def finished(directory: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every finished file, which work that is done again would change."""
    names = [path for path in directory.glob("*") if path.suffix in (".npy", ".gz", ".bin", ".idx")]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in names}


def recorded(directory: Path) -> set[str]:
    """Names of the shards that the directory's record has whole lines of."""
    path = directory / ".dolma/progress.ndjson"
    lines = path.read_text().splitlines() if path.exists() else []
    return {line.split('"name":"')[1].split('"')[0] for line in lines if line.endswith("}") and '"name":"' in line}


def command(name: str, tokenizer: Path, place: str) -> list[str]:
    if name == "tokens":
        return [str(argument) for argument in options(tokenizer, place, max_size=8000, processes=2)]
    to = ["--sources", "tokens", "--destination"]
    return {
        "reshard": ["reshard", "--sources", "tokens", "--destination_prefix", place, "--max_size_bytes", "3000"],
        "pack": ["tokens", "pack", *to, place, "--sequence_length", "64", "--pad_token_id", "0"],
        "export": ["tokens", "export", *to, place],
    }[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokens", "reshard", "pack", "export"])
def test_killed_runs_end_in_the_same_bytes(dolma: Dolma, corpus: Path, tokenizer_path: Path, name: str) -> None:
    write_rows(corpus / "documents/long.jsonl.gz", make_rows(6000, 5000))
    if name != "tokens":
        dolma(*command("tokens", tokenizer_path, "tokens"))
    start = time.monotonic()
    temporary = corpus / "temporary"
    temporary.mkdir()
    assert not killed(command(name, tokenizer_path, "whole"), 600, temporary)
    whole_s = time.monotonic() - start
    draw = random.Random(name)
    out, kills, kept = corpus / "out", 0, 0
    arguments = command(name, tokenizer_path, "out")
    for _ in range(10 * KILLS):
        if kills >= KILLS:
            break
        # the first third is the start of the interpreter
        if not killed(arguments, whole_s * draw.uniform(0.3, 1.0), temporary):
            # it was through: begin again
            assert artifact_hashes(out) == artifact_hashes(corpus / "whole")
            shutil.rmtree(out)
            continue
        kills += 1
        if not out.is_dir():
            continue
        done, names = finished(out), recorded(out)
        if kills % 4 == 0:
            dolma(*arguments)
            assert artifact_hashes(out) == artifact_hashes(corpus / "whole")
            after = finished(out)
            for file, state in done.items():
                if file.split(".")[0] in names:
                    assert after[file] == state, f"{file} was made again"
                    kept += 1
            assert [path.name for path in out.glob(".*")] == [".dolma"]
            assert not [path for path in out.glob("*") if path.name.endswith((".partial", ".lock", ".tmp"))]
            shutil.rmtree(out)
    assert kills == KILLS
    assert kept > 0
    assert list(temporary.iterdir()) == []

"""The runnable blocks of the guide and the READMEs run.

A block marked `console run` has commands after `$ `; the other lines are output that a command must print. A block
marked `python run` is a script. The blocks of a page run in order in one temporary folder with links to the
repository's files, so paths are relative to the root. Blocks that name
``my-bucket`` find it on an S3 server of this machine.
"""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from repository import ROOT, Block, blocks, tracked

sys.path.insert(0, str(ROOT / "dolma-toolkit/tests/files"))
from s3_server import moto_server

PAGES = [name for name in tracked() if name.endswith("README.md") or name.startswith("docs/guide/")]
RUNNABLE = {name: [b for b in blocks(name) if b.info in ("console run", "python run")] for name in PAGES}


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """Commands of a console block with the output shown for each; a command continues after a final `\\`."""
    found: list[tuple[str, list[str]]] = []
    continues = False
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
            continues = line.endswith("\\")
        elif continues:
            found[-1] = (f"{found[-1][0]}\n{line}", [])
            continues = line.endswith("\\")
        elif line.strip():
            found[-1][1].append(line.strip())
    return found


def run(command: list[str], folder: Path, place: str) -> str:
    """Output of a command that must succeed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{place}: {' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def bucket() -> Iterator[dict[str, str]]:
    """An empty ``s3://my-bucket``; yields the variables with which boto3 finds it."""
    with moto_server() as address:
        urllib.request.urlopen(urllib.request.Request(f"{address}/my-bucket", method="PUT")).close()
        keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}
        yield {"AWS_ENDPOINT_URL": address, "NO_PROXY": "127.0.0.1", **keys}


@pytest.mark.parametrize("name", [name for name in PAGES if RUNNABLE[name]])
def test_blocks_of_page_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as servers:
        if any("my-bucket" in block.text for block in RUNNABLE[name]):
            for variable, value in servers.enter_context(bucket()).items():
                monkeypatch.setenv(variable, value)
        run_page(name, tmp_path)


def run_page(name: str, tmp_path: Path) -> None:
    """Runs the blocks of a page in a folder."""
    for entry in {path.split("/")[0] for path in tracked()}:
        (tmp_path / entry).symlink_to(ROOT / entry)
    for block in RUNNABLE[name]:
        place = f"{name}:{block.line}"
        if block.info == "python run":
            run([sys.executable, "-c", block.text], tmp_path, place)
            continue
        for command, shown in commands(block):
            output = run(["bash", "-euo", "pipefail", "-c", command], tmp_path, place)
            printed = [line.strip() for line in output.splitlines()]
            assert [line for line in shown if line not in printed] == [], f"{place}: {command}\n{output}"


def test_pages_have_blocks_that_run() -> None:
    assert sum(map(len, RUNNABLE.values())) > 0


@pytest.mark.parametrize("name", PAGES)
def test_fence_says_what_the_block_is(name: str) -> None:
    known = {
        "text",
        "yaml",
        "json",
        "python",
        "console",
        "sh",
        "rust",
        "toml",
        "mermaid",
        "jinja",
        "bash",
        "make",
        "csv",
    }
    for block in blocks(name):
        words = block.info.split()
        assert words, f"{name}:{block.line}: a fence without a language"
        assert words[0] in known, f"{name}:{block.line}: {block.info}"
        assert words[1:] in ([], ["run"]), f"{name}:{block.line}: {block.info}"

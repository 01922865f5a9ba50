"""Killed at twenty random points and run again, each command gives the bytes of one run and redoes no finished file."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from dolma_corpus import make_rows, write_rows

KILLS = 20
FILES = 40
ROWS = 300
WORKERS = 2
OF_THE_RUN = {"metrics.ndjson", "config.yaml", "progress.ndjson"}
# what a finished directory of attributes or shards keeps, so that more documents may join it
RECORDS = "progress.ndjson"

MODULE = """
import dolma


@dolma.add_tagger("vowels")
class Vowels(dolma.BaseTagger):
    def predict(self, doc):
        with open("calls", "a") as file:
            file.write("x")
        spans = [dolma.Span(i, i + 1, c, 0.5) for i, c in enumerate(doc.text) if c in "aeiou"]
        return dolma.DocResult(doc=doc, spans=spans)
"""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A command, the places of its results, and whether each output file is finished by itself."""

    name: str
    settings: dict[str, Any]
    places: tuple[str, ...]
    by_file: bool = True
    # what it makes is there at its end only
    at_once: bool = False


FILTER = {"file": "f.bin", "estimated_doc_count": 200_000, "desired_false_positive_rate": 1e-6}
LENGTH = "e__whitespace_tokenizer_v1__length"
DOCUMENTS = ["documents/**/*"]
STREAM = {"name": "s", "documents": DOCUMENTS, "attributes": ["e"]}
WORKS = {
    "tag": Work(
        name="tag",
        settings={"documents": DOCUMENTS, "taggers": ["gopher_v2", "repetitions_v1"], "experiment": "made"},
        places=("attributes/made",),
    ),
    "tag in Python": Work(
        name="tag",
        settings={"documents": DOCUMENTS, "taggers": ["vowels", "c4_v2"], "tagger_modules": ["mine.py"]},
        places=("attributes/vowels", "attributes/c4_v2"),
    ),
    "dedupe documents": Work(
        name="dedupe",
        settings={
            "documents": DOCUMENTS,
            "dedupe": {"documents": {"attribute_name": "made", "key": "$.text"}},
            "bloom_filter": FILTER,
        },
        places=("attributes/made", "f.bin"),
        by_file=False,
    ),
    "dedupe n-grams": Work(
        name="dedupe",
        settings={
            "documents": DOCUMENTS,
            "dedupe": {
                "paragraphs": {"attribute_name": "made", "by_ngram": {"ngram_length": 3, "overlap_threshold": 0.2}}
            },
            "bloom_filter": FILTER,
        },
        places=("attributes/made", "f.bin"),
        by_file=False,
    ),
    "mix": Work(
        name="mix",
        settings={
            "streams": [
                {
                    **STREAM,
                    "filter": {"exclude": [f"$.attributes[?(@.{LENGTH} && @.{LENGTH}[0][2] < 9)]"]},
                    "output": {"path": "out", "max_size_in_bytes": 4000, "keep_dropped": "dropped"},
                }
            ]
        },
        places=("out", "dropped"),
    ),
    "mix at random": Work(
        name="mix",
        settings={
            "streams": [
                {
                    **STREAM,
                    "sample": {"rate": 1.5},
                    "budget": {"bytes": 400_000},
                    "split": {"attribute": LENGTH, "percentiles": [40]},
                    "output": {"path": "out", "max_size_in_bytes": 4000},
                }
            ],
            "shuffle_documents": {"seed": 1},
        },
        places=("out",),
        by_file=False,
    ),
    "tokens": Work(
        name="tokens",
        settings={
            "documents": DOCUMENTS,
            "destination": "shards",
            "max_size": 10_000,
            "tokenizer": {"name_or_path": "tokenizer.json", "eos_token_id": 0},
        },
        places=("shards",),
    ),
    "stat": Work(
        name="stat",
        settings={"attributes": ["attributes/e/**/*.jsonl.gz"], "report": "report"},
        places=("report",),
        by_file=False,
        at_once=True,
    ),
}


@pytest.fixture
def folder(tmp_path: Path, tokenizer_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number in range(FILES):
        write_rows(tmp_path / f"documents/{'deep/' * (number % 2)}{number:02d}.jsonl.gz", make_rows(ROWS, 250 * number))
    (tmp_path / "mine.py").write_text(MODULE)
    shutil.copy(tokenizer_path, tmp_path / "tokenizer.json")
    arguments = ["tag", "--documents", *DOCUMENTS, "--taggers", "whitespace_tokenizer_v1", "--experiment", "e"]
    subprocess.run([sys.executable, "-m", "dolma", *arguments], check=True, capture_output=True)
    return tmp_path


def files_of(work: Work) -> list[Path]:
    found = [Path(place) for place in work.places]
    return [file for place in found for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file()]


def hashes(work: Work) -> dict[str, str]:
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files_of(work)
        if file.name not in OF_THE_RUN and file.name[0] != "."
    }


def finished(work: Work) -> dict[Path, int]:
    """Result files that are there under their names, and when they were written."""
    kept = (".gz", ".npy")
    return {file: file.stat().st_mtime_ns for file in files_of(work) if file.suffix in kept and file.name[0] != "."}


def calls_in(folder: Path) -> int:
    """How often the tagger in Python was asked."""
    return (folder / "calls").stat().st_size if (folder / "calls").exists() else 0


def finished_in(directory: Path) -> int:
    """Outputs that the journal has."""
    journal = directory / ".dolma" / RECORDS
    lines = journal.read_text().splitlines() if journal.exists() else []
    return sum(line.endswith("}") and '"name"' in line for line in lines)


def clear(work: Work) -> None:
    for place in work.places:
        shutil.rmtree(place, ignore_errors=True)
        Path(place).unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", WORKS)
def test_killed_at_random_points(folder: Path, name: str) -> None:
    work = WORKS[name]
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump({**work.settings, "processes": WORKERS}))
    command = [sys.executable, "-m", "dolma", "-c", str(path), work.name]
    subprocess.run(command, check=True, capture_output=True)
    expected = hashes(work)
    clear(work)
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.monotonic() - started
    assert hashes(work) == expected
    chance = random.Random(name)
    amid = kept = 0
    for _ in range(KILLS):
        clear(work)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # most of the time goes into the start of the interpreter, where there is nothing to interrupt
        while not work.at_once and not any(map(os.path.exists, work.places)) and process.poll() is None:
            time.sleep(0.001)
        time.sleep(chance.random() * seconds * (0.9 if work.at_once else 0.4))
        amid += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.2)  # workers end when they see that the run has
        before = finished(work)
        calls, done = calls_in(folder), finished_in(Path("attributes/vowels"))
        again = subprocess.run(command, check=False, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        assert hashes(work) == expected
        assert [file for file in files_of(work) if file.name[0] == "." and file.name != RECORDS] == []
        assert not [file for file in folder.rglob("*") if file.suffix in (".partial", ".tmp", ".lock")]
        after = finished(work)
        redone = [file for file, moment in before.items() if after[file] != moment]
        kept += len(before) - len(redone)
        # documents of finished files are not tagged again
        assert calls_in(folder) - calls == ROWS * (FILES - done) or name != "tag in Python"
        # each worker may have named a file, or one in each place, that it had not yet recorded
        assert not work.by_file or len(redone) <= WORKERS * len(work.places), redone
    assert amid >= KILLS // 2
    assert kept or not work.by_file

"""Measure how fast batches are read from 1 and from 10,000 shard files, and the cost of an order and of packing.

    python bench/loader.py [--megabytes N] [--directory D]     prints a Markdown table

Windows of 2048 uint16 tokens in shuffled order, batches of 64, as a step takes them (int64). "cold": the files' pages
were dropped from the cache before (posix_fadvise); "warm": they are in memory. On a busy machine the last column says
more: megabytes per CPU second. Eight GPUs that train a 1B model at 50,000 tokens/s each read 0.8 MB/s.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from olmo_trainer.config.schema import DataConfig
from olmo_trainer.data.order import DataOrder, permutation, positions_of
from olmo_trainer.data.sources import Loader, SpecialTokens, TrainingData, open_directories, repetitive, window_sources
from olmo_trainer.data.windows import best_fit_decreasing, pieces_of
from olmo_trainer.settings import build

LENGTH, BATCH = 2048, 64


def write_shards(directory: Path, files: int, tokens: int) -> None:
    """Random ids without 0, in so many files of equal size."""
    directory.mkdir()
    draw = np.random.default_rng(0)
    for number in range(files):
        draw.integers(1, 50_000, tokens // files, dtype=np.uint16).tofile(directory / f"{number:05}.npy")


def opened(directory: Path) -> TrainingData:
    """The directory as a run opens it, but without the tokenizer."""
    source = {"path": str(directory), "dtype": "uint16", "eos_token_id": 0}
    data = build(DataConfig, {"sources": [source], "sequence_length": LENGTH}, "bench")
    sources = tuple(window_sources(data, open_directories(data)))
    return TrainingData(
        sources=sources,
        order=DataOrder([len(sources[0])], None, seed=0),
        tokenizer_path=directory,
        tokenizer_sha256="",
        vocab_size=50_000,
        special=SpecialTokens(eos=0, bos=None, pad=None),
        sequence_length=LENGTH,
    )


def forget(directory: Path) -> None:
    """Drop the files' pages from the system's cache."""
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def megabytes_per_second(data: TrainingData, threads: int, seconds: float = 1.0) -> tuple[float, float]:
    """Bytes of shards read per second and per CPU second, over at most one epoch."""
    batches = data.order.epoch_windows // BATCH
    data.order.at(0)  # the permutation is not what is timed
    begun, begun_cpu, count = time.perf_counter(), time.process_time(), 0
    with Loader(data.read, positions_of(0, [BATCH] * batches), threads=threads, ahead=2 * threads + 2) as loader:
        while count < batches and time.perf_counter() - begun < seconds:
            loader.next()
            count += 1
        megabytes = count * BATCH * LENGTH * 2 / 1e6
        return megabytes / (time.perf_counter() - begun), megabytes / (time.process_time() - begun_cpu)


def seconds_of(work: object) -> float:
    """The time of one call."""
    begun = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - begun


def measure(megabytes: int, directory: Path | None = None) -> dict[str, list[dict[str, Any]]]:
    """The rows of both tables."""
    root = Path(tempfile.mkdtemp(dir=directory))
    reading: list[dict[str, Any]] = []
    try:
        for files in (1, 10_000):
            shards = root / str(files)
            write_shards(shards, files, megabytes * 500_000)
            data = opened(shards)
            for threads in (0, 1, 2):
                forget(shards)
                cold, _ = megabytes_per_second(data, threads)
                warm, of_cpu = max(megabytes_per_second(data, threads) for _ in range(2))
                held = sum(os.readlink(f"/proc/self/fd/{name}").startswith(str(root)) for name in descriptors())
                row = {"files": files, "threads": threads, "cold": cold, "warm": warm, "open": held, "of_cpu": of_cpu}
                reading.append(row)
            shutil.rmtree(shards)
    finally:
        shutil.rmtree(root)
    work: list[dict[str, Any]] = []
    seconds = seconds_of(lambda: permutation(0, 0, 10**8))
    work.append({"work": "order of an epoch", "size": "10⁸ windows", "seconds": seconds})
    ends = np.cumsum(np.maximum(1, np.random.default_rng(0).lognormal(6, 1.2, 10**6)).astype(np.int64))
    _, sizes = pieces_of(np.concatenate(([0], ends[:-1])), ends, LENGTH, truncate=False)
    seconds = seconds_of(lambda: best_fit_decreasing(sizes, LENGTH))
    padding = 1 - sizes.sum() / (best_fit_decreasing(sizes, LENGTH)[1] * LENGTH)
    named = f"best-fit packing, {100 * padding:.3f} % padding"
    work.append({"work": named, "size": "10⁶ documents", "seconds": seconds})
    ids_BT = np.random.default_rng(0).zipf(1.3, (512, LENGTH)) % 50_000
    seconds = seconds_of(lambda: repetitive(ids_BT, 1, 13, 32))
    work.append({"work": "filter of repetitions", "size": "10⁶ tokens", "seconds": seconds})
    return {"reading": reading, "work": work}


def tables(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The results of `measure` as lines of Markdown."""
    lines = [
        "| files | threads | cold, MB/s | warm, MB/s | open files | warm, MB a CPU second |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["reading"]:
        speeds = f"{row['cold']:.0f} | {row['warm']:.0f} | {row['open']} | {row['of_cpu']:.0f}"
        lines.append(f"| {row['files']} | {row['threads']} | {speeds} |")
    lines += ["", "| work | size | seconds |", "|---|---|---|"]
    return [*lines, *(f"| {row['work']} | {row['size']} | {row['seconds']:.3g} |" for row in found["work"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--directory", type=Path)
    arguments = parser.parse_args()
    print("\n".join(tables(measure(arguments.megabytes, arguments.directory))))


def descriptors() -> list[str]:
    """The number of this process's open files."""
    return [name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")]


if __name__ == "__main__":
    main()

"""Results of many models on many tasks, made from a seed, to see how a report grows.

`python tests/large_board.py FOLDER 64 86 1000` writes them, reports them in a process of its own, and prints the
seconds, the peak of its memory and the sizes of the pages.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from catwalk.formats.contract import canonical_json, canonical_line, write_file, write_gzip
from catwalk.rows import choice_row
from catwalk.statistics import mean_and_stderr
from catwalk.types import ItemScore

__all__ = ["write_board"]


def write_board(folder: Path, *, models: int, tasks: int, items: int) -> Path:
    """Four choices for each item; later models are better."""
    for m in range(models):
        directory = folder / f"model-{m:02d}"
        directory.mkdir(parents=True)
        draw = np.random.default_rng(m)
        entries = []
        with write_gzip(directory / "predictions.jsonl.gz", level=1) as predictions:
            for t in range(tasks):
                sums = np.round(-draw.gamma(6, 2, (items, 4)), 6)
                sums[np.arange(items), np.arange(items) % 4] *= 1 - m / (2 * models)
                rows = [_row(str(n), sums[n].tolist()) for n in range(items)]
                predictions.writelines(canonical_line({"task": f"task_{t:02d}", **row}).encode() for row in rows)
                entries.append(_entry(f"task_{t:02d}", [row["predicted"]["acc_raw"] == row["label"] for row in rows]))
        if m == 0:
            _write_texts(directory, tasks, items)
        about = {"name": directory.name, "architecture": "Llama", "parameters": 1, "vocab_size": 1, "dtype": "float32"}
        how = {"dtype": "float32", "max_length_tokens": 2048, "windowing": "strict-disjoint", "prefix": "bos"}
        results = {
            "format": "results",
            "version": 1,
            "inference": how,
            "tasks": entries,
            "perplexity": [],
            "model": about | {"tokenizer_sha256": None, "manifest_sha256": None},
        }
        write_file(directory / "results.json", canonical_json(results).encode())
    return folder


def _write_texts(directory: Path, tasks: int, items: int) -> None:
    question = "Question {} of task {}, which is about as long as questions are.\nAnswer:"
    with write_gzip(directory / "items.jsonl.gz", level=1) as stream:
        for t in range(tasks):
            for n in range(items):
                words = {"context": question.format(n, t), "continuations": [f"choice {k}" for k in range(4)]}
                stream.write(canonical_line({"task": f"task_{t:02d}", "id": str(n), **words}).encode())


def _entry(name: str, right: list[bool]) -> dict[str, Any]:
    value, stderr = mean_and_stderr(list(map(float, right)))
    return {
        "task": name,
        "split": "validation",
        "num_shots": 0,
        "items": len(right),
        "choices_mean": 4.0,
        "primary_metric": "acc_raw",
        "metrics": {"acc_raw": {"value": value, "stderr": stderr, "n": len(right)}},
    }


def _row(id: str, sums: list[float]) -> dict[str, Any]:
    lengths = (3, 4, 5, 6)
    score = ItemScore(
        id=id,
        label=int(id) % 4,
        sum_logprobs=tuple(sums),
        sum_logprobs_unconditional=(-9.0, -9.0, -9.0, -9.0),
        tokens=lengths,
        chars=lengths,
        bytes=lengths,
    )
    return choice_row(score)


def main() -> None:
    """Write, report and measure."""
    folder, (models, tasks, items) = Path(sys.argv[1]), map(int, sys.argv[2:5])
    if not (folder / "results").is_dir():
        write_board(folder / "results", models=models, tasks=tasks, items=items)
    started = time.monotonic()
    command = [sys.executable, "-m", "catwalk", "report", str(folder / "results"), "--output-dir", str(folder / "page")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    sizes = [file.stat().st_size for file in sorted((folder / "page" / "items").iterdir())]
    measured = {
        "seconds": round(time.monotonic() - started, 1),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        "leaderboard_bytes": (folder / "page" / "leaderboard.html").stat().st_size,
        "report_bytes": (folder / "page" / "report.html").stat().st_size,
        "item_pages": len(sizes),
        "largest_item_page_bytes": max(sizes),
    }
    sys.stdout.write(json.dumps(measured) + "\n")


if __name__ == "__main__":
    main()

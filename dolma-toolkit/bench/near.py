"""Time near-duplicates: `python bench/near.py [--datatrove PYTHON] [--mb 4 40]`.

MinHash beside datatrove with the same n-grams, bands and rows, and substrings in MB/s with memory and disk per byte of
text, on real documents that are repeated with a changed word each. Peers get only the first size.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import tempfile
from pathlib import Path

from inputs import find_corpus, read_documents
from timing import Cost, run

HERE = Path(__file__).parent
OURS = Path(sys.executable).parent / "dolma"
BANDS, ROWS = 14, 8
"""The defaults of datatrove."""


def write_input(folder: Path, text_mb: float) -> float:
    """Documents of this size in four files. Gives the size. From the second round on one word in 50 is another."""
    draw = random.Random(0)
    (folder / "documents").mkdir(parents=True)
    outputs = [gzip.open(folder / f"documents/{number}.jsonl.gz", "wt", compresslevel=1) for number in range(4)]
    documents = read_documents(find_corpus())
    text_bytes = number = 0
    while text_bytes < text_mb * 1e6:
        words = documents[number % len(documents)]["text"].split(" ")
        if number >= len(documents):
            for position in draw.sample(range(len(words)), k=len(words) // 50):
                words[position] = str(draw.random())
        row = {"id": str(number), "text": " ".join(words)}
        outputs[number % 4].write(json.dumps(row, ensure_ascii=False) + "\n")
        text_bytes += len(row["text"].encode())
        number += 1
    for output in outputs:
        output.close()
    return text_bytes / 1e6


def ours(folder: Path, unit: str, *arguments: str) -> Cost:
    """One process."""
    command = [str(OURS), "dedupe", "--documents", "documents/*", "--index", f"index-{unit}"]
    return run([*command, f"--dedupe.{unit}.attribute_name", unit, *arguments], folder)


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datatrove", type=Path, help="a Python that has datatrove[io,processing]")
    parser.add_argument("--mb", type=float, nargs="+", default=[4, 40])
    options = parser.parse_args()
    print("| what | MB of text | MB/s of CPU | peak MB |")
    print("|---|---|---|---|")
    for index, text_mb in enumerate(options.mb):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            size = write_input(folder, text_mb)

            def show(what: str, cost: Cost, size: float = size) -> None:
                print(f"| {what} | {size:.0f} | {size / cost.cpu_s:.2f} | {cost.peak_rss_mb:.0f} |", flush=True)

            values = ("--dedupe.minhash.bands", str(BANDS), "--dedupe.minhash.rows", str(ROWS))
            minhash = ours(folder, "minhash", *values)
            show("minhash", minhash)
            show("substring of 200 bytes", ours(folder, "substring"))
            show("repeats of lines", ours(folder, "repeats"))
            if options.datatrove and index == 0:
                arguments = [f"{folder}/documents", f"{folder}/out", str(BANDS), str(ROWS)]
                theirs = run([str(options.datatrove), str(HERE / "datatrove_minhash.py"), *arguments], folder)
                show("minhash of datatrove", theirs)
                print(f"\nratio of CPU time: {theirs.cpu_s / minhash.cpu_s:.1f}\n")


if __name__ == "__main__":
    main()

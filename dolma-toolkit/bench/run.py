"""Time dolma beside dolma 1.2.1 on the same files: `make bench`, after `make demo` has gathered its documents.

Each command runs as a whole process, start-up included, ours and theirs in turn, `ROUNDS` times; the table gives the
best of each in MB of text a second, and the ratio. Without that of `make oracle`, ours alone is timed.
"""

from __future__ import annotations

import gzip
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "demo" / "output" / "corpus" / "documents"
ROUNDS = 3
FILTER = [
    *["--no-bloom_filter.read_only", "--bloom_filter.estimated_doc_count", "1000000"],
    *["--bloom_filter.desired_false_positive_rate", "1e-5"],
]
COMMANDS = {
    "tag gopher_v2 c4_v2": ["tag", "--taggers", "gopher_v2", "c4_v2", "--experiment", "rules"],
    "tag pii_regex_with_counts_fast_v2": ["tag", "--taggers", "pii_regex_with_counts_fast_v2", "--experiment", "pii"],
    "dedupe paragraphs": ["dedupe", "--dedupe.name", "p", "--dedupe.paragraphs.attribute_name", "p", *FILTER],
    "dedupe 13-grams": [
        *["dedupe", "--dedupe.name", "n", "--dedupe.paragraphs.attribute_name", "n"],
        *["--dedupe.paragraphs.by_ngram.ngram_length", "13", "--dedupe.paragraphs.by_ngram.overlap_threshold", "0.8"],
        *FILTER,
    ],
}


def copy_documents(folder: Path) -> int:
    """Copy the corpus to `folder/documents`; return the bytes of text."""
    (folder / "documents").mkdir()
    text_bytes = 0
    for path in sorted(CORPUS.rglob("*.jsonl.gz")):
        shutil.copy(path, folder / "documents" / path.name)
        with gzip.open(path, "rb") as file:
            text_bytes += sum(len(json.loads(line)["text"].encode()) for line in file)
    return text_bytes


def seconds(program: Path, arguments: list[str], folder: Path) -> float:
    """Run one command on fresh outputs; return its wall time.

    Raises SystemExit: when it fails.
    """
    shutil.rmtree(folder / "attributes", ignore_errors=True)
    (folder / "filter.bin").unlink(missing_ok=True)
    command = [str(program), *arguments, "--documents", f"{folder}/documents/*.gz", "--processes", "1"]
    if arguments[0] == "dedupe":
        command += ["--bloom_filter.file", f"{folder}/filter.bin"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(f"error: {' '.join(command)} ended with {done.returncode}\n{done.stderr[-2000:]}")
    return taken


def main() -> int:
    """Print the table and write it beside this file."""
    if not CORPUS.is_dir():
        sys.stderr.write(f"error: {CORPUS} is not there; expected gathered documents\nhint: run `make demo` first\n")
        return 2
    ours, theirs = Path(sys.executable).parent / "dolma", ROOT / ".venv-oracle" / "bin" / "dolma"
    peers = {"ours": ours, **({"1.2.1": theirs} if theirs.is_file() else {})}
    rows = ["| command, one process | ours, MB/s | dolma 1.2.1, MB/s | ratio |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text_bytes = copy_documents(folder)
        for title, arguments in COMMANDS.items():
            best = dict.fromkeys(peers, float("inf"))
            for _ in range(ROUNDS):
                for peer, program in peers.items():
                    best[peer] = min(best[peer], seconds(program, arguments, folder))
            speed = {peer: text_bytes / 1e6 / taken for peer, taken in best.items()}
            other = [f"{speed['1.2.1']:.2f}", f"{speed['ours'] / speed['1.2.1']:.1f}"] if "1.2.1" in speed else ["", ""]
            rows.append(f"| {title} | {speed['ours']:.1f} | {other[0]} | {other[1]} |")
    table = "\n".join(rows)
    note = f"{text_bytes / 1e6:.1f} MB of text, whole processes, best of {ROUNDS}; {platform.machine()}, `make bench`"
    Path(__file__).with_name("results.md").write_text(f"# dolma beside dolma 1.2.1\n\n{note}.\n\n{table}\n", "utf-8")
    sys.stdout.write(f"{note}\n{table}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Texts of `dolma extract` beside those of the bare extractors and of dolma 1.2.1: token F1, and speed.

    python bench/extraction.py PAGES.jsonl.gz [--oracle PYTHON] [--rounds 3]

PAGES has rows with `id`, `html` and `article_body`, the text that a person took from the page. `--oracle` is a Python
that has dolma 1.2.1, resiliparse and trafilatura. Speed is that of one process on one processor core, without start-up:
the time for one page is subtracted.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

EXTRACTORS = ("resiliparse", "trafilatura")
ORACLE = """
import json, sys
from dolma.warc.linearizers import LinearizerRegistry
linearizer = LinearizerRegistry.get(sys.argv[1])()
for line in sys.stdin:
    row = json.loads(line)
    print(json.dumps([row["id"], linearizer.linearize(content=row["html"])]))
"""


def token_f1(text: str, expected: str) -> float:
    """F1 of the words of a text, as a multiset without case, against those expected."""
    found, wanted = (Counter(re.findall(r"\w+", one.lower())) for one in (text, expected))
    shared = (found & wanted).total()
    return 2 * shared / (found.total() + wanted.total()) if shared else 0.0


def bare(name: str) -> Callable[[str], str]:
    """The extractor with its own defaults."""
    if name == "resiliparse":
        from resiliparse.extract.html2text import extract_plain_text

        return extract_plain_text
    import trafilatura

    return lambda html: trafilatura.extract(html) or ""


def seconds_bare(name: str, pages: list[str]) -> float:
    """Time of the extractor in this process, with the settings of `dolma extract`."""
    from dolma.extracting.extractors import make

    extract = make(name, "linearizer")
    extract(pages[0])
    start = time.perf_counter()
    for page in pages:
        extract(page)
    return time.perf_counter() - start


def write_warc(path: Path, rows: list[dict[str, str]], repeat: int) -> None:
    """A member for each page."""
    with path.open("wb") as file:
        for number in range(repeat * len(rows)):
            block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
            block += rows[number % len(rows)]["html"].encode("utf-8", "replace")
            uri = rows[number % len(rows)]["url"]
            head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {uri}\r\nContent-Length: {len(block)}\r\n\r\n"
            file.write(gzip.compress(head.encode() + block + b"\r\n\r\n", 6))


def extracted(name: str, source: Path, place: Path) -> tuple[float, dict[str, str]]:
    """Seconds of the command, and its texts by id."""
    command = [sys.executable, "-m", "dolma", "extract", "--documents", str(source), "--destination", str(place)]
    start = time.perf_counter()
    subprocess.run([*command, "--source_name", "bench", "--linearizer", name], check=True, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    [path] = place.glob("*.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return seconds, {row["id"]: row["text"] for row in map(json.loads, lines)}


def of_oracle(python: str, name: str, source: Path) -> dict[str, str]:
    """The texts of dolma 1.2.1."""
    with gzip.open(source, "rb") as rows:
        done = subprocess.run([python, "-c", ORACLE, name], input=rows.read(), check=True, capture_output=True)
    return dict(map(json.loads, done.stdout.splitlines()))


def mean_f1(texts: Mapping[str, str], rows: list[dict[str, str]]) -> float:
    """Over all pages; a page without a text counts as 0."""
    return sum(token_f1(texts.get(row["id"], ""), row["article_body"]) for row in rows) / len(rows)


def main() -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path)
    parser.add_argument("--oracle", help="a Python that has dolma 1.2.1")
    parser.add_argument("--rounds", type=int, default=3, help="how often to time; the fastest counts")
    arguments = parser.parse_args()
    with gzip.open(arguments.pages, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    pages = [row["html"] for row in rows]
    print("| extractor | dolma extract | bare, its defaults | dolma 1.2.1 |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in EXTRACTORS:
            _, texts = extracted(name, arguments.pages, Path(folder) / name)
            extract = bare(name)
            alone = {row["id"]: extract(row["html"]) for row in rows}
            oracle = of_oracle(arguments.oracle, name, arguments.pages) if arguments.oracle else None
            cells = [f"{mean_f1(one, rows):.3f}" if one is not None else "" for one in (texts, alone, oracle)]
            same = sum(texts.get(row["id"], "") == oracle[row["id"]] for row in rows) if oracle else 0
            print(f"| {name} | {' | '.join(cells)} |" + (f" {same} of {len(rows)} texts equal" if oracle else ""))
        print("\n| extractor | bare, s | dolma extract, s | ratio |\n|---|---|---|---|")
        one, many = Path(folder) / "one.warc.gz", Path(folder) / "many.warc.gz"
        write_warc(one, rows[:1], 1)
        for name, repeat in zip(EXTRACTORS, (10, 2), strict=True):
            write_warc(many, rows, repeat)
            bare_s, ours_s = [], []
            for number in range(arguments.rounds):
                bare_s.append(seconds_bare(name, pages * repeat))
                first, _ = extracted(name, one, Path(folder) / f"{name}-one-{number}")
                whole, _ = extracted(name, many, Path(folder) / f"{name}-many-{number}")
                ours_s.append(whole - first)
            print(f"| {name} | {min(bare_s):.2f} | {min(ours_s):.2f} | {min(ours_s) / min(bare_s):.2f} |")


if __name__ == "__main__":
    main()

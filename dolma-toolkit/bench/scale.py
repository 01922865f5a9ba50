"""Time and memory by input size: `python bench/scale.py --sizes 0.1 1 10` (gigabytes of text).

Time should grow with the input. Memory should not grow, except for the dedupe's filter, which is sized for the input.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from inputs import find_corpus, make_large_input
from timing import run
from works import RULES, TOKENIZERS, WORKS, Work, whole_run

OURS = Path(sys.executable).parent / "dolma"
NAMES = ("tag gopher_v2 + c4_v2", "dedupe paragraphs", "mix 10 jsonpath rules", "tokens dolma2")
CHOSEN = [work for work in WORKS if work.name in NAMES]
CHOSEN += [Work("whole path, one run", whole_run, 1, 0)] if TOKENIZERS else []


def main() -> int:
    """Print a line per command and size; write scale.json next to this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.1, 1.0, 10.0], metavar="GB", help="of text")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="commands whose names hold this")
    parser.add_argument("--work", type=Path, help="folder for the inputs (default: a temporary one)")
    parser.add_argument("--corpus", type=Path, help="folder of documents to repeat")
    parser.add_argument("--processes", type=int, default=1, help="of each command (default: 1)")
    options = parser.parse_args()
    found = []
    for size_gb in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.work) as name:
            given = make_large_input(Path(name) / "input", options.corpus or find_corpus(), size_gb * 1000)
            tag = [str(OURS), "tag", "--documents", given.pattern, "--taggers", *RULES, "--experiment", "rules"]
            for work in CHOSEN:
                if options.only and not any(part in work.name for part in options.only):
                    continue
                out = Path(name) / "out"
                out.mkdir()
                if "mix" in work.name and not (given.folder / "attributes" / "rules").is_dir():
                    run(tag, out)
                cost = run([str(OURS), *work.arguments(given, out), "--processes", str(options.processes)], out)
                filter_mb = sum(path.stat().st_size for path in out.glob("filter.bin")) / 1e6
                shutil.rmtree(out)
                shutil.rmtree(given.folder / "attributes" / "out", ignore_errors=True)
                line = {"work": work.name, "text_gb": round(given.text_mb / 1000, 4), "wall_s": round(cost.wall_s, 2)}
                line |= {
                    "cpu_s": round(cost.cpu_s, 2),
                    "peak_rss_mb": round(cost.peak_rss_mb),
                    "filter_mb": round(filter_mb),
                }
                found.append(line)
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()
    Path(__file__).with_name("scale.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

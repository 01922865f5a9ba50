"""The time of a command by function: `python bench/shares.py "dedupe 13-grams" --size-mb 60`.

The native part of the command (`measure run PLAN`) runs under `perf record`, with the plan that the command passes on.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from inputs import PRODUCT, Input, find_corpus, make_input
from timing import run
from works import RULES, WORKS, Work

__all__ = ["MEASURE", "build_measure", "profile", "shares"]

MEASURE = PRODUCT / "target" / "release" / "examples" / "measure"
SHOWN = 10
HAND_OVER = """
import sys
from dolma import _native
def keep(plan, *rest):
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write(plan)
    raise SystemExit(0)
_native.run = keep
from dolma.__main__ import main
main(sys.argv[2:])
"""


def build_measure() -> None:
    """Build the program that runs parts of commands."""
    build = ["cargo", "build", "--quiet", "--release", "-p", "dolma_core", "--example", "measure"]
    subprocess.run(build, cwd=PRODUCT, check=True)


def shares(work: Work, given: Input, folder: Path) -> dict[str, float]:
    """Of the native part of a command."""
    with tempfile.TemporaryDirectory(prefix="shares", dir=folder) as name:
        out = Path(name)
        arguments = work.arguments(given, out)
        plan = out / "plan.json"
        run([sys.executable, "-c", HAND_OVER, str(plan), *arguments], out)
        found = profile([str(MEASURE), "run", str(plan)], out)
        shutil.rmtree(given.folder / "attributes" / out.name, ignore_errors=True)
    return found


def profile(command: list[str], folder: Path) -> dict[str, float]:
    """Percent of the CPU time by function, the largest first; empty without `perf`."""
    if shutil.which("perf") is None:
        return {}
    data = str(folder / "perf.data")
    run(["perf", "record", "--quiet", "--freq", "499", "--output", data, *command], folder)
    report = ["perf", "report", "--stdio", "--no-children", "--sort", "symbol", "--input", data]
    return parsed(subprocess.run(report, capture_output=True, text=True, check=True).stdout)


def parsed(report: str) -> dict[str, float]:
    """The first lines of a report of perf: `12.34%  [.] name`."""
    found = re.findall(r"^\s+(\d+\.\d+)%\s+\[.\]\s+(.*?)(?:\s+-)*\s*$", report, re.MULTILINE)
    return {name[:100]: float(percent) for percent, name in found[:SHOWN]}


def main() -> int:
    """Print the shares of the commands that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", metavar="NAME", help="commands whose names hold this (default: all)")
    parser.add_argument("--size-mb", type=float, default=60.0, help="text to read (default: 60 MB)")
    parser.add_argument("--corpus", type=Path, help="folder of documents to repeat")
    options = parser.parse_args()
    build_measure()
    with tempfile.TemporaryDirectory() as name:
        given = make_input(Path(name) / "input", options.corpus or find_corpus(), options.size_mb)
        tag = ["tag", "--documents", given.pattern, "--taggers", *RULES, "--experiment", "rules"]
        run([str(Path(sys.executable).parent / "dolma"), *tag], Path(name))
        for work in WORKS:
            if options.only and not any(part in work.name for part in options.only):
                continue
            sys.stdout.write(f"{work.name}\n")
            for function, percent in shares(work, given, Path(name)).items():
                sys.stdout.write(f"{percent:6.2f} %  {function}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The whole chain on one machine: real text -> documents -> tokens -> model -> scores -> chat model -> one report.

`plan.py` is the table of contents: every command in order. `run()` performs the stages that are not done. A stage is
done if its stamp has the same commands, settings and inputs as now and its outputs still have the same manifests. So a
second run does nothing, a changed setting redoes what depends on it, and a killed run resumes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from plan import QUICK, Size, stages
from stage import Failed, Stage, Workplace, running_threads

HERE = Path(__file__).resolve().parent
TRUST_S = 60.0
"""After stages that were expected to take this long, the pace so far counts as much as the other processes."""


def run(work: Workplace, corpus: list[str], size: Size) -> Path:
    """Perform every stage that is not done; return the report's path.

    Raises Failed: a stage's command fails or does not finish its output.
    """
    plan = stages(work, corpus, size)
    started, done_s = time.monotonic(), 0.0
    for number, stage in enumerate(plan, 1):
        if work.is_done(stage):
            work.say(f"[{number:2}/{len(plan)}] {stage.name}: already done")
            continue
        remaining_s = sum(s.expected_s for s in to_do(work, plan[number - 1 :]))
        left_s = remaining_s * pace(done_s, time.monotonic() - started, running_threads())
        work.say(f"[{number:2}/{len(plan)}] {stage.name}  ({minutes(left_s)} left)")
        work.perform(stage)
        done_s += stage.expected_s
    return work.directory / "report" / "index.html"


def to_do(work: Workplace, plan: list[Stage]) -> list[Stage]:
    """The stages that are not done, and those that read what these write."""
    found: list[Stage] = []
    for stage in plan:
        if not work.is_done(stage) or any(set(stage.inputs) & set(earlier.outputs) for earlier in found):
            found.append(stage)
    return found


def pace(expected_s: float, elapsed_s: float, threads: float) -> float:
    """How many times slower than on two idle cores the rest will be.

    The stages so far took `elapsed_s` instead of `expected_s`. They were short and say little about the long ones, so
    this is averaged with what `threads` that other processes are running now leave to the two of a stage.
    """
    crowded = max(1.0, (threads + 2) / (os.cpu_count() or 2))
    return (elapsed_s + TRUST_S * crowded) / (expected_s + TRUST_S)


def minutes(seconds: float) -> str:
    """A duration as text; whole minutes, since an estimate is not more exact."""
    return "less than a minute" if seconds < 50 else f"about {max(1, round(seconds / 60))} min"


def main() -> int:
    """Run the command. Exit codes: 0 done, 1 a stage failed, 2 the request was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=HERE / "output", help="directory for everything written (default: demo/output)"
    )
    parser.add_argument(
        "--corpus", nargs="*", default=[], help="directories or files of documents instead of the Python installation"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=2,
        help="processes in the data stages; does not change the results (default: %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="run a few steps of each stage, as a check")
    arguments = parser.parse_args()
    corpus = [str(Path(path).resolve()) for path in arguments.corpus]
    for path in corpus:
        if not Path(path).exists():
            sys.stderr.write(f"error: CORPUS: {path} not found; expected a directory or file of documents\n")
            return 2
    if shutil.disk_usage(HERE).free < 2e9:
        sys.stderr.write("error: less than 2 GB of disk space is free; expected space for the demo's artifacts\n")
        return 1
    try:
        work = Workplace(arguments.work.resolve(), HERE, arguments.workers)
        report = run(work, corpus, QUICK if arguments.quick else Size())
    except Failed as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; `make demo` resumes from here\n")
        return 1
    sys.stdout.write(f"report: {report}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

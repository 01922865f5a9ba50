"""The whole chain on one machine: real text -> documents -> tokens -> model -> scores -> chat model -> one report.

`plan.py` is the table of contents: every command in order. `run()` does what is not done yet. A stage is done when its
stamp names the same commands, settings and inputs as now and its outputs have the manifests they had then; so a second
run does nothing, a changed setting redoes what depends on it, and after a kill the next run goes on.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from plan import QUICK, Size, stages
from stage import Failed, Workplace

HERE = Path(__file__).resolve().parent


def run(work: Workplace, corpus: list[str], size: Size) -> Path:
    """Do every stage that is not done; return the report's path.

    Raises Failed: when a stage's command fails or leaves no whole output.
    """
    plan = stages(work, corpus, size)
    missing = [stage for stage in plan if not work.is_done(stage)]
    expected = sum(stage.expected_s for stage in missing)
    started, pace = time.monotonic(), 1.0
    for number, stage in enumerate(plan, 1):
        if work.is_done(stage):
            work.say(f"[{number:2}/{len(plan)}] {stage.name}: done before")
            continue
        remaining = sum(s.expected_s for s in plan[number - 1 :] if not work.is_done(s))
        work.say(f"[{number:2}/{len(plan)}] {stage.name}  (eta of the whole {pace * remaining / 60:.1f} min)")
        work.perform(stage)
        behind = expected - remaining + stage.expected_s
        pace = (time.monotonic() - started) / max(behind, 1.0)
    return work.directory / "report" / "index.html"


def main() -> int:
    """The command: 0 done, 1 a stage failed, 2 the request was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=HERE / "output", help="where everything is written (default: demo/output)"
    )
    parser.add_argument(
        "--corpus", nargs="*", default=[], help="directories or files of documents instead of the Python installation"
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="processes of the data stages; the results do not depend on it"
    )
    parser.add_argument("--quick", action="store_true", help="a few steps of each stage, to see that they run")
    arguments = parser.parse_args()
    corpus = [str(Path(path).resolve()) for path in arguments.corpus]
    for path in corpus:
        if not Path(path).exists():
            sys.stderr.write(f"error: CORPUS: {path} does not exist; expected a directory or file of documents\n")
            return 2
    if shutil.disk_usage(HERE).free < 2e9:
        sys.stderr.write("error: less than 2 GB of disk are free; expected room for the demo's artifacts\n")
        return 1
    try:
        work = Workplace(arguments.work.resolve(), HERE, arguments.workers)
        report = run(work, corpus, QUICK if arguments.quick else Size())
    except Failed as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; `make demo` goes on from here\n")
        return 1
    sys.stdout.write(f"report: {report}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

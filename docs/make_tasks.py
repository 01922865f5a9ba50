"""Write docs/reference/tasks.md: the benchmarks of catwalk and their licences. `python docs/make_tasks.py [--check]`.

With `--check` nothing is written; exit 1 when the page is not what the benchmarks' files say now.
"""

from __future__ import annotations

import sys
from pathlib import Path

from catwalk.declarations import members, read_declaration
from catwalk.tasks import BENCHMARKS, TASKS

PAGE = Path(__file__).resolve().parent / "reference" / "tasks.md"
HEAD = """# Tasks of catwalk

A row for each file of [benchmarks/](../../catwalk-eval/src/catwalk/benchmarks); `catwalk list` shows each task. No data
set is part of this package, and each has its own licence. "Not stated" means that no licence was found in its card or
repository.

The state says what a test in this repository did with real rows: *scored* by a model, *rendered* as prompts, or only
*declared*: no rows were at hand, so a column or split may have another name. The test fails if a file claims more.
"""


def rows() -> list[tuple[str, ...]]:
    """A row for each benchmark: its name, source, data set, licence, kind, split, examples, metric and state."""
    found = []
    for path in sorted(BENCHMARKS.glob("*.yaml")):
        if path.stem in ("sets", "olmes"):
            continue
        one = read_declaration(path)
        hub = one.get("hub")
        name = f"{one['name']}_… ({len(members(one))})" if "members" in one else one["name"]
        where = f"{hub['name']}{' ' + hub['config'] if 'config' in hub else ''}" if hub else "made by catwalk"
        where = where.replace("{member}", "…")
        split, shots = one.get("split", "–").replace("{member}", "…"), str(one.get("shots", {}).get("count", 0))
        state, licence = one.get("state", "declared"), one.get("licence", "not stated")
        kind = one.get("kind", "choices")
        paper = one.get("paper", "")
        source = f"[{one['source']}](https://arxiv.org/abs/{paper.removeprefix('arXiv:')})" if paper else one["source"]
        found.append((f"`{name}`", source, where, licence, kind, split, shots, one["primary_metric"], state))
    return found


def page() -> str:
    """The page."""
    table = rows()
    states = [row[-1] for row in table]
    sets = {row[2].split(" ")[0] for row in table}
    total = f"{len(table)} benchmarks, {len(TASKS)} tasks, {len(sets)} data sets; {states.count('scored')} scored, "
    total += f"{states.count('rendered')} rendered, {states.count('declared')} declared."
    head = ("name", "source", "on the Hub", "licence", "kind", "split", "shots", "metric", "state")
    lines = [head, ("---",) * len(head), *table]
    return "\n".join([HEAD, total, "", *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def main() -> int:
    """Write the page, or compare it."""
    if "--check" not in sys.argv:
        PAGE.write_text(page(), "utf-8")
    elif not PAGE.is_file() or PAGE.read_text("utf-8") != page():
        sys.stderr.write("error: docs/reference/tasks.md is not what the benchmarks say\nhint: run `make docs`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

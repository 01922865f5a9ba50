"""The table of benchmarks, and names of several."""

import difflib
from collections.abc import Sequence

from ..formats.contract import ConfigError, Problem
from .benchmarks.bbh import BBH
from .benchmarks.gsm8k import GSM8K
from .benchmarks.humaneval import HUMANEVAL
from .benchmarks.ifeval import IFEVAL, IFEVAL_INSTRUCTIONS
from .benchmarks.mmlu import MMLU
from .benchmarks.mt_bench import MT_BENCH
from .benchmarks.toxicity import TOXICITY
from .benchmarks.truthfulqa import TRUTHFULQA
from .benchmarks.xstest import XSTEST_SAFE, XSTEST_UNSAFE
from .items import Benchmark

__all__ = ["BENCHMARKS", "SETS", "find_benchmarks"]

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        *(GSM8K, MMLU, BBH, TRUTHFULQA, IFEVAL, IFEVAL_INSTRUCTIONS, HUMANEVAL, XSTEST_SAFE, XSTEST_UNSAFE),
        *(TOXICITY, MT_BENCH),
    )
}
SETS = {
    "ifeval": ("ifeval", "ifeval_instructions"),
    "xstest": ("xstest_safe", "xstest_unsafe"),
}


def find_benchmarks(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks of names and sets, which may be separated by commas, each once. Raises ConfigError."""
    wanted = [part for name in names for part in name.split(",") if part]
    known = [*BENCHMARKS, *(name for name in SETS if name not in BENCHMARKS)]
    problems = []
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else None
            problems.append(Problem(f'tasks: unknown task "{name}"; expected {", ".join(known)}', hint))
    if problems or not wanted:
        raise ConfigError(*problems or (f"tasks: none is named; expected {', '.join(known)}",))
    found = {part: BENCHMARKS[part] for name in wanted for part in SETS.get(name, (name,))}
    return [found[name] for name in sorted(found)]

"""Names of tasks and of sets of tasks: one literal list."""

import difflib

from catwalk.errors import ConfigError
from catwalk.tasks.arc import ARC_CHALLENGE, ARC_EASY, COMMONSENSE_QA
from catwalk.tasks.boolq import BOOLQ
from catwalk.tasks.copa import COPA
from catwalk.tasks.glue import COMMITMENT_BANK, MRPC, RTE, SST2
from catwalk.tasks.hellaswag import HELLASWAG
from catwalk.tasks.openbookqa import OPENBOOKQA
from catwalk.tasks.piqa import PIQA
from catwalk.tasks.sciq import SCIQ
from catwalk.tasks.social_i_qa import SOCIAL_I_QA
from catwalk.tasks.winogrande import WINOGRANDE
from catwalk.types import Task

__all__ = ["TASKS", "TASK_SETS", "find_tasks"]

_ALL = (
    *(ARC_CHALLENGE, ARC_EASY, BOOLQ, COMMITMENT_BANK, COMMONSENSE_QA, COPA, HELLASWAG, MRPC, OPENBOOKQA, PIQA),
    *(RTE, SCIQ, SOCIAL_I_QA, SST2, WINOGRANDE),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}

# the zero-shot tasks of OLMo (arXiv:2402.00838), without and with HellaSwag, whose full split takes longest
_CORE8 = ("arc_challenge", "arc_easy", "boolq", "copa", "openbookqa", "piqa", "sciq", "winogrande")
TASK_SETS: dict[str, tuple[str, ...]] = {
    "core8": _CORE8,
    "core9": (*_CORE8[:4], "hellaswag", *_CORE8[4:]),
    "all": tuple(TASKS),
}


def find_tasks(names: tuple[str, ...]) -> list[Task]:
    """Tasks by name or by set, each once, sorted by name.

    Raises:
        ConfigError: for every unknown name at once, each with the nearest one.
    """
    found: set[str] = set()
    problems = []
    for name in names:
        if name in TASK_SETS:
            found.update(TASK_SETS[name])
        elif name in TASKS:
            found.add(name)
        else:
            near = difflib.get_close_matches(name, [*TASKS, *TASK_SETS], n=1, cutoff=0.0)[0]
            problems.append(f'tasks: "{name}" is not a task; expected one of `catwalk list` (nearest: "{near}")')
    if problems:
        raise ConfigError(problems, hint="catwalk list")
    return [TASKS[name] for name in sorted(found)]

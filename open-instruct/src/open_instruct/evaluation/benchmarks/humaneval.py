"""HumanEval (Chen et al. 2021, arXiv:2107.03374): Python functions from their docstrings; their tests are run."""

import re
from pathlib import Path

from ..items import Benchmark, Item, Loading, Row, Tools
from ..sandbox import run_program
from ..sources import find_files, read_records

__all__ = ["HUMANEVAL", "program_of"]

_REQUEST = "Complete this Python function. Answer with the whole function in one block of code.\n\n"
_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)


def program_of(prompt: str, entry_point: str, answer: str) -> str:
    """The program of an answer: a whole function, in a block of code or not, or the rest of the prompt's.

    What the prompt has before the function, such as imports, is kept.
    """
    blocks = [text for language, text in _FENCE.findall(answer) if language.lower() in ("", "python", "py", "python3")]
    header = re.compile(rf"^(?:async )?def {re.escape(entry_point)}\b", re.MULTILINE)
    whole: list[str] = [text for text in blocks if header.search(text)]
    if whole:
        return _before(prompt, header) + whole[0]
    if found := header.search(answer):
        return _before(prompt, header) + answer[found.start() :]
    return prompt + str(blocks[0] if blocks else answer)


def _before(prompt: str, header: re.Pattern[str]) -> str:
    found = header.search(prompt)
    return prompt[: found.start()] if found else ""


def _load(loading: Loading) -> tuple[list[Item], list[Path]]:
    names = ("humaneval/*.jsonl", "human_eval/*.jsonl", "HumanEval.jsonl")
    files = find_files(loading.directory, names, "HumanEval.jsonl")
    items = []
    for path in files:
        for row in read_records(path):
            prompt = row.string("prompt", not_empty=True)
            entry_point = row.string("entry_point", not_empty=True)
            test = f"\n{row.string('test')}\ncheck({entry_point})\n"
            items.append(
                Item(
                    id=row.string("task_id", not_empty=True),
                    question=prompt if loading.style == "text" else f"{_REQUEST}```python\n{prompt.strip()}\n```",
                    more={"prompt": prompt, "entry_point": entry_point, "test": test},
                )
            )
    return items, files


def _grade(item: Item, answer: str, tools: Tools) -> list[Row]:
    program = program_of(item.more["prompt"], item.more["entry_point"], answer)
    outcome = run_program(program + item.more["test"])
    return [{"id": item.id, "scores": {"pass_at_1": float(outcome.passed)}}]


HUMANEVAL = Benchmark(
    name="humaneval",
    summary="Python functions from their docstrings; their tests are run in a sandbox",
    source="arXiv:2107.03374",
    files="humaneval/*.jsonl (task_id, prompt, entry_point, test)",
    primary_metric="pass_at_1",
    load=_load,
    grade=_grade,
    max_tokens=768,
    stop=("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\n```"),
    needs=("allow_code",),
)
